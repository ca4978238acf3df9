"""The classes of the published data sets: names and colours from classes/*.yaml, and the meaning of mask values.

Mask values are read as in the published Segmenter and OpenMMLab: in ADE20K and the 59 classes of Pascal Context, 0
means "none of them" and is ignored; Cityscapes' two kinds of label files have different ids.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

from segmenter.data.classes import Classes

FOLDER = Path(__file__).parent / "classes"
# Values in *_gtFine_labelIds.png, and in what the evaluation server takes, in the order of the 19 classes.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_VALUES = range(34)  # of all label ids


@cache
def named_classes(name: str) -> Classes:
    """Classes of `ade20k`, `pascal_context` (60), `pascal_context_59`, `cityscapes` (train ids), `voc` or `camvid`."""
    if name == "pascal_context_59":
        with_background = named_classes("pascal_context")
        return _from_one(replace(with_background, names=with_background.names[1:], colors=with_background.colors[1:]))
    classes = Classes.read(FOLDER / f"{name}.yaml")
    return _from_one(classes) if name == "ade20k" else classes


def cityscapes_by_id() -> Classes:
    """Cityscapes' 19 classes for masks of label ids, in which the other ids are ignored."""
    classes = named_classes("cityscapes")
    ids = {value: i for i, value in enumerate(CITYSCAPES_IDS)}
    return replace(classes, values={value: ids.get(value, classes.ignore) for value in CITYSCAPES_VALUES})


def _from_one(classes: Classes) -> Classes:
    """The same for masks whose values are the class ids plus 1; 0 is ignored."""
    return replace(classes, values={0: classes.ignore} | {i + 1: i for i in range(len(classes))})
