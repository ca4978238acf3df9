"""Photos to sheets of what the network looks at: `explain`."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from segmenter.data.files import read_image
from segmenter.errors import cleaned
from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inference.predict import predict
from segmenter.inspection.attention import (
    Attention,
    Look,
    chosen_layers,
    class_token,
    look_at,
    patch_token,
    row_maps,
)
from segmenter.inspection.captured import blocks_of
from segmenter.inspection.places import (
    Point,
    Window,
    class_id,
    likeliest_place,
    refuse_outside_photo,
    widest_places,
    window_at,
    windows_on,
)
from segmenter.inspection.rollout import rollout
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.segmenter import Segmenter
from segmenter.views.attention_sheets import Subject, classes_sheet, heads_sheet, probability, ways_sheet
from segmenter.views.heat import MARK
from segmenter.views.lettering import font
from segmenter.views.overlay import overlay
from segmenter.views.pictures import find_images
from segmenter.views.results import Results
from segmenter.views.tasks import TASKS

POINTS = 4  # that are looked at where none are named: one in each of the widest regions
CLASSES = 8  # rows of the sheet of classes
PAPER = (1 / 11, 4 / 11, 8 / 11, 1)  # the layers that the paper shows of 12: 1, 4, 8 and 11
OVERVIEW, SMALLEST_OVERVIEW = 2**20, 900  # pixels at most, and along the longer side at least
Explained = dict[str, object]


@dataclass(frozen=True)
class Asked:
    """What is looked at in one photo."""

    photo: np.ndarray
    result: Result | DepthResult
    windows: list[Window]
    points: list[Subject]
    classes: list[tuple[int, Subject]]
    """Named on the command line."""
    shown: list[tuple[int, Subject]]
    """On the sheet of all classes."""

    @property
    def subjects(self) -> list[Subject]:
        """All of them."""
        return [*self.points, *(subject for _, subject in (*self.classes, *self.shown))]


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
    labels = [class_id(model.classes, name) for name in class_names]
    layers = chosen_layers(model, "encoder", layers or paper_layers(len(blocks_of(model, "encoder"))))
    results, explained = Results(out, "explain"), []
    for file, name in find_images(inputs):
        photo = read_image(file)
        for point in at:
            refuse_outside_photo(point, photo.shape[:2])
        asked = _asked(model, photo, predict(model, photo, native=native), at, labels, native)
        sheets = _sheets(model, asked, layers)
        paths = {out / name / f"{sheet}.jpg": draw for sheet, draw in sheets}
        results.claim(list(paths), overwrite)
        for path, draw in paths.items():
            picture = draw()
            results.write(path, partial(picture.save, format="JPEG", quality=90, subsampling=0))
        explained.append({"image": str(file), **_told(asked), "files": [str(path) for path in paths]})
        if class_names and not isinstance(model.decoder, MaskTransformer):
            explained[-1]["note"] = (
                f"the {model.recipe.decoder.name} decoder has no class embeddings, whose attention could be shown; "
                "what decides the classes is shown"
            )
    return explained


def _asked(
    model: Segmenter,
    photo: np.ndarray,
    result: Result | DepthResult,
    at: Sequence[Point],
    labels: Sequence[int],
    native: bool,
) -> Asked:
    """What to look at in a photo whose result is known."""
    windows = windows_on(model, photo, native)
    widest = widest_places(result.labels, len(result.classes)) if isinstance(result, Result) else {}
    if not at and not labels:
        middle = (photo.shape[0] // 2, photo.shape[1] // 2)
        at = list(widest.values())[:POINTS] or [middle]

    def of_class(label: int) -> tuple[int, Subject]:
        place = widest[label] if label in widest else likeliest_place(result, label)
        name = model.classes.names[label]
        return label, Subject(f"the embedding of class {name}", name, window_at(windows, place))

    points = []
    for number, point in enumerate(at, 1):
        says = model.classes.names[int(result.labels[point])] if isinstance(result, Result) else ""
        name = f"the patch at x {point[1]}, y {point[0]}" + f" ({says})" * bool(says)
        points.append(Subject(name, f"point {number}\n{says}".strip(), window_at(windows, point), point))
    shown = (labels or list(widest)[:CLASSES]) if isinstance(model.decoder, MaskTransformer) else []
    return Asked(photo, result, windows, points, [of_class(label) for label in labels], [*map(of_class, shown)])


def _sheets(model: Segmenter, asked: Asked, layers: Sequence[int]) -> list[tuple[str, Callable[[], Image.Image]]]:
    """Names of all sheets of a photo, and what draws each; windows pass through the network as the first is drawn."""
    looks: dict[tuple[int, int], Look] = {}
    embeddings = isinstance(model.decoder, MaskTransformer)

    def look(window: Window) -> Look:
        place = (window.row, window.column)
        if place not in looks:
            tokens = {"encoder": [patch_token(model, window, s.at, "encoder") for s in _of(asked.points, window)]}
            if embeddings:
                tokens["decoder"] = [class_token(window, label) for label in range(len(model.classes))]
            looks[place] = look_at(model, model.normalize(window.pixels[None]), tokens)
        return looks[place]

    def of_point(subject: Subject) -> Image.Image:
        number = _of(asked.points, subject.window).index(subject)
        found = row_maps(model, subject.window, look(subject.window), "encoder", layers, number)
        return heads_sheet(asked.photo, subject, found, _elsewhere(model), _overview(asked, subject))

    def in_decoder(label: int, subject: Subject) -> Attention:
        return row_maps(
            model, subject.window, look(subject.window), "decoder", chosen_layers(model, "decoder", ()), label
        )

    def of_class(label: int, subject: Subject) -> Image.Image:
        return heads_sheet(asked.photo, subject, in_decoder(label, subject), "the classes", _overview(asked, subject))

    def of_classes() -> Image.Image:
        found = [(label, s, in_decoder(label, s), look(s.window).logits) for label, s in asked.shown]
        return classes_sheet(asked.photo, model, found)

    def of_ways() -> Image.Image:
        rows = []
        for subject in asked.points:
            seen = look(subject.window)
            place = _of(asked.points, subject.window).index(subject)
            start = torch.zeros(subject.window.grid)
            start[subject.window.patch(subject.at)] = 1
            last = max(block for part, block in seen.rows if part == "encoder")
            row = row_maps(model, subject.window, seen, "encoder", [last], place)
            ways = {f"attention of layer {last}": row.maps[0].mean(0), "rollout": _rollout(model, subject, start)}
            rows.append((subject, ways))
        for label, subject in asked.classes:
            seen = look(subject.window)
            start = torch.from_numpy(probability(model, subject.window, seen.logits, label, subject.window.grid))
            ways = {"rollout": _rollout(model, subject, start / start.sum())}
            rows.append((subject, ways))
        return ways_sheet(asked.photo, rows)

    sheets: list[tuple[str, Callable[[], Image.Image]]] = [("overview", partial(_overview, asked))]
    sheets += [(f"point{number}", partial(of_point, subject)) for number, subject in enumerate(asked.points, 1)]
    if embeddings:
        sheets += [
            (f"class_{_file_name(model.classes.names[label])}", partial(of_class, label, subject))
            for label, subject in asked.classes
        ]
        sheets.append(("classes", of_classes))
    return [*sheets, ("decided", of_ways)]


def _rollout(model: Segmenter, subject: Subject, start: torch.Tensor) -> np.ndarray:
    images = model.normalize(subject.window.pixels[None])
    return rollout(model, images, start.to(images.device)).cpu().numpy()


def _of(points: Sequence[Subject], window: Window) -> list[Subject]:
    """The points that are looked at in a window."""
    return [s for s in points if (s.window.row, s.window.column) == (window.row, window.column)]


def _elsewhere(model: Segmenter) -> str:
    """The encoder's tokens that are no patches."""
    if model.encoder.prefix == 1 and model.encoder.has_class_token:
        return "the class token"
    return "the other tokens" if model.encoder.prefix else ""


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name)[:60]


