"""Instance maps beside masks: which car is which, where a data set says it.

Known are those of Cityscapes (*_gtFine_instanceIds.png: class x 1000 + number), Pascal VOC (SegmentationObject/), and
in plain folders `instances/` beside the masks' folder, whose values number the instances of each class from 1.
"""

import re
from pathlib import Path

import numpy as np

from segmenter.data.files import read_values
from segmenter.data.pairs import MASKS

CITYSCAPES = re.compile(r"_gtFine_label(TrainIds|Ids)\.png$")
LEAST_OF_CITYSCAPES = 1000  # below are classes without instances
VOID_OF_VOC = 255


def instances_beside(mask: Path) -> np.ndarray | None:
    """The instances (H W int32) beside a mask, 0 where a pixel is of none; None where there is no map of them.

    Raises:
        UserError: there is one that cannot be read.
    """
    if CITYSCAPES.search(mask.name):
        values = _values(mask.with_name(CITYSCAPES.sub("_gtFine_instanceIds.png", mask.name)))
        return None if values is None else np.where(values < LEAST_OF_CITYSCAPES, 0, values)
    if mask.parent.name == "SegmentationClass":
        values = _values(mask.parent.with_name("SegmentationObject") / mask.name)
        return None if values is None else np.where(values == VOID_OF_VOC, 0, values)
    for above in mask.parents:
        if above.name in MASKS.folders:
            return _values(above.with_name("instances") / mask.relative_to(above))
    return None


def _values(path: Path) -> np.ndarray | None:
    return read_values(path).astype(np.int32) if path.is_file() else None
