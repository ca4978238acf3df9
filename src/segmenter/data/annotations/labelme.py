"""labelme's JSON (https://github.com/wkentaro/labelme): a file a picture, with polygons, boxes, circles and bitmaps.

Names in labels.txt, where there is one, are the order of the classes; else they are sorted. Lines and points have no
area, and are left out. A label `__ignore__` is ignored, `_background_` is the background.
"""

import base64
import binascii
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from segmenter.data.annotations.listing import LOOKED_AT, Listing
from segmenter.data.annotations.record import BadShape, Bitmap, Outline, Picture, Reading, Shape, box, ellipse, points
from segmenter.data.annotations.record import whole as whole_number
from segmenter.data.files import BROKEN
from segmenter.data.pairs import lines
from segmenter.errors import shown

WITHOUT_AREA = ("line", "linestrip", "point", "points")
NAMES = "labels.txt"


def is_labelme(content: object) -> bool:
    """Whether JSON has labelme's form."""
    return isinstance(content, dict) and "imagePath" in content and isinstance(content.get("shapes"), list)


def recognise(listing: Listing) -> bool:
    """Whether one of the first JSON files has labelme's form."""
    return any(listing.looks(path, is_labelme) for path in listing.ending(".json")[:LOOKED_AT])


def read(listing: Listing) -> Reading:
    """All the files of labelme's form in a folder."""
    reading, found, taken = Reading(), [], {}
    for file in listing.ending(".json"):
        with reading.problems.at(file):
            content = listing.json(file)
            if is_labelme(content):
                picture = _picture(listing, file, content)
                if picture.path in taken:
                    raise BadShape(f"is about {picture.path}, and so is {taken[picture.path]}; remove one")
                taken[picture.path] = file
                reading.pictures.append(picture)
                found.append((picture, _shapes(file, content, reading)))
    stated = [name for path in listing.files if path.name == NAMES for name in lines(path)]
    used = {label for _, shapes in found for label, *_ in shapes}
    for name in [*stated, *sorted(used)]:
        reading.labels.place(name)
    for picture, shapes in found:
        picture.shapes = [Shape(reading.labels.place(label), form, where) for label, form, where in shapes]
    lonely = set(listing.pictures) - set(taken)
    for path in sorted(lonely):
        reading.problems.leave_out("pictures have no JSON file, and are left out", path)
    return reading


def _picture(listing: Listing, file: Path, content: dict) -> Picture:
    stated = (content.get("imageHeight"), content.get("imageWidth"))
    size = None if None in stated else tuple(whole_number(side, "the side", 1) for side in stated)
    path = listing.find(content["imagePath"], file) or listing.find(file.stem, file)
    if path is None:
        text = f"is about {shown(content['imagePath'])}, which does not lie below {listing.root}; add the picture"
        raise BadShape(text + " (imageData holds it)" * bool(content.get("imageData")))
    return Picture(path, file, size=size, split=listing.split(file))


def _shapes(file: Path, content: dict, reading: Reading) -> list[tuple[str, Outline | Bitmap, str]]:
    """Label, form and place of each shape that has an area."""
    shapes = []
    for position, entry in enumerate(content["shapes"]):
        where = f"{file}: shape {position}"
        with reading.problems.at(where):
            label = entry.get("label") if isinstance(entry, dict) else None
            if not isinstance(label, str) or not label.strip():
                raise BadShape(f"has the label {shown(label)}; write a name")
            kind = entry.get("shape_type") or "polygon"
            if kind in WITHOUT_AREA:
                reading.problems.leave_out("shapes are lines or points without an area, and are left out", where)
                continue
            form = _form(kind, points(entry.get("points")), entry)
            if form is None:
                reading.problems.leave_out("outlines have fewer than three points, and are left out", where)
                continue
            shapes.append((label, form, f"{where} ({label})"))
    return shapes


def _form(kind: object, corners: np.ndarray, entry: dict) -> Outline | Bitmap | None:
    if kind in ("polygon", "oriented_rectangle"):
        return Outline((corners,)) if len(corners) >= 3 else None
    if kind in ("rectangle", "circle", "mask") and len(corners) != 2:
        raise BadShape(f"is a {kind} with {len(corners)} points; it has two")
    if kind == "rectangle":
        return Outline((box(*corners.ravel()),))
    if kind == "circle":
        radius = float(np.hypot(*(corners[1] - corners[0])))
        return Outline((ellipse(*corners[0], radius, radius),))
    if kind == "mask":
        (left, top), (right, bottom) = corners.astype(int).tolist()
        size = (bottom - top + 1, right - left + 1)
        return Bitmap(left, top, partial(_bitmap, entry.get("mask"), size))
    raise BadShape(f"is of the kind {shown(kind)}, which labelme does not have")


def _bitmap(packed: object, size: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
    """Pixels (h w, bool) of a mask within its box, both corners of which belong to it."""
    pixels = png_pixels(decoded(packed), picture)
    if pixels.shape[:2] != size:
        raise BadShape(f"has a mask of {pixels.shape[0]} x {pixels.shape[1]} in a box of {size[0]} x {size[1]}")
    return pixels.reshape(*size, -1)[..., 0] > 0


def decoded(packed: object) -> bytes:
    """The bytes of base64.

    Raises:
        BadShape: it is none.
    """
    try:
        return base64.b64decode(packed, validate=True) if isinstance(packed, str) else _none(packed)
    except (binascii.Error, ValueError):
        raise BadShape(f"has the bitmap {shown(packed, 40)}, which is not base64") from None


def png_pixels(content: bytes, picture: tuple[int, int]) -> np.ndarray:
    """The numbers of a small PNG (h w, or h w bands), no larger than its picture.

    Raises:
        BadShape: it is no PNG, or larger.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.height > picture[0] or image.width > picture[1]:
                sizes = f"{image.height} x {image.width}, but its picture has {picture[0]} x {picture[1]}"
                raise BadShape(f"has a bitmap of {sizes}")
            return np.asarray(image.convert("RGBA") if image.mode == "P" else image)
    except BadShape:
        raise
    except (*BROKEN, Image.DecompressionBombError):
        raise BadShape("has a bitmap that is no readable PNG") from None


def _none(packed: object) -> bytes:
    raise BadShape(f"has the bitmap {shown(packed)}; write a PNG in base64")