def _overview(asked: Asked, only: Subject | None = None) -> Image.Image:
    """The photo with what the model says, and the points and windows that are looked at.

    With `only`, it is that of one subject alone, without legend: a small picture for the head of a sheet.
    """
    photo, result = asked.photo, asked.result
    if (larger := -(-SMALLEST_OVERVIEW // max(photo.shape[:2]))) > 1:  # letters would cover a small photo
        size = (photo.shape[1] * larger, photo.shape[0] * larger)
        result = TASKS[result.task].sampled(result, *(np.arange(side) // larger for side in size[::-1]))
        photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    width = overlay(photo, result, legend=False, largest=OVERVIEW).width
    picture = overlay(photo, result, legend=only is None, largest=OVERVIEW)
    scale, line = width / asked.photo.shape[1], max(2, width // 300) * (1 if only is None else 2)
    draw, size = ImageDraw.Draw(picture), width // (40 if only is None else 18)
    if len(asked.windows) > 1:
        for box in {subject.window.box for subject in ([only] if only else asked.subjects)}:
            left, top, right, bottom = (side * scale for side in box)
            draw.rectangle([left, top, right - 1, bottom - 1], outline="white", width=line)
    for number, subject in enumerate(asked.points, 1):
        if only in (None, subject):
            y, x = ((where + 0.5) * scale for where in subject.at)
            draw.circle((x, y), size * 0.9, fill="black", outline=MARK, width=line)
            draw.text((x, y), str(number), fill=MARK, font=font(size, bold=True), anchor="mm")
    return picture


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


def _told(asked: Asked) -> Explained:
    """What was looked at, and in which windows, for JSON."""
    names = asked.result.classes.names if isinstance(asked.result, Result) else ()
    points = [
        {"x": s.at[1], "y": s.at[0], "window": s.window.describe()}
        | ({"class": names[int(asked.result.labels[s.at])]} if names else {})
        for s in asked.points
    ]
    classes = [{"class": names[label], "window": s.window.describe()} for label, s in asked.classes or asked.shown]
    return {"points": points, "classes": classes}
