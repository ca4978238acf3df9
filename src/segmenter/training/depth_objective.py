"""What a run on depth learns, and the score that selects its best model: `depth_losses`, and delta1 after alignment.

As `LabelObjective` for labels. A loss is a mean over images here, not over pixels, as its sources have it.
"""

import torch
from torch import Tensor

from segmenter import upsample
from segmenter.config import Recipe
from segmenter.data.check_depth import DepthReport
from segmenter.data.samples import DataSet
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.inference.depth import metric_inverse
from segmenter.model.segmenter import Output
from segmenter.training import depth_losses


class DepthObjective:
    """Loss of relative inverse depth, or of metric depth, mean over the images that have measurements."""

    metric = title = "delta1"

    def __init__(self, recipe: Recipe, data: DataSet, class_weights: Tensor | None = None):
        self.recipe, self.settings = recipe, recipe.depth
        self.class_weights = class_weights  # none: depth has no classes

    def set_class_weights(self, report: DepthReport) -> None:
        """Depth has no classes: all images have the same weight."""

    def random_targets(self, numbers: Tensor) -> Tensor:
        """Meaningless inverse depth (B H W) from random numbers (B H W, 0 to 1), for measuring costs."""
        return numbers

    def weight(self, depth: Tensor) -> Tensor:
        """The weight of the true inverse depth (B H W) in the mean: the number of images that can be learnt from."""
        return depth_losses.counts(self._learnt(depth)).sum().float()

    def loss(self, outputs: list[Output], depth: Tensor) -> Tensor:
        """Sum of the losses over the images of the true inverse depth (B H W)."""
        truth, settings = self._learnt(depth), self.settings
        total = depth.new_zeros(())
        for _, share, logits, geometry in outputs:
            pixels = upsample.logits(logits, geometry)[:, 0]  # B H W
            if settings.target == "metric":
                loss = depth_losses.metric_loss(1 / metric_inverse(pixels, settings), 1 / truth, settings.metric_loss)
            else:
                loss = depth_losses.inverse_loss(pixels, truth, settings.inverse_loss, settings.gradient_weight)
            total = total + share * loss
        return total

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Scores for the log; `metric` is the one that decides which model is best."""
        scores = DepthScores(counts.cpu().numpy(), "none").to_dict()
        return {name: scores[name] for name in (self.metric, "abs_rel")}

    def _learnt(self, depth: Tensor) -> Tensor:
        """The true inverse depth, with NaN where the loss ignores it: for metric models beyond the largest depth."""
        if self.settings.target == "inverse":
            return depth
        return depth.where(depth >= 1 / self.settings.max_depth, torch.nan)
