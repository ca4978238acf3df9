"""From a folder with annotations to samples: the classes, the splits, and the labels drawn when a sample is read."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from segmenter import config
from segmenter.data.annotations import tables
from segmenter.data.annotations.formats import FORMATS, Format, recognised
from segmenter.data.annotations.listing import Listing
from segmenter.data.annotations.raster import draw
from segmenter.data.annotations.record import BACKGROUND_NAMES, Bitmap, Labels, Picture, Problems, Reading
from segmenter.data.classes import Classes
from segmenter.data.classes_yaml import fill_colors
from segmenter.data.files import image_size, read_mask
from segmenter.data.folders import SPLITS, split_by_hash
from segmenter.data.infer_classes import infer_classes
from segmenter.data.pairs import MASKS, contents, first
from segmenter.data.samples import DataSet, FileSample, counts, file_samples, size_text
from segmenter.errors import UserError

logger = logging.getLogger(__name__)
BACKGROUND = "background"
BEYOND = 1.0  # pixels by which outlines may leave their picture without a word: tools round so


@dataclass(frozen=True)
class AnnotatedSample(FileSample):
    """A picture whose labels are drawn from shapes each time they are read; `target_path` holds the annotations."""

    picture: Picture | None = None
    classes: Classes | None = None
    values: tuple[int, ...] = ()
    """Class of each label of the shapes."""
    unlabelled: int = 0
    """Class, or ignore value, of what no shape covers."""
    skip: bool = False
    """Shapes with faults are left out with a warning."""

    def stored(self, by_color: bool = False) -> np.ndarray:
        """The labels (H W) as drawn.

        Raises:
            UserError: the picture has another size than was annotated, or a shape cannot be drawn.
        """
        size = image_size(self.image_path)
        picture = self.picture
        if picture.size is not None and picture.size != size:
            raise UserError(size_text(self, size, picture.size))
        labels = np.full(size, self.unlabelled, np.uint8 if self.classes.ignore == 255 else np.uint16)
        for fault in draw(picture.shapes, labels, self.values, self.classes.ignore, picture.relative):
            if not self.skip:
                raise UserError(fault)
            logger.warning("left out: %s", fault)
        return labels

    def instances(self) -> None:
        """None: parts of one thing are not kept together, so it is not known which is which."""
        return None

    def target(self) -> np.ndarray:
        """The labels (H W), with the settings' map."""
        return self.classes.decode(self.stored(), self.target_path)


def open_annotations(root: Path, settings: config.Data, has_masks: bool) -> DataSet | None:
    """The data set that annotations in a folder describe, None where there are none of a known format.

    Masks that are there for the images come before shapes, unless the settings say otherwise.

    Raises:
        UserError: the settings name a format that is not there, or the annotations have faults or cannot be read.
    """
    if settings.layout != "auto" and settings.layout not in FORMATS:
        return None
    listing = Listing(root)
    name = settings.layout if settings.layout in FORMATS else recognised(listing)
    if name is None and listing.broken and not has_masks:
        raise UserError(f"{root} has no masks, and what may be its annotations cannot be read:", listing.broken)
    if name is None or (has_masks and settings.layout == "auto" and FORMATS[name].read is not None):
        return None
    known = FORMATS[name]
    if settings.layout != "auto" and not known.recognise(listing):
        raise UserError(f"{root} holds {contents(root)}, but {known.title} has {known.expected}")
    return _of_masks(listing, known, settings) if known.read is None else _of_shapes(listing, known, settings)


def _of_masks(listing: Listing, known: Format, settings: config.Data) -> DataSet:
    """The data set of mask files with a table of classes."""
    found = tables.read(listing, settings.unlabelled)
    if not found.pairs:
        raise UserError(f"{listing.root} has a table of classes, but no picture with a mask beside it")
    splits, notes = _dealt(found.pairs, settings.split_seed)
    if settings.classes:
        classes = Classes.read(settings.classes)
    else:
        masks = [mask for pairs in splits.values() for _, mask in pairs.values()]
        classes = found.classes or infer_classes(masks, listing.root / "classes.yaml", settings.map)
    classes = classes.with_map(settings.map)
    samples = file_samples(splits, _ReadMask(classes), MASKS.word)
    source = f"{listing.root} ({known.title}): {counts(samples)}; {len(classes)} classes"
    return DataSet(classes, samples, source, settings=settings, notes=(*found.notes, *notes))


@dataclass(frozen=True)
class _ReadMask:
    classes: Classes

    def __call__(self, path: Path) -> np.ndarray:
        return read_mask(path, self.classes)


