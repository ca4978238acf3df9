"""What a run learns, and the score that selects its best model: labels of pixels, cross-entropy and mean IoU.

Source: Segmenter, arXiv 2105.05633, section 4.1; auxiliary losses as in SETR, arXiv 2012.15840, section 3.2.
"""

import torch
from torch import Tensor

from segmenter import upsample
from segmenter.config import Recipe
from segmenter.data.check import LabelReport, median_frequency_weights
from segmenter.data.samples import DataSet
from segmenter.evaluation.metrics import Scores
from segmenter.model.segmenter import Output
from segmenter.training.depth_objective import DepthObjective


class LabelObjective:
    """Cross-entropy of every output with the labels, mean over the valid pixels of the whole batch."""

    metric = "mean_iou"
    title = "mIoU"  # of the metric

    def __init__(self, recipe: Recipe, data: DataSet, class_weights: Tensor | None = None):
        self.settings, self.classes = recipe.train, data.classes
        self.class_weights = class_weights  # K

    def set_class_weights(self, report: LabelReport) -> None:
        """Computes the class weights, if the recipe wants them, from the counts of the data check."""
        if self.settings.class_weights == "median_frequency":
            self.class_weights = torch.as_tensor(median_frequency_weights(report)).float()

    def random_targets(self, numbers: Tensor) -> Tensor:
        """Meaningless targets (B H W) from random numbers (B H W, 0 to 1), for measuring costs."""
        return (numbers * len(self.classes)).long()

    def weight(self, labels: Tensor) -> Tensor:
        """The weight of the labels (B H W) in the mean: the number of valid pixels, or the sum of their weights."""
        valid = labels[labels != self.classes.ignore]
        if self.class_weights is None:
            return valid.new_tensor(valid.numel(), dtype=torch.float32)
        return self.class_weights.to(labels.device)[valid].sum()

    def loss(self, outputs: list[Output], labels: Tensor) -> Tensor:
        """Sum of the losses over the pixels of labels (B H W), auxiliary ones by their weights."""
        weights = None if self.class_weights is None else self.class_weights.to(labels.device)
        total = labels.new_zeros((), dtype=torch.float32)
        for _, share, logits, geometry in outputs:
            loss, _ = upsample.cross_entropy(
                logits, labels, geometry, weights, self.classes.ignore, self.settings.label_smoothing, reduction="sum"
            )
            total = total + share * loss
        return total

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Scores for the log; `metric` is the one that decides which model is best."""
        scores = Scores(counts.cpu().numpy(), self.classes.names)
        return {self.metric: scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}


Objective = LabelObjective | DepthObjective
OBJECTIVES: dict[str, type[Objective]] = {"labels": LabelObjective, "depth": DepthObjective}  # by the recipe's task
