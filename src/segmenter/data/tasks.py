"""The tasks on the floor of data: how images and their targets are opened, checked and learnt from.

Only this table and those of the floors above (`inference.tasks`, `evaluation.tasks`, `training.objective`,
`views.tasks`) depend on the task: a new task is one entry in each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmenter import config
from segmenter.data.check import check_labels
from segmenter.data.check_depth import check_depth
from segmenter.data.classes import Classes
from segmenter.data.depth_data import DEPTH_CLASSES, open_depth
from segmenter.data.findings import Verdict
from segmenter.data.layouts import open_labels
from segmenter.data.pairs import DEPTH, MASKS, Target
from segmenter.data.samples import DataSet
from segmenter.errors import UserError


@dataclass(frozen=True)
class Task:
    """The names of a task's files, and what is done with its targets (H W arrays)."""

    words: Target
    """What a target is called, and where it lies."""
    open: Callable[[config.Data], DataSet]
    check: Callable[[DataSet], Verdict]
    ignore: Callable[[np.ndarray], float]
    """The value in a target that is ignored."""
    learnt: type[np.generic]
    """The type of a target in a batch."""
    classes: Classes | None = None
    """The classes of every data set of the task; None: each data set has its own."""


TASKS = {
    # 255 of uint8, 65535 of uint16
    "labels": Task(MASKS, open_labels, check_labels, lambda labels: int(np.iinfo(labels.dtype).max), np.int64),
    "depth": Task(DEPTH, open_depth, check_depth, lambda _: math.nan, np.float32, DEPTH_CLASSES),
}


def open_data(
    root: str | Path,
    task: str = "labels",
    layout: config.Layout = "auto",
    classes: str | Path = "",
    map: Sequence[str] = (),
    split_seed: int = 0,
    depth_scale: float = 0.0,
    depth_kind: config.DepthKind = "depth",
    unlabelled: config.Unlabelled = "auto",
    skip_faults: bool = False,
) -> DataSet:
    """Finds the images of a folder, their masks or depth maps, and the classes; nothing is decoded.

    >>> data = segmenter.open_data("photos")
    >>> len(data.split("train")), data.classes.names
    (6, ('ground', 'red', 'blue'))
    >>> sample = data.split("test")[0]
    >>> sample.image().shape, sample.target().shape
    ((64, 64, 3), (64, 64))

    Args:
        root: folder with the images and masks, or depth maps, or `scenes` for the generated ones.
        task: what the images come with, `labels` (masks) or `depth`.
        layout: layout of the folder; `auto` recognises it.
        classes: path of a classes.yaml, if it is not in the data folder.
        map: mask values to change, each as `from:to`, for example "7:255".
        split_seed: seed of the split into train, val and test where the folder has none.
        depth_scale: value in a depth map that means one metre; 0: not stated (floats are metres).
        depth_kind: what depth maps hold, `depth` or `inverse` depth (disparity).
        unlabelled: what pixels are that no annotation covers, `background` or `ignore`; `auto`: as the format means it.
        skip_faults: leave annotations with faults out, instead of refusing them all.

    Returns:
        Samples in splits. A sample has `name`, `image()` (H W 3 uint8) and `target()` (H W): labels, uint8 with 255
        ignored (uint16 and 65535 above 255 classes), or inverse depth, float32 in 1 / metre with NaN where unknown.

    Raises:
        UserError: there is no such task, nothing was found, files do not pair up, or the classes cannot be determined.
    """
    if task not in TASKS:
        raise UserError(f"task is {task!r}; choose {' or '.join(TASKS)}")
    return TASKS[task].open(
        config.Data(
            str(root), layout, str(classes), tuple(map), split_seed, depth_scale, depth_kind,
            unlabelled=unlabelled, skip_faults=skip_faults,
        )
    )  # fmt: skip


def check(data: DataSet) -> Verdict:
    """Reads every target and the header of every image, and reports what would spoil training.

    >>> report = segmenter.check(segmenter.open_data("photos"))
    >>> report.refuse_errors()  # says nothing: a model can be trained
    >>> print(report.table().splitlines()[0])
    class         train       val      test

    Returns:
        A report: `findings` (errors first), `warnings` (their texts), `table()`, and `refuse_errors()`, which raises a
        UserError with all the errors.
    """
    return TASKS[data.task].check(data)
