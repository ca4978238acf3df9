"""COCO JSON (https://cocodataset.org/#format-data): images, categories and annotations in one file a split.

Polygons of one annotation are parts of one thing; run lengths are plain or compressed; crowds lie below everything,
as their borders are rough. Annotations without a segmentation are boxes, and left out. Roboflow's exports begin with a
category that stands for the data set, which no annotation has: it is no class.
"""

from functools import partial
from pathlib import Path

from segmenter.data.annotations.listing import LOOKED_AT, Listing
from segmenter.data.annotations.record import BadShape, Bitmap, Outline, Picture, Reading, Shape, polygon, whole
from segmenter.data.annotations.run_lengths import coco_mask, refuse_other_size
from segmenter.data.classes_yaml import read_color
from segmenter.errors import UserError, shown

OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "image_info", "stuff")


def is_coco(content: object) -> bool:
    """Whether JSON has COCO's form."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def files(listing: Listing) -> list[Path]:
    """The JSON files that may be COCO's; beside `instances_...` those of other tasks are left out."""
    found = listing.ending(".json")
    if any(path.name.startswith("instances") for path in found):
        found = [path for path in found if not path.name.startswith(OTHER_TASKS)]
    return found


def recognise(listing: Listing) -> bool:
    """Whether the first JSON files have COCO's form."""
    return any(listing.looks(path, is_coco) for path in files(listing)[:LOOKED_AT])


def read(listing: Listing) -> Reading:
    """All the files of COCO's form in a folder."""
    reading, taken = Reading(), {}
    for path in files(listing):
        with reading.problems.at(path):
            content = listing.json(path)
            if is_coco(content):
                _read_file(listing, path, content, reading, taken)
    return reading


def _read_file(listing: Listing, file: Path, content: dict, reading: Reading, taken: dict[Path, Path]) -> None:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise UserError(f"{file}: {key} is {shown(content[key])}; write a list of {{...}}")
    annotations = content["annotations"]
    places = _categories(file, content["categories"], annotations, reading)
    pictures = _images(listing, file, content["images"], reading, taken)
    problems, seen = reading.problems, set()
    for position, entry in enumerate(annotations):
        where = f"{file}: annotation {shown(entry.get('id', position))}"
        number = entry.get("id")
        if isinstance(number, int | str):
            if number in seen:
                problems.leave_out("annotations have the id of another one; they are read all the same", where)
            seen.add(number)
        image, category = entry.get("image_id"), entry.get("category_id")
        with problems.at(where):
            if not isinstance(image, int | str) or image not in pictures:
                raise BadShape(f"belongs to the image {shown(image)}, but `images` has no such id")
            if not isinstance(category, int | str) or category not in places:
                known = ", ".join(map(str, list(places)[:10]))
                raise BadShape(f"has the category {shown(category)}, but `categories` has the ids {known}")
            picture = pictures[image]
            if picture is None:  # its file is missing, which was said
                continue
            order = -1 if entry.get("iscrowd") == 1 else 0
            for form in _forms(entry.get("segmentation"), picture, problems, where):
                picture.shapes.append(Shape(places[category], form, where, order))


def _categories(file: Path, categories: list[dict], annotations: list[dict], reading: Reading) -> dict:
    """Position in the labels of each category's id."""
    used = {key for entry in annotations if isinstance(key := entry.get("category_id"), int | str)}
    above = {entry.get("supercategory") for entry in categories if isinstance(entry.get("supercategory"), str)}
    places, names = {}, set()
    for entry in categories:
        number, name = entry.get("id"), entry.get("name")
        if not isinstance(number, int | str) or not isinstance(name, str) or not name.strip():
            reading.problems.fault(f"{file}: the category {shown(entry)} needs an id and a name")
        elif number in places:
            reading.problems.fault(f"{file}: two categories have the id {shown(number)}; renumber one")
        elif name in names:
            reading.problems.fault(f"{file}: two categories have the name {shown(name)}; rename one")
        elif number in used or name not in above or entry.get("supercategory") != "none":
            names.add(name)
            places[number] = reading.labels.place(name)
            if "color" in entry:
                reading.labels.colors[name] = read_color(entry["color"], f"{file}: category {shown(name)}")
    return places


def _images(listing: Listing, file: Path, images: list[dict], reading: Reading, taken: dict[Path, Path]) -> dict:
    """The picture of each image's id, None where its file is missing."""
    pictures: dict = {}
    for entry in images:
        number, name = entry.get("id"), entry.get("file_name")
        with reading.problems.at(f"{file}: image {shown(number)}"):
            if not isinstance(number, int | str):
                raise BadShape("has no id; write a number")
            if number in pictures:
                raise BadShape("stands there twice; give each image an id of its own")
            pictures[number] = None
            path = listing.find(name, file)
            if path is None:
                raise BadShape(f"is {shown(name)}, which does not lie below {listing.root}; add it")
            if path in taken:
                raise BadShape(f"is {shown(name)}, which is also an image of {taken[path]}; remove one")
            taken[path] = file
            stated = (entry.get("height"), entry.get("width"))
            size = None if stated == (None, None) else tuple(whole(side, "the side", 1) for side in stated)
            pictures[number] = Picture(path, file, size=size, split=listing.split(file) or listing.split(path))
    reading.pictures += [picture for picture in pictures.values() if picture is not None]
    return pictures


def _forms(found: object, picture: Picture, problems, where: str) -> list[Outline | Bitmap]:
    """The outlines of an annotation, or its bitmap."""
    if isinstance(found, dict):
        size = found.get("size")
        if not isinstance(size, list) or len(size) != 2:
            raise BadShape(f"has run lengths for the size {shown(size)}; write [height, width]")
        size = (whole(size[0], "the height", 1), whole(size[1], "the width", 1))
        if picture.size is not None:
            refuse_other_size(size, picture.size)
        return [Bitmap(0, 0, partial(coco_mask, found.get("counts"), size))]
    if found in (None, [], [[]]):
        problems.leave_out("annotations are boxes without an outline, and are left out", where)
        return []
    if not isinstance(found, list):
        raise BadShape(f"has the segmentation {shown(found)}; write polygons or run lengths")
    parts = found if isinstance(found[0], list) else [found]
    rings = [polygon(part) for part in parts]
    if any(len(ring) < 3 for ring in rings):
        problems.leave_out("outlines have fewer than three points, and are left out", where)
    return [Outline((ring,)) for ring in rings if len(ring) >= 3]
