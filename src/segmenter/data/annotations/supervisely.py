"""Supervisely's projects: meta.json with the classes, and in each data set's folder img/ with pictures and ann/ with a
JSON file a picture (https://docs.supervisely.com/customization-and-integration/00_ann_format_navi).

Polygons with holes, bitmaps and boxes; later ones cover earlier ones. Lines and points are left out.
"""

import zlib
from functools import partial
from pathlib import Path

import numpy as np

from segmenter.data.annotations.labelme import decoded, png_pixels
from segmenter.data.annotations.listing import Listing
from segmenter.data.annotations.record import (
    LARGEST_COORDINATE,
    BadShape,
    Bitmap,
    Outline,
    Picture,
    Reading,
    Shape,
    box,
    points,
    whole,
)
from segmenter.data.classes_yaml import read_color
from segmenter.errors import UserError, shown

META = "meta.json"
WITHOUT_AREA = ("line", "point", "graph", "cuboid", "any")
GROWTH = 2**16  # bytes that any bitmap may have besides one a pixel


def recognise(listing: Listing) -> bool:
    """Whether there is a meta.json with classes, and files in folders called ann."""
    return _meta(listing) is not None and any(path.parent.name == "ann" for path in listing.ending(".json"))


def read(listing: Listing) -> Reading:
    """All pictures of a project that have a file in ann/."""
    reading, taken = Reading(), {}
    meta = _meta(listing)
    for entry in listing.json(meta)["classes"]:
        name = entry.get("title") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{meta} has the class {shown(entry)}; each needs a title")
        reading.labels.place(name)
        if entry.get("color"):
            reading.labels.colors[name] = read_color(entry["color"], f"{meta}: class {shown(name)}")
    known = frozenset(entry["title"] for entry in listing.json(meta)["classes"])
    for file in listing.ending(".json"):
        if file.parent.name == "ann":
            with reading.problems.at(file):
                _read_file(listing, file, known, reading, taken)
    return reading


def _meta(listing: Listing) -> Path | None:
    found = (path for path in listing.files if path.name == META)
    return next((path for path in found if listing.looks(path, _has_classes)), None)


def _has_classes(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("classes"), list)


def _read_file(listing: Listing, file: Path, known: frozenset[str], reading: Reading, taken: dict) -> None:
    content = listing.json(file)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise BadShape("has no list `objects`; export the project again")
    path = listing.find(file.stem, file)  # a.jpg.json
    if path is None:
        raise BadShape(f"is about {file.stem}, which does not lie below {listing.root}; add the picture")
    if path in taken:
        raise BadShape(f"is about {path}, and so is {taken[path]}; remove one")
    taken[path] = file
    stated, size = content.get("size"), None
    if isinstance(stated, dict):
        size = tuple(whole(stated.get(side), f"the {side}", 1) for side in ("height", "width"))
    picture = Picture(path, file, size=size, split=listing.split(file))
    reading.pictures.append(picture)
    for position, entry in enumerate(objects):
        where = f"{file}: object {position}"
        with reading.problems.at(where):
            name = entry.get("classTitle") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name not in known:
                raise BadShape(f"has the class {shown(name)}, which {META} does not have")
            form = _form(entry)
            if form is None:
                reading.problems.leave_out("objects are lines or points without an area, and are left out", where)
                continue
            picture.shapes.append(Shape(reading.labels.place(name), form, f"{where} ({name})"))


def _form(entry: dict) -> Outline | Bitmap | None:
    kind, bitmap = entry.get("geometryType"), entry.get("bitmap")
    if kind == "bitmap" or (kind is None and bitmap):
        origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
        if not isinstance(origin, list) or len(origin) != 2:
            raise BadShape(f"has the origin {shown(origin)}; write [left, top]")
        left, top = (whole(value, "the origin", -int(LARGEST_COORDINATE)) for value in origin)
        return Bitmap(left, top, partial(_pixels, bitmap.get("data")))
    if kind in WITHOUT_AREA:
        return None
    border = entry.get("points")
    if kind not in (None, "polygon", "rectangle") or not isinstance(border, dict):
        raise BadShape(f"is of the kind {shown(kind)}; polygons, bitmaps and boxes are read")
    outer = points(border.get("exterior"))
    if kind == "rectangle":
        if len(outer) != 2:
            raise BadShape(f"is a box with {len(outer)} corners; it has two")
        return Outline((box(*outer.ravel()),))
    holes = border.get("interior") or []
    rings = (outer, *map(points, holes if isinstance(holes, list) else [holes]))
    if any(len(ring) < 3 for ring in rings):
        raise BadShape(f"has {min(map(len, rings))} points, but an outline has at least three")
    return Outline(rings)


def _pixels(packed: object, picture: tuple[int, int]) -> np.ndarray:
    """Pixels (h w, bool) of a PNG that was compressed once more; the last channel counts."""
    most = 4 * picture[0] * picture[1] + GROWTH
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(decoded(packed), most)
    except zlib.error:
        raise BadShape("has a bitmap that is broken or no zlib stream") from None
    if unpacker.unconsumed_tail:
        raise BadShape(f"has a bitmap that unpacks to more than {most} bytes, which none of its picture needs")
    pixels = png_pixels(content, picture)
    return pixels.reshape(*pixels.shape[:2], -1)[..., -1] > 0
