"""The tasks on the floor of evaluation: what is counted in each image, and the scores from the sum."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from segmenter import config
from segmenter.config import Alignment
from segmenter.evaluation import depth, keep_depth, keep_labels, labels
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.evaluation.inputs import Loaded
from segmenter.evaluation.keeping import Asked, Counts
from segmenter.evaluation.kept_depth import KeptDepth
from segmenter.evaluation.kept_labels import KeptLabels
from segmenter.evaluation.metrics import Scores
from segmenter.model.segmenter import Segmenter

Sums = Callable[[Segmenter, Iterator, config.Inference, Alignment], Iterator[Tensor | np.ndarray]]


@dataclass(frozen=True)
class Task:
    """How predictions are compared with targets; counts add up over images and processes."""

    alignment: Callable[[Segmenter, Alignment], Alignment]
    """The alignment of predictions to targets that a setting means; refuses settings that the task does not have."""
    zero: Callable[[Segmenter], Tensor | np.ndarray]
    """The counts over no images."""
    counts: Sums
    """For each (scaled image, target)."""
    scores: Callable[[Segmenter, Tensor | np.ndarray, Alignment], Scores | DepthScores]
    definitions: Callable[[tuple[int, int] | None, float | None], tuple]
    """The limits of sizes and the width of boundaries that settings mean; refuses those that the task does not have."""
    count_images: Callable[[Segmenter, Iterator[Loaded], Asked], Iterator[tuple[int, Counts]]]
    """The place of each image, and all that is kept of it."""
    collect: Callable[[Segmenter, Sequence[str], Sequence[Counts], Asked, dict], KeptLabels | KeptDepth]
    """What is kept of all images, by their names and counts, in order, and what is to be said about it."""
    counts_at_scales: Sums | None = None
    """For each (image at many scales, target); None where scales cannot be averaged."""


TASKS = {
    "labels": Task(
        labels.refuse_alignment,
        labels.zero,
        labels.counts,
        labels.scores,
        keep_labels.definitions,
        keep_labels.count_images,
        keep_labels.collect,
        labels.counts_at_scales,
    ),
    "depth": Task(
        depth.resolve_alignment,
        depth.zero,
        depth.sums,
        depth.scores,
        keep_depth.definitions,
        keep_depth.count_images,
        keep_depth.collect,
    ),
}
