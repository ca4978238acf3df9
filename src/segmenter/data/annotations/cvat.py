"""CVAT's XML, "CVAT for images" (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/).

Polygons, boxes, ellipses and masks, with `z_order`: the higher covers the lower. Lines, points and tags have no area,
and are left out. "CVAT for video" keeps tracks instead of pictures, and is refused with what to export.
"""

import re
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from segmenter.data.annotations.listing import LOOKED_AT, Listing
from segmenter.data.annotations.record import (
    BadShape,
    Bitmap,
    Outline,
    Picture,
    Reading,
    Shape,
    box,
    ellipse,
    points,
    turned,
)
from segmenter.data.annotations.run_lengths import cvat_mask
from segmenter.data.annotations.xml import read_xml
from segmenter.errors import UserError, shown

COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def recognise(listing: Listing) -> bool:
    """Whether one of the first XML files has CVAT's root."""
    return any(_is_cvat(listing, path) for path in listing.ending(".xml")[:LOOKED_AT])


def read(listing: Listing) -> Reading:
    """All of CVAT's files in a folder; classes are in the order of the project's labels."""
    reading, taken = Reading(), {}
    for file in listing.ending(".xml"):
        if not _is_cvat(listing, file):
            continue
        with reading.problems.at(file):
            root = read_xml(file)
            if root.find("track") is not None:
                raise BadShape('holds tracks of a video; export the task as "CVAT for images 1.1"')
            for label in root.iterfind("meta//labels/label"):
                _label(label, reading)
            for entry in root.iterfind("image"):
                where = f"{file}: image {shown(entry.get('name'))}"
                with reading.problems.at(where):
                    _image(listing, file, entry, where, reading, taken)
    return reading


def _is_cvat(listing: Listing, path: Path) -> bool:
    try:
        return read_xml(path, only_root=True).tag == "annotations"
    except UserError as error:
        listing.cannot(str(error))
        return False


def _label(label: Element, reading: Reading) -> None:
    name, color = label.findtext("name", "").strip(), label.findtext("color", "").strip()
    if name and label.findtext("type", "") not in ("tag", "skeleton"):
        reading.labels.place(name)
        if COLOR.fullmatch(color):
            reading.labels.colors[name] = tuple(bytes.fromhex(color[1:]))


def _image(listing: Listing, file: Path, entry: Element, where: str, reading: Reading, taken: dict) -> None:
    path = listing.find(entry.get("name"), file)
    if path is None:
        raise BadShape(f"does not lie below {listing.root}; add the picture, or export the task with its images")
    if path in taken:
        raise BadShape(f"is {path}, and so is {taken[path]}; remove one")
    taken[path] = where
    size = tuple(_whole(entry, side) for side in ("height", "width"))
    stated = (listing.root / entry.get("subset", ""), file, path)
    split = next((split for place in stated if (split := listing.split(place))), "")
    picture = Picture(path, file, size=size, split=split)
    reading.pictures.append(picture)
    for position, element in enumerate(entry):
        place = f"{where}: {element.tag} {position}"
        with reading.problems.at(place):
            if element.tag not in FORMS:
                reading.problems.leave_out(f"shapes are of the kind {element.tag}, and are left out", place)
                continue
            name = element.get("label", "").strip()
            if not name:
                raise BadShape("has no label")
            order = _whole(element, "z_order", "0", least=-(10**6))
            form = FORMS[element.tag](element)
            picture.shapes.append(Shape(reading.labels.place(name), form, f"{place} ({name})", order))


def _polygon(element: Element) -> Outline:
    pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
    try:
        ring = points([[float(value) for value in pair] for pair in pairs])
    except ValueError as error:
        if isinstance(error, BadShape):
            raise
        raise BadShape(f"has the points {shown(element.get('points', ''))}; write x,y;x,y;...") from None
    if len(ring) < 3:
        raise BadShape(f"has {len(ring)} points, but an outline has at least three")
    return Outline((ring,))


def _box(element: Element) -> Outline:
    left, top, right, bottom = (_number(element, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    middle = ((left + right) / 2, (top + bottom) / 2)
    return Outline((turned(box(left, top, right, bottom), middle, _number(element, "rotation", "0")),))


def _ellipse(element: Element) -> Outline:
    x, y, across, down = (_number(element, name) for name in ("cx", "cy", "rx", "ry"))
    return Outline((turned(ellipse(x, y, across, down), (x, y), _number(element, "rotation", "0")),))


def _mask(element: Element) -> Bitmap:
    left, top = (_whole(element, name) for name in ("left", "top"))
    size = tuple(_whole(element, name, least=1) for name in ("height", "width"))
    return Bitmap(left, top, partial(cvat_mask, element.get("rle", ""), size))


FORMS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}


def _number(element: Element, name: str, default: str | None = None) -> float:
    text = element.get(name, default)
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise BadShape(f"has {name} {shown(text)}; write a number") from None
    if not np.isfinite(value) or abs(value) > 1e6:
        raise BadShape(f"has {name} {value:g}, which is no number of pixels")
    return value


def _whole(element: Element, name: str, default: str | None = None, least: int = 0) -> int:
    value = _number(element, name, default)
    if value != int(value) or value < least:
        raise BadShape(f"has {name} {value:g}; write a whole number from {least} up")
    return int(value)
