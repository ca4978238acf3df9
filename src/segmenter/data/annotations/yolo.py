"""YOLO's segmentation labels: a text file a picture, a row a thing: the class, then x1 y1 x2 y2 ... as shares of 1.

Names are in data.yaml (`names`), classes.txt or obj.names; labels/ stands where the pictures have images/. Rows of five
numbers are boxes, and left out. (There are no rows of run lengths: Ultralytics' documentation has polygons alone.)
Source: https://docs.ultralytics.com/datasets/segment/.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmenter.data.annotations.listing import Listing
from segmenter.data.annotations.record import BadShape, Outline, Picture, Problems, Reading, Shape
from segmenter.data.folders import SPLITS
from segmenter.data.pairs import lines
from segmenter.documents import BadDocument, read_text, read_yaml
from segmenter.errors import UserError, shown

LARGEST = 64 * 2**20  # bytes of one picture's labels
NAME_LISTS = ("classes.txt", "obj.names")
BOX = 5  # numbers in a row
FARTHEST = 2.0  # shares: what lies farther out was written in pixels


def recognise(listing: Listing) -> bool:
    """Whether there are names, and a text file that belongs to a picture and holds rows of numbers."""
    if _yaml(listing) is None and not _name_list(listing):
        return False
    pictures = {_key(listing, path, "images") for path in listing.pictures}
    labels = (path for path in listing.ending(".txt") if _key(listing, path, "labels") in pictures)
    return next(labels, None) is not None


def read(listing: Listing) -> Reading:
    """All pictures that have a file of labels."""
    reading = Reading()
    names, folders = _names(listing)
    places = [reading.labels.place(name) for name in names]
    labels = {_key(listing, path, "labels"): path for path in listing.ending(".txt")}
    boxes = 0
    for path in listing.pictures:
        file = labels.get(_key(listing, path, "images"))
        if file is None:
            reading.problems.leave_out("pictures have no file of labels, and are left out", path)
            continue
        split = next((split for folder, split in folders if path.is_relative_to(folder)), listing.split(path))
        picture = Picture(path, file, split=split, relative=True)
        reading.pictures.append(picture)
        boxes += _read_rows(picture, places, reading.problems)
    if boxes and not any(picture.shapes for picture in reading.pictures):
        reading.problems.fault(
            f"{listing.root}: all {boxes} rows are boxes (class x y width height), not outlines; segmentation needs "
            "class x1 y1 x2 y2 x3 y3 ..."
        )
    return reading


def _read_rows(picture: Picture, places: list[int], problems: Problems) -> int:
    """Adds the outlines of a picture; returns how many rows are boxes."""
    boxes = 0
    with problems.at(picture.file):
        try:
            rows = read_text(picture.file, LARGEST).splitlines()
        except (BadDocument, OSError) as error:
            raise BadShape(f"cannot be read as labels: {error}") from None
        for number, row in enumerate(rows, 1):
            where = f"{picture.file}: line {number}"
            with problems.at(where):
                values = _row(row)
                if not values.size:
                    continue
                label = values[0]
                if label != int(label) or not 0 <= label < len(places):
                    known = f"the names end with {len(places) - 1}"
                    raise BadShape(f"has the class {label:g}, but {known}; add the name to data.yaml")
                if len(values) == BOX:
                    boxes += 1
                    problems.leave_out("rows are boxes without an outline, and are left out", where)
                    continue
                picture.shapes.append(Shape(places[int(label)], Outline((_ring(values[1:]),)), where))
    return boxes


def _row(row: str) -> np.ndarray:
    """The numbers of a row."""
    try:
        values = np.array(row.split(), dtype=np.float64)
    except ValueError:
        raise BadShape(f"holds {shown(row)}; write numbers: class x1 y1 x2 y2 x3 y3 ...") from None
    if not np.isfinite(values).all():
        raise BadShape(f"holds {values[~np.isfinite(values)][0]}, which is no share of a picture")
    return values


def _ring(values: np.ndarray) -> np.ndarray:
    if len(values) % 2:
        raise BadShape(f"has {len(values)} coordinates, an odd number, but each point has two, x and y")
    if len(values) < 6:
        raise BadShape(f"has {len(values) // 2} points, but an outline has at least three")
    farthest = values[np.abs(values).argmax()]
    if abs(farthest) > FARTHEST:
        raise BadShape(f"has the coordinate {farthest:g}; write shares of the picture's width and height, from 0 to 1")
    return values.reshape(-1, 2)


def _yaml(listing: Listing) -> tuple[Path, dict] | None:
    """The first YAML file with names, and what it holds."""
    for path in sorted(listing.ending(".yaml", ".yml"), key=lambda path: len(path.parts))[:20]:
        try:
            content = read_yaml(path)
        except (BadDocument, OSError):
            continue
        if isinstance(content, dict) and isinstance(content.get("names"), list | dict):
            return path, content
    return None


def _name_list(listing: Listing) -> Path | None:
    return next((path for path in listing.files if path.name in NAME_LISTS), None)


def _names(listing: Listing) -> tuple[list[str], list[tuple[Path, str]]]:
    """Names in the order of the classes, and the folders of pictures that data.yaml gives to each split.

    Raises:
        UserError: the names have gaps or are no names.
    """
    found = _yaml(listing)
    if found is None:
        return lines(_name_list(listing)), []
    path, content = found
    names = content["names"]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(f"{path}: names has the numbers {shown(list(names))}; write 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not all(isinstance(name, str | int) for name in names) or not names:
        raise UserError(f"{path}: names is {shown(names)}; write one name a class")
    if len(set(map(str, names))) < len(names):
        raise UserError(f"{path}: two of the names {shown(names)} are the same; rename one")
    count = content.get("nc", len(names))
    if count != len(names):
        raise UserError(f"{path}: nc is {shown(count)}, but there are {len(names)} names; correct one of them")
    folders = [
        (folder, split)
        for split, words in SPLITS.items()
        for word in words
        for value in _as_list(content.get(word))
        if (folder := _folder(listing.root, path.parent, value)) is not None
    ]
    return list(map(str, names)), folders


def _as_list(value: object) -> Iterator[str]:
    yield from (entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str))


def _folder(root: Path, home: Path, value: str) -> Path | None:
    """The folder below the root that a path in data.yaml means, however it leads there: Roboflow's begin with ../."""
    parts = [part for part in value.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        for place in (home, root):
            if (folder := place.joinpath(*parts[start:])).is_dir():
                return folder
    return None


def _key(listing: Listing, path: Path, folder: str) -> str:
    """A file's path below the root without its suffix, and without the last folder of that name."""
    parts = list(path.relative_to(listing.root).with_suffix("").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == folder]
    if places:
        del parts[places[-1]]
    return "/".join(parts)
