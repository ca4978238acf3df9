"""Predicted against measured depth: the sums for `DepthScores`, image by image."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from segmenter import config
from segmenter.config import Alignment
from segmenter.errors import UserError
from segmenter.evaluation.depth_metrics import METRICS, DepthScores, image_sums
from segmenter.inference.depth import inverse_depth
from segmenter.model.segmenter import Segmenter


def resolve_alignment(model: Segmenter, alignment: Alignment) -> Alignment:
    """The alignment that `auto` means: none for a metric model; relative inverse depth needs scale and shift.

    Raises:
        UserError: a relative model is to be scored without alignment.
    """
    relative = model.recipe.depth.target == "inverse"
    if alignment == "auto":
        return "least_squares" if relative else "none"
    if alignment == "none" and relative:
        raise UserError(
            "the model gives inverse depth up to an unknown scale and shift, which alignment none cannot score; "
            "write least_squares"
        )
    return alignment


def zero(_: Segmenter) -> np.ndarray:
    """The sums (1 + METRICS, float64) over no images."""
    return np.zeros(1 + len(METRICS))


def sums(
    model: Segmenter, images: Iterator[tuple[Tensor, Tensor]], _: config.Inference, alignment: Alignment
) -> Iterator[np.ndarray]:
    """The sums (1 + METRICS, float64) of each image."""
    for image, truth in images:
        predicted = inverse_depth(model, image, tuple(truth.shape)).cpu().numpy()
        yield image_sums(predicted, truth.numpy(), alignment, model.recipe.depth.max_depth)


def scores(model: Segmenter, total: np.ndarray, alignment: Alignment) -> DepthScores:
    """The scores from the sums.

    Raises:
        UserError: no pixel of the images could be scored.
    """
    found = DepthScores(total, alignment)
    if not found.images:
        raise UserError(
            f"nothing measured lies within depth.max_depth, {model.recipe.depth.max_depth:g} m; is data.depth_scale "
            "the number in the maps that means one metre?"
        )
    return found
