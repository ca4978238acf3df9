"""Photos to sheets of what the network looks at: `explain`."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from segmenter.data.files import read_image
from segmenter.errors import cleaned
from segmenter.inference.predict import predict
from segmenter.inspection.attention import Attention, Look, chosen_layers, class_token, look_at, patch_token, row_maps
from segmenter.inspection.captured import blocks_of
from segmenter.inspection.places import Point, Window, class_id, refuse_outside_photo
from segmenter.inspection.relevance import cells_at, cells_of_class, relevance_of_patches
from segmenter.inspection.rollout import rollout
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.views.asked import Asked, Subject, overview, what_to_look_at
from segmenter.views.attention_sheets import Ways, classes_sheet, heads_sheet, probability, ways_sheet
from segmenter.views.pictures import find_images
from segmenter.views.results import Results

PAPER = (1 / 11, 4 / 11, 8 / 11, 1)  # the layers that the paper shows of 12: 1, 4, 8 and 11
Explained = dict[str, object]


def paper_layers(depth: int) -> list[int]:
    """The layers of an encoder that lie where those lie that the paper shows: all of a small one, four of a large."""
    return sorted({round(part * (depth - 1)) for part in PAPER})


def explain_files(
    model: Segmenter,
    inputs: Iterable[str],
    out: Path,
    at: Sequence[Point] = (),
    class_names: Sequence[str] = (),
    layers: Sequence[int] = (),
    native: bool = False,
    overwrite: bool = False,
) -> list[Explained]:
    """Writes the sheets of each photo to `out`/NAME; returns what was looked at, and the files.

    Args:
        model: in any mode.
        inputs: files, folders or globs.
        out: folder for the results.
        at: points (y, x) of each photo; none, and no classes: one in the widest region of each of some classes.
        class_names: classes of the model.
        layers: of the encoder, counted from 0; none: those that the paper shows.
        native: keep the photos' scale.
        overwrite: replace what an earlier `explain` wrote there.

    Raises:
        UserError: no photos or one that cannot be read, a point outside one, no such class or layer; or `out` holds
            data, files of others in the place of results, or earlier results unless they are to be overwritten.
    """
    at, labels = list(dict.fromkeys(at)), [class_id(model.classes, name) for name in dict.fromkeys(class_names)]
    layers = chosen_layers(model, "encoder", layers or paper_layers(len(blocks_of(model, "encoder"))))
    results, explained = Results(out, "explain"), []
    for file, name in find_images(inputs):
        photo = read_image(file)
        for point in at:
            refuse_outside_photo(point, photo.shape[:2])
        asked = what_to_look_at(model, photo, predict(model, photo, native=native), at, labels, native)
        sheets = Sheets(model, asked, layers).to_draw()
        paths = {out / name / f"{sheet}.jpg": draw for sheet, draw in sheets.items()}
        results.claim(list(paths), overwrite)
        for path, draw in Progress(list(paths.items()), desc="explain", unit="sheet"):
            picture = draw()
            results.write(path, partial(picture.save, format="JPEG", quality=90, subsampling=0))
        explained.append({"image": str(file), **asked.describe(), "files": [str(path) for path in paths]})
        if class_names and not isinstance(model.decoder, MaskTransformer):
            explained[-1]["note"] = (
                f"the {model.recipe.decoder.name} decoder has no class embeddings, whose attention could be shown; "
                "what decides the classes is shown"
            )
    return explained


class Sheets:
    """The sheets of one photo; each window passes through the network when the first sheet about it is drawn."""

    def __init__(self, model: Segmenter, asked: Asked, layers: Sequence[int]):
        self.model, self.asked, self.layers = model, asked, layers
        self.embeddings = isinstance(model.decoder, MaskTransformer)
        self._looks: dict[tuple[int, int], Look] = {}

    def to_draw(self) -> dict[str, Callable[[], Image.Image]]:
        """Names of the sheets, and what draws each."""
        sheets: dict[str, Callable[[], Image.Image]] = {"overview": partial(overview, self.asked)}
        sheets |= {f"point{number}": partial(self._point, s) for number, s in enumerate(self.asked.points, 1)}
        if self.embeddings:
            for subject in self.asked.classes:
                name = "class_" + re.sub(r"[^\w-]+", "_", subject.caption)[:60]
                sheets[name if name not in sheets else f"{name}_{subject.label}"] = partial(self._class, subject)
            sheets["classes"] = self._classes
        return sheets | {"decided": self._decided}

    def _point(self, subject: Subject) -> Image.Image:
        found = self._encoder(subject, self.layers)
        return heads_sheet(self.asked.photo, subject, found, self._elsewhere(), overview(self.asked, subject))

    def _class(self, subject: Subject) -> Image.Image:
        found = self._decoder(subject)
        return heads_sheet(self.asked.photo, subject, found, "the classes", overview(self.asked, subject))

    def _classes(self) -> Image.Image:
        found = [(s, self._decoder(s), self._look(s.window).logits) for s in self.asked.shown]
        return classes_sheet(self.asked.photo, self.model, found)

    def _decided(self) -> Image.Image:
        return ways_sheet(self.asked.photo, [self._ways(s) for s in (*self.asked.points, *self.asked.classes)])

    def _ways(self, subject: Subject) -> Ways:
        """What has decided a patch, or the patches of a class: rollout begins at all of them by their probability."""
        logits, shares = self._look(subject.window).logits, {}
        if subject.at is not None:
            last = self.model.encoder.depth - 1
            shares[f"attention of layer {last}"] = self._encoder(subject, [last]).maps[0].mean(0)
            start, cells = torch.zeros(subject.window.grid), cells_at(self.model, subject.window, subject.at)
            start[subject.window.patch(subject.at)] = 1
        else:
            mask = probability(self.model, subject.window, logits, subject.label, subject.window.grid)
            start, cells = torch.from_numpy(mask / mask.sum()), cells_of_class(logits[0], subject.label)
        images = self._images(subject.window)
        shares["rollout"] = rollout(self.model, images, start.to(images.device)).cpu().numpy()
        relevance = relevance_of_patches(self.model, images, cells, subject.label)
        return Ways(subject, shares, relevance.cpu().numpy())

    def _encoder(self, subject: Subject, layers: Sequence[int]) -> Attention:
        number = self._points_in(subject.window).index(subject)
        return row_maps(self.model, subject.window, self._look(subject.window), "encoder", layers, number)

    def _decoder(self, subject: Subject) -> Attention:
        layers = chosen_layers(self.model, "decoder", ())
        return row_maps(self.model, subject.window, self._look(subject.window), "decoder", layers, subject.label)

    def _look(self, window: Window) -> Look:
        """The rows of all points in a window, and of all classes."""
        place = (window.row, window.column)
        if place not in self._looks:
            points = self._points_in(window)
            tokens = {"encoder": [patch_token(self.model, window, subject.at, "encoder") for subject in points]}
            if self.embeddings:
                tokens["decoder"] = [class_token(window, label) for label in range(len(self.model.classes))]
            self._looks[place] = look_at(self.model, self._images(window), tokens)
        return self._looks[place]

    def _points_in(self, window: Window) -> list[Subject]:
        return [s for s in self.asked.points if s.window is window]

    def _images(self, window: Window) -> Tensor:
        return self.model.normalize(window.pixels[None])

    def _elsewhere(self) -> str:
        """The encoder's tokens that are no patches."""
        if self.model.encoder.prefix == 1 and self.model.encoder.has_class_token:
            return "the class token"
        return "the other tokens" if self.model.encoder.prefix else ""


def summary(explained: list[Explained]) -> str:
    """What was looked at, and where the sheets are: some lines a photo."""
    lines = []
    for entry in explained:
        folder = Path(entry["files"][0]).parent
        lines.append(f"{cleaned(entry['image'])}: {len(entry['files'])} sheets in {cleaned(str(folder))}")
        for number, point in enumerate(entry["points"], 1):
            says = f" ({point['class']})" if "class" in point else ""
            lines.append(f"  point {number}: x {point['x']}, y {point['y']}{says}, {point['window']}")
        lines += [f"  class {found['class']}: {found['window']}" for found in entry["classes"]]
        lines += [f"  {entry['note']}"] if "note" in entry else []
    return "\n".join(lines)