def _of_shapes(listing: Listing, known: Format, settings: config.Data) -> DataSet:
    """The data set of pictures with shapes."""
    reading = known.read(listing)
    problems = reading.problems
    _look_at_borders(reading)
    if problems.count and not settings.skip_faults:
        text = f"{listing.root} ({known.title}) has {problems.count} faults"
        raise UserError(f"{text}; correct them, or leave them out with --data.skip-faults:", _lines(problems))
    if not reading.pictures:
        raise UserError(f"{listing.root} ({known.title}) has no annotated picture", _lines(problems))
    unlabelled = known.unlabelled if settings.unlabelled == "auto" else settings.unlabelled
    classes, values, rest = _classes(reading.labels, unlabelled, settings.classes, listing.root)
    classes = classes.with_map(settings.map)
    pictures = [(picture.split, picture.path, picture) for picture in reading.pictures]
    dealt, notes = _dealt(pictures, settings.split_seed)
    rule = (classes, values, rest, settings.skip_faults)
    splits = {
        split: [
            AnnotatedSample(name, picture.path, picture.file, _not_read, MASKS.word, picture, *rule)
            for name, picture in found.items()
        ]
        for split, found in dealt.items()
    }
    skipped = (f"{problems.count} faults are left out: {problems.faults[0]}",) if problems.count else ()
    what = "ignored" if rest == classes.ignore else classes.names[rest]
    source = f"{listing.root} ({known.title}): {counts(splits)}; {len(classes)} classes, unlabelled pixels are {what}"
    return DataSet(classes, splits, source, settings=settings, notes=(*skipped, *problems.notes, *notes))


def _not_read(path: Path) -> np.ndarray:
    raise AssertionError(f"{path} is no mask")


def _lines(problems: Problems) -> list[str]:
    return [f"- {text}" for text in problems.faults]


def _classes(labels: Labels, unlabelled: str, own: str, root: Path) -> tuple[Classes, tuple[int, ...], int]:
    """Classes, the class of each label, and the class or ignore value of what is not labelled.

    Raises:
        UserError: there is no label, or a classes.yaml of the user lacks one.
    """
    if not labels.names:
        raise UserError(f"{root} has annotations, but none with a label")
    if own:
        classes = replace(Classes.read(own), by_color=False, values={})  # what it says of masks is not about shapes
        lacking = [name for name in labels.names if name not in classes.names]
        if missing := [name for name in lacking if name.casefold() not in BACKGROUND_NAMES]:
            raise UserError(f"{own} lacks the classes {first(missing)} of {root}; add them, by these names")
        names, colors = list(classes.names), list(classes.colors)
    else:
        names = list(labels.names)
        colors = [labels.colors.get(name) for name in names]
    place = next((i for i, name in enumerate(names) if name.casefold() in BACKGROUND_NAMES), None)
    if not own and unlabelled == "background" and place is None:
        names, colors, place = [BACKGROUND, *names], [None, *colors], 0
        colors[0] = (0, 0, 0) if (0, 0, 0) not in colors else None
    repeated = [color if color not in colors[:i] else None for i, color in enumerate(colors)]
    classes = classes if own else Classes(tuple(names), fill_colors(repeated))
    rest = place if unlabelled == "background" and place is not None else classes.ignore
    other = classes.ignore if place is None else place
    places = {name: i for i, name in enumerate(names)}
    values = (other if name.casefold() in BACKGROUND_NAMES else places[name] for name in labels.names)
    return classes, tuple(values), rest


def _names(paths: Sequence[PurePath]) -> list[str]:
    """Names of files: paths without suffix below the folder that all have in common; with it where two are alike."""
    common = _common([path.parent for path in paths])
    short = [path.relative_to(common).with_suffix("").as_posix() for path in paths]
    twice = {name for name, count in Counter(short).items() if count > 1}
    return [f"{name}_{path.suffix[1:]}" if name in twice else name for name, path in zip(short, paths, strict=True)]


def _common(folders: Sequence[PurePath]) -> PurePath:
    common = folders[0]
    for folder in set(folders):
        while not folder.is_relative_to(common):
            common = common.parent
    return common


def _dealt(found: Sequence[tuple[str, PurePath, Any]], seed: int) -> tuple[dict[str, dict], tuple[str, ...]]:
    """Each thing by its split and its name, from split, path and thing, and what is to be said of it.

    Splits are as stated; where nothing is said, or all are of train, 80, 10 and 10 % of the things.
    """
    stated = {split for split, *_ in found}
    loose = [path for split, path, _ in found if not split]
    anew = stated <= {"", "train"}
    notes = ()
    if anew and "train" in stated:
        notes = ("only train is stated; its pictures are dealt out to train, val and test anew",)
    elif loose and not anew:
        notes = (f"{len(loose)} pictures are of no split, and count as train ({first(list(map(str, loose)))})",)
    grouped: dict[str, list[tuple[PurePath, Any]]] = defaultdict(list)
    for split, path, thing in found:
        grouped["train" if anew else split or "train"].append((path, thing))
    named = {}
    for split in SPLITS:
        if own := grouped[split]:
            names = _names([path for path, _ in own])
            named[split] = dict(sorted(zip(names, (thing for _, thing in own), strict=True)))
    return (
        {split: some for split, some in split_by_hash(named["train"], seed).items() if some} if anew else named
    ), notes


def _look_at_borders(reading: Reading) -> None:
    """Counts the outlines that leave their picture, as far as its size is known."""
    for picture in reading.pictures:
        size = (1, 1) if picture.relative else picture.size
        if size is None:
            continue
        spare = BEYOND / 100 if picture.relative else BEYOND
        for shape in picture.shapes:
            if not isinstance(shape.form, Bitmap):
                low, high = shape.form.rings[0].min(0), shape.form.rings[0].max(0)
                if low.min() < -spare or high[0] > size[1] + spare or high[1] > size[0] + spare:
                    reading.problems.leave_out("outlines leave their picture, and are cut off there", shape.where)
