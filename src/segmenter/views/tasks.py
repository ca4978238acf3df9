"""The tasks on the floor of views: how a result is drawn, explained and written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmenter.views.depth import depth_legend, depth_overlay, describe_depth_files, sampled_depth, write_depth
from segmenter.views.labels import class_legend, label_overlay, sampled_labels, write_labels
from segmenter.views.results import Write
from segmenter.views.server_formats import Format

Written = dict[str, str | float]


@dataclass(frozen=True)
class Task:
    """What is done with a result of `segmenter.predict`."""

    folder: str
    """For its files."""
    words: str
    """What a result holds, with its verb."""
    size: Callable[[Any], tuple[int, int]]
    opacity: float
    """Of the colours over a photo."""
    draw: Callable[[Image.Image, Any, float], Image.Image]
    """Photo, result and opacity to the photo in colours."""
    legend: Callable[[Any], Image.Image]
    sampled: Callable[[Any, np.ndarray, np.ndarray], Any]
    """The result at some of the rows and columns, for a smaller picture."""
    write: Callable[[Any, Path, Format, Write], Written]
    """Writes the PNG at a path, and what belongs to it beside it; returns what to tell of them."""
    beside: tuple[str, ...] = ()
    """Suffixes of what is written beside the PNG."""
    describe: Callable[[list[Written]], str] = lambda _: ""
    """What to know of the files written."""
    confident: bool = False
    """Whether results have `confidence()`."""


TASKS = {
    "labels": Task(
        folder="labels",
        words="labels are",
        size=lambda result: result.labels.shape,
        opacity=0.55,
        draw=label_overlay,
        legend=lambda result: class_legend(result.labels, result.classes),
        sampled=sampled_labels,
        write=write_labels,
        confident=True,
    ),
    "depth": Task(
        folder="depth",
        words="depth is",
        size=lambda result: result.depth.shape,
        opacity=1.0,
        draw=depth_overlay,
        legend=depth_legend,
        sampled=sampled_depth,
        write=lambda result, path, _, write: write_depth(result, path, write),
        beside=(".npy",),
        describe=describe_depth_files,
    ),
}
