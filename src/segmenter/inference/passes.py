"""Passes over one image at several scales and mirrored: single-scale and multi-scale inference.

Source: Segmenter, arXiv 2105.05633, section 4.1: ratios 0.5 to 1.75, each also mirrored, probabilities averaged.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.transforms import resize_for_evaluation
from segmenter.inference.windows import window_logits
from segmenter.model.segmenter import Segmenter

MULTISCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def scaled(image: np.ndarray, augment: config.Augment, native: bool = False, ratio: float = 1.0) -> Tensor:
    """An image (H W 3 uint8) at the scale of the training (3 h w uint8); `native` keeps its own."""
    if native:
        side = min(image.shape[:2])
        # One above the photo's own proportion: the long side must not be what limits it, not even by rounding.
        return resize_for_evaluation(image, side, max(image.shape[:2]) / side + 1, ratio)
    return resize_for_evaluation(image, augment.short_side, augment.max_ratio, ratio)


@torch.inference_mode()
def one_pass(model: Segmenter, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, upsample.Geometry]:
    """A scaled image (3 h w uint8) to logits (windows K gh gw) and their geometry on `size` pixels (H, W)."""
    logits, geometry = window_logits(model, image)
    return logits, replace(geometry, final=size)


def many_passes(
    model: Segmenter, image: np.ndarray, native: bool = False
) -> list[tuple[Tensor, upsample.Geometry]]:
    """An image (H W 3 uint8) at every ratio of MULTISCALE, straight and mirrored, each ending at its own size."""
    passes = []
    for ratio in MULTISCALE:
        small = scaled(image, model.recipe.augment, native, ratio)
        passes.append(one_pass(model, small, image.shape[:2]))
        logits, geometry = one_pass(model, small.flip(-1), image.shape[:2])
        passes.append((logits, replace(geometry, mirrored=True)))
    return passes
