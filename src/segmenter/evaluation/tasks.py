"""The tasks on the floor of evaluation: what is counted in each image, and the scores from the sum."""

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
    """How predictions are compared with targets; counts add up over images and processes."""

    alignment: Callable[[Segmenter, Alignment], Alignment]
    """The alignment of predictions to targets that a setting means; refuses settings that the task does not have."""
    zero: Callable[[Segmenter], Tensor | np.ndarray]
    """The counts over no images."""
    counts: Counts
    """For each (scaled image, target)."""
    scores: Callable[[Segmenter, Tensor | np.ndarray, Alignment], Scores | DepthScores]
    counts_at_scales: Counts | None = None
    """For each (image at many scales, target); None where scales cannot be averaged."""


TASKS = {
    "labels": Task(labels.refuse_alignment, labels.zero, labels.counts, labels.scores, labels.counts_at_scales),
    "depth": Task(depth.resolve_alignment, depth.zero, depth.sums, depth.scores),
}
