"""The formats of annotations, in the order in which they are tried: each is a name, how it is known, how it is read."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from segmenter.data.annotations import coco, cvat, label_studio, labelme, supervisely, tables, voc_xml, yolo
from segmenter.data.annotations.listing import Listing
from segmenter.data.annotations.record import Reading


class Format(NamedTuple):
    """A way to write down what pictures show."""

    title: str
    recognise: Callable[[Listing], bool]
    read: Callable[[Listing], Reading] | None
    """None: masks with a table, see `tables`."""
    expected: str
    """What is looked for, in words."""
    unlabelled: Literal["background", "ignore"] = "background"
    """What pixels are that no shape covers, unless a setting says."""


FORMATS = {
    "tables": Format(
        "masks with a table of classes", tables.recognise, None,
        "masks and a labelmap.txt, class_dict.csv or _classes.csv, or JPEGImages/ and SegmentationClass/",
    ),
    "coco": Format(
        "COCO JSON", coco.recognise, coco.read, "a JSON file with `images`, `annotations` and `categories`"
    ),
    "supervisely": Format(
        "Supervisely", supervisely.recognise, supervisely.read, "meta.json and folders ann/ and img/"
    ),
    "labelme": Format("labelme", labelme.recognise, labelme.read, "JSON files with `shapes` and `imagePath`"),
    "label_studio": Format(
        "Label Studio JSON", label_studio.recognise, label_studio.read, "a JSON file with a list of tasks"
    ),
    "cvat": Format("CVAT XML", cvat.recognise, cvat.read, "an XML file with `annotations`"),
    "voc_xml": Format("Pascal VOC XML", voc_xml.recognise, voc_xml.read, "XML files with <annotation> and <polygon>"),
    "yolo": Format(
        "YOLO", yolo.recognise, yolo.read, "data.yaml (or classes.txt) and a text file of labels for each picture"
    ),
}  # fmt: skip


def recognised(listing: Listing) -> str | None:
    """The name of the first format that files have, if any."""
    return next((name for name, known in FORMATS.items() if known.recognise(listing)), None)
