"""Pascal VOC's XML with polygons, a file a picture, as Roboflow and supervision write it.

An object has <polygon> with <x1>, <y1>, <x2>, ... beside its box; objects with a box alone are left out. Classes are
sorted by name.
"""

from pathlib import Path
from xml.etree.ElementTree import Element

from segmenter.data.annotations.listing import LOOKED_AT, Listing
from segmenter.data.annotations.record import BadShape, Outline, Picture, Reading, Shape, polygon
from segmenter.data.annotations.xml import read_xml
from segmenter.errors import UserError, shown


def recognise(listing: Listing) -> bool:
    """Whether one of the first XML files has VOC's root, and one of them a polygon."""
    found = [root for path in listing.ending(".xml")[:LOOKED_AT] if (root := _root(listing, path)) is not None]
    return any(root.find("object/polygon") is not None for root in found)


def read(listing: Listing) -> Reading:
    """All the files of VOC's form in a folder."""
    reading, found, taken = Reading(), [], {}
    for file in listing.ending(".xml"):
        root = _root(listing, file)
        if root is not None:
            with reading.problems.at(file):
                _read_file(listing, file, root, reading, found, taken)
    for name in sorted({name for _, name, *_ in found}):
        reading.labels.place(name)
    for picture, name, outline, where in found:
        picture.shapes.append(Shape(reading.labels.place(name), outline, where))
    return reading


def _root(listing: Listing, path: Path) -> Element | None:
    try:
        return root if (root := read_xml(path)).tag == "annotation" else None
    except UserError as error:
        listing.cannot(str(error))
        return None


def _read_file(listing: Listing, file: Path, root: Element, reading: Reading, found: list, taken: dict) -> None:
    named = root.findtext("filename", "")
    path = listing.find(named, file) or listing.find(file.stem, file)
    if path is None:
        raise BadShape(f"is about {shown(named)}, which does not lie below {listing.root}; add the picture")
    if path in taken:
        raise BadShape(f"is about {path}, and so is {taken[path]}; remove one")
    taken[path] = file
    sides = [root.findtext(f"size/{side}", "") for side in ("height", "width")]
    size = tuple(map(int, sides)) if all(side.isdecimal() and len(side) < 7 for side in sides) else None
    picture = Picture(path, file, size=size, split=listing.split(file))
    reading.pictures.append(picture)
    for position, entry in enumerate(root.iterfind("object")):
        where = f"{file}: object {position}"
        with reading.problems.at(where):
            name, border = entry.findtext("name", "").strip(), entry.find("polygon")
            if not name:
                raise BadShape("has no name")
            if border is None:
                reading.problems.leave_out("objects are boxes without an outline, and are left out", where)
            else:
                found.append((picture, name, _outline(border), f"{where} ({name})"))


def _outline(border: Element) -> Outline:
    try:
        ring = polygon([float(element.text or "") for element in border])
    except ValueError as error:
        if isinstance(error, BadShape):
            raise
        raise BadShape("has a polygon whose coordinates are no numbers") from None
    if len(ring) < 3:
        raise BadShape(f"has {len(ring)} points, but an outline has at least three")
    return Outline((ring,))
