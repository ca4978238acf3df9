"""The tasks on the floor of inference: images to results."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from segmenter import config
from segmenter.errors import UserError
from segmenter.inference.depth import DepthResult, depth_results
from segmenter.inference.labels import Result, label_results
from segmenter.model.segmenter import Segmenter


@dataclass(frozen=True)
class Task:
    """How a model's results are computed; each result carries the name of its `task`."""

    results: Callable[
        [Segmenter, Iterable[np.ndarray], config.Inference, bool], Iterator[Result] | Iterator[DepthResult]
    ]
    """Results for images (H W 3 uint8), in order, each at its own size; the last argument: at many scales."""
    whole: bool = False
    """Images are taken whole and at one scale, since results that differ by a scale and a shift cannot be averaged."""


TASKS = {"labels": Task(label_results), "depth": Task(depth_results, whole=True)}


def refuse_multiscale(model: Segmenter, multiscale: bool) -> None:
    """Refuses several scales for a model whose results cannot be averaged.

    Raises:
        UserError: `multiscale` is set for such a model.
    """
    if multiscale and TASKS[model.recipe.task].whole:
        raise UserError(
            f"multiscale averages class probabilities, and a model of {model.recipe.task} gives none; leave it out"
        )
