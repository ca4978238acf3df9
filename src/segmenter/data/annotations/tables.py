"""Masks beside a table of their classes: labelmap.txt (CVAT, Pascal VOC), class_dict.csv, Roboflow's _classes.csv.

A labelmap and a class_dict give colours, which the masks show (as RGB or through a palette); _classes.csv gives the
numbers in the masks. Folders of Pascal VOC without a table are read too: their classes are told from the masks. Masks
are known by their folder (masks, labels, SegmentationClass, train_labels ...) or by the end of their name (_mask, _L).
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from segmenter.data.annotations.listing import MASK_FOLDER, Listing
from segmenter.data.annotations.record import BACKGROUND_NAMES, IGNORED_NAMES
from segmenter.data.classes import Classes
from segmenter.data.classes_yaml import MOST_CLASSES, Color, fill_colors
from segmenter.data.folders import SPLITS
from segmenter.data.pairs import Pairs, first, lines
from segmenter.documents import BadDocument, read_text
from segmenter.errors import UserError, shown

LABELMAP, CLASS_DICT, ROBOFLOW = "labelmap.txt", "class_dict.csv", "_classes.csv"
BORDERS = (224, 224, 192)  # the colour of VOC's borders between things, which are ignored
IMAGE_FOLDERS = ("images", "image", "imgs", "photos", "jpegimages", "rgb", "input")
MASK_NAME = re.compile(r"(.+?)[_-](masks?|labels?|gt|L|annot)$")
OTHER_MASKS = ("segmentationobject",)  # instances, not classes


@dataclass
class MaskFiles:
    """Pictures and mask files."""

    classes: Classes | None
    """None: as the masks show."""
    pairs: list[tuple[str, PurePath, tuple[Path, Path]]]
    """Split (empty where nothing says it), path that gives the name, and picture with mask."""
    notes: tuple[str, ...] = ()


@dataclass
class _Table:
    """Rows of a table: names with their colours, or their numbers in the masks."""

    names: list[str] = field(default_factory=list)
    colors: list[Color | None] = field(default_factory=list)
    values: list[int] = field(default_factory=list)


def recognise(listing: Listing) -> bool:
    """Whether there is a table of classes, or a folder of Pascal VOC."""
    if any(path.name in (LABELMAP, CLASS_DICT, ROBOFLOW) for path in listing.files):
        return bool(_pairs(listing)[0])
    return _is_voc(listing) and bool(_pairs(listing)[0])


def read(listing: Listing, unlabelled: str = "auto") -> MaskFiles:
    """The pictures and masks of a folder, with the classes that its tables state.

    Raises:
        UserError: a table cannot be read, or tables differ, or no picture has a mask.
    """
    tables = [path for path in listing.files if path.name in (LABELMAP, CLASS_DICT, ROBOFLOW)]
    classes = None
    for path in tables:
        found = _classes(path, unlabelled)
        if classes is not None and found != classes:
            raise UserError(f"{tables[0]} and {path} state other classes; make them equal, or remove one")
        classes = found
    pairs, lonely = _pairs(listing)
    notes = (f"{len(lonely)} pictures have no mask, and are left out ({first(lonely)})",) if lonely else ()
    lists = _lists(listing)
    if lists and (unlisted := [name for name, (image, _) in pairs.items() if image.stem not in lists]):
        notes += (f"{len(unlisted)} pictures are in no list, and are left out ({first(unlisted)})",)
    found = [
        (lists.get(image.stem, "") if lists else listing.split(image), PurePosixPath(f"{name}.png"), (image, mask))
        for name, (image, mask) in pairs.items()
        if not lists or image.stem in lists
    ]
    return MaskFiles(classes, found, notes)


def _is_voc(listing: Listing) -> bool:
    folders = {path.parent.name for path in listing.pictures}
    return {"JPEGImages", "SegmentationClass"} <= folders


def _lists(listing: Listing) -> dict[str, str]:
    """The split of each name in VOC's lists."""
    return {
        Path(line).name: split
        for path in listing.files
        if path.parent.as_posix().endswith("ImageSets/Segmentation") and path.stem in SPLITS
        for split in [path.stem]
        for line in lines(path)
    }


