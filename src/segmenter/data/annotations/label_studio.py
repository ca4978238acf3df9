"""Label Studio's JSON and JSON-MIN: a list of tasks with brush strokes, polygons, boxes and ellipses.

Coordinates are percent of the picture. Of several annotations of a task the one marked as ground truth counts, else
the last that was not cancelled. A task names its picture by a server's address: the last part of it is looked for.
"""

from functools import partial
from pathlib import Path

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
    number,
    points,
    turned,
    whole,
)
from segmenter.data.annotations.run_lengths import label_studio_mask
from segmenter.errors import shown

KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")


def is_label_studio(content: object) -> bool:
    """Whether JSON has Label Studio's form, in full or JSON-MIN."""
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    return any(_is_task(task) for task in content[:LOOKED_AT] if isinstance(task, dict))


def recognise(listing: Listing) -> bool:
    """Whether one of the first JSON files has Label Studio's form."""
    return any(listing.looks(path, is_label_studio) for path in listing.ending(".json")[:LOOKED_AT])


def read(listing: Listing) -> Reading:
    """All the files of Label Studio's form in a folder; classes are sorted by name."""
    reading, found, taken = Reading(), [], {}
    for file in listing.ending(".json"):
        with reading.problems.at(file):
            content = listing.json(file)
            for position, task in enumerate(content if is_label_studio(content) else []):
                where = f"{file}: task {shown(task.get('id', position) if isinstance(task, dict) else position)}"
                with reading.problems.at(where):
                    _read_task(listing, file, task, where, reading, found, taken)
    for name in sorted({label for _, label, *_ in found}):
        reading.labels.place(name)
    for picture, label, form, where in found:
        picture.shapes.append(Shape(reading.labels.place(label), form, where))
    return reading


def _is_task(task: dict) -> bool:
    if isinstance(task.get("data"), dict):
        return isinstance(task.get("annotations", task.get("completions")), list)
    return "annotation_id" in task


def _read_task(
    listing: Listing, file: Path, task: object, where: str, reading: Reading, found: list, taken: dict
) -> None:
    if not isinstance(task, dict):
        raise BadShape(f"is {shown(task)}; export the project again")
    results = _results(task)
    if results is None:
        reading.problems.leave_out("tasks have no annotation, and are left out", where)
        return
    data = task.get("data", task)
    names = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    path = next((path for name in [*names, task.get("file_upload")] if (path := listing.find(name, file))), None)
    if path is None:
        shown_names = shown(names[0] if names else data)
        raise BadShape(f"is about {shown_names}, and no such picture lies below {listing.root}; add it")
    if path in taken:
        raise BadShape(f"is about {path}, and so is {taken[path]}; remove one")
    taken[path] = where
    picture = Picture(path, file, split=listing.split(file) or listing.split(path))
    reading.pictures.append(picture)
    for position, (kind, value, size) in enumerate(results):
        place = f"{where}: result {position}"
        with reading.problems.at(place):
            if kind not in KINDS:
                reading.problems.leave_out(f"results are of the kind {kind}, and are left out", place)
                continue
            height, width = (whole(side, "the side", 1) for side in size)
            if picture.size is not None and picture.size != (height, width):
                raise BadShape(f"is of a picture of {height} x {width}, but others of {picture.size}")
            picture.size = (height, width)
            labels = value.get(kind)
            if not isinstance(labels, list) or not labels or not isinstance(labels[0], str):
                raise BadShape(f"has the labels {shown(labels)}; give it one")
            found.append((picture, labels[0], _form(kind, value, (height, width)), f"{place} ({labels[0]})"))


def _results(task: dict) -> list[tuple[str, dict, tuple]] | None:
    """Kind, value and stated size of each result; None where there is no annotation."""
    if not isinstance(task.get("data"), dict):  # JSON-MIN: each control of the project has a list of values
        values = [value for listed in task.values() if isinstance(listed, list) for value in listed]
        entries = [(value, value) for value in values if isinstance(value, dict) and "original_width" in value]
    else:
        made = task.get("annotations", task.get("completions"))
        made = [one for one in made if isinstance(one, dict) and not one.get("was_cancelled")] if made else []
        if not made:
            return None
        chosen = next((one for one in made if one.get("ground_truth")), made[-1])
        results = chosen.get("result")
        results = [entry for entry in results if isinstance(entry, dict)] if isinstance(results, list) else []
        entries = [(entry, entry["value"]) for entry in results if isinstance(entry.get("value"), dict)]
    sides = ("original_height", "original_width")
    return [(_kind(value), value, tuple(entry.get(side) for side in sides)) for entry, value in entries]


def _kind(value: dict) -> str:
    return next((key for key in value if key in KINDS), next((key for key in value if key.endswith("labels")), "none"))


def _form(kind: str, value: dict, size: tuple[int, int]) -> Outline | Bitmap:
    """A result as an outline or a bitmap of a picture of `size`."""
    scale = np.array(size[::-1], dtype=np.float64) / 100  # from percent to pixels, x and y
    if kind == "brushlabels":
        return Bitmap(0, 0, partial(label_studio_mask, value.get("rle"), size))
    if kind == "polygonlabels":
        ring = points(value.get("points"))
        if len(ring) < 3:
            raise BadShape(f"has {len(ring)} points, but an outline has at least three")
        return Outline((ring * scale,))
    x, y = (number(value.get(name), name) for name in ("x", "y"))
    sides = ("width", "height") if kind == "rectanglelabels" else ("radiusX", "radiusY")
    across, down = (number(value.get(name), name) for name in sides)
    (x, y), (across, down) = np.array([x, y]) * scale, np.array([across, down]) * scale
    ring = box(x, y, x + across, y + down) if kind == "rectanglelabels" else ellipse(x, y, across, down)
    return Outline((turned(ring, (x, y), number(value.get("rotation", 0), "the rotation")),))
