"""The tasks on the floor of evaluation: what is counted of each image, and the scores of the sum of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from segmenter import config
from segmenter.config import Alignment
from segmenter.evaluation import depth, labels
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.evaluation.metrics import Scores
from segmenter.model.segmenter import Segmenter

Counts = Callable[[Segmenter, Iterator, config.Inference, Alignment], Iterator[Tensor | np.ndarray]]


@dataclass(frozen=True)
class Task:
    """How answers are compared with targets; what is counted adds up over images and processes."""

    alignment: Callable[[Segmenter, Alignment], Alignment]
    """Of answers to targets: what is meant by the setting; refuses what the task has no use for."""
    nothing: Callable[[Segmenter], Tensor | np.ndarray]
    """What is counted of no image."""
    counts: Counts
    """Of each (scaled image, target)."""
    scores: Callable[[Segmenter, Tensor | np.ndarray, Alignment], Scores | DepthScores]
    counts_at_scales: Counts | None = None
    """Of each (image at many scales, target); none where they cannot be averaged."""


TASKS = {
    "labels": Task(labels.refuse_alignment, labels.nothing, labels.counts, labels.scores, labels.counts_at_scales),
    "depth": Task(depth.usual_alignment, depth.nothing, depth.sums, depth.scores),
}