def _pairs(listing: Listing) -> tuple[Pairs, list[str]]:
    """Pictures with masks, by the path that they have in common, and the paths of pictures without."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in listing.pictures:
        parts = path.relative_to(listing.root).with_suffix("").parts
        if any(part.lower() in OTHER_MASKS for part in parts):
            continue
        key, is_mask = [], False
        for part in parts[:-1]:
            if match := MASK_FOLDER.fullmatch(part.lower()):
                is_mask, part = True, match[1]
            if part and part.lower() not in IMAGE_FOLDERS:
                key.append(part)
        match = MASK_NAME.fullmatch(parts[-1])
        is_mask = is_mask or match is not None
        key.append(match[1] if match else parts[-1])
        found = masks if is_mask else images
        name = "/".join(key)
        if name in found:
            kind = "mask" if is_mask else "picture"
            raise UserError(f"{found[name]} and {path} may both be the {kind} of {name}; remove or rename one")
        found[name] = path
    pairs = {name: (path, masks[name]) for name, path in images.items() if name in masks}
    return pairs, sorted(set(images) - set(masks))


def _classes(path: Path, unlabelled: str) -> Classes:
    """The classes of a table. Names such as `void` are ignored, or count as background where that is wished."""
    table = _Table()
    for row in _rows(path):
        _add(table, row, path)
    kept = [i for i, name in enumerate(table.names) if name.casefold() not in IGNORED_NAMES]
    background = next((i for i in kept if table.names[i].casefold() in BACKGROUND_NAMES), None)
    if unlabelled == "ignore" and background is not None:
        kept.remove(background)
    if not kept:
        raise UserError(f"{path} names no class")
    names = [table.names[i] for i in kept]
    ignore = 255 if len(names) <= 255 else 65535
    other = kept.index(background) if unlabelled == "background" and background in kept else ignore
    meaning = {i: kept.index(i) if i in kept else other for i in range(len(table.names))}
    if table.values:
        values = {value: meaning[i] for i, value in enumerate(table.values)}
        return Classes(tuple(names), fill_colors([None] * len(names)), values)
    values = {_packed(color): meaning[i] for i, color in enumerate(table.colors)}
    colors = fill_colors([table.colors[i] for i in kept])
    return Classes(tuple(names), colors, {_packed(BORDERS): ignore} | values, by_color=True)


def _rows(path: Path) -> Iterator[list[str]]:
    """The fields of each row that states a class."""
    try:
        text = read_text(path)
    except (BadDocument, OSError) as error:
        raise UserError(f"{path} cannot be read as a table of classes: {error}") from None
    if path.name == LABELMAP:
        found = [line.strip() for line in text.splitlines()]
        yield from (line.split(":") for line in found if line and not line.startswith("#"))
    else:
        rows = [[part.strip() for part in row] for row in csv.reader(text.splitlines()) if row]
        yield from rows[1:]  # after the names of the columns


def _add(table: _Table, row: list[str], path: Path) -> None:
    """Adds a row to a table.

    Raises:
        UserError: it does not have the table's form, or has a name, colour or number that another one has.
    """
    example = {LABELMAP: "name:255,0,0::", CLASS_DICT: "name,255,0,0", ROBOFLOW: "1, name"}[path.name]
    fault = UserError(f"{path} holds the row {shown(row)}; write, for example, {example}")
    name = row[1] if path.name == ROBOFLOW and len(row) == 2 else row[0]
    numbers = row[1].split(",") if path.name == LABELMAP and len(row) > 1 else row[1:4]
    numbers = row[:1] if path.name == ROBOFLOW else numbers
    if not all(re.fullmatch(r"\s*\d{1,5}\s*", part) for part in numbers) or not name:
        raise fault
    values = tuple(map(int, numbers))
    if name in table.names:
        raise UserError(f"{path}: two classes have the name {shown(name)}; rename one")
    if len(table.names) >= MOST_CLASSES:
        raise UserError(f"{path} has more than {MOST_CLASSES} classes")
    known = table.values if path.name == ROBOFLOW else table.colors
    value = values[0] if path.name == ROBOFLOW and len(row) == 2 else values
    if value in known:
        what = f"the value {value}" if path.name == ROBOFLOW else f"the colour {list(values)}"
        raise UserError(f"{path}: {shown(table.names[known.index(value)])} and {shown(name)} have {what}; change one")
    if path.name != ROBOFLOW and (len(values) != 3 or max(values) > 255):
        raise fault
    if path.name == ROBOFLOW and len(row) != 2:
        raise fault
    table.names.append(name)
    known.append(value)


def _packed(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
