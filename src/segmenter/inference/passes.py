"""Passes over one image at several scales and mirrored: single-scale and multi-scale inference.

Source: Segmenter, arXiv 2105.05633, section 4.1: ratios 0.5 to 1.75, each also mirrored, probabilities averaged.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.transforms import resize_for_evaluation
from segmenter.inference.windows import logits_of_many, window_logits
from segmenter.model.segmenter import Segmenter

MULTISCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def effective_settings(model: Segmenter, inference: config.Inference | None, native: bool) -> config.Inference:
    """The given settings, or else those of the model's recipe, with `native` if either asks for it."""
    settings = inference or model.recipe.inference
    return replace(settings, native=settings.native or native)


def scaled(image: np.ndarray, augment: config.Augment, native: bool = False, ratio: float = 1.0) -> Tensor:
    """An image (H W 3 uint8) at the training scale (3 h w uint8); `native` keeps the image's own."""
    if native and ratio == 1:  # a large photo should not be copied
        return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    if native:
        side = min(image.shape[:2])
        # One above the photo's own proportion: the long side must never be the limit, not even by rounding.
        return resize_for_evaluation(image, side, max(image.shape[:2]) / side + 1, ratio)
    return resize_for_evaluation(image, augment.short_side, augment.max_ratio, ratio)


@torch.inference_mode()
def one_pass(
    model: Segmenter, image: Tensor, size: tuple[int, int], settings: config.Inference
) -> tuple[Tensor, upsample.Geometry]:
    """A scaled image (3 h w uint8) to logits (windows K gh gw) and their geometry on `size` pixels (H, W)."""
    logits, geometry = window_logits(model, image, settings)
    return logits, replace(geometry, final=size)


def many_passes(
    model: Segmenter, image: np.ndarray, settings: config.Inference
) -> list[tuple[Tensor, upsample.Geometry]]:
    """An image (H W 3 uint8) at every ratio of MULTISCALE, straight and mirrored, each ending at its own size."""
    return passes_at(model, at_scales(image, model.recipe.augment, settings.native), image.shape[:2], settings)


def at_scales(image: np.ndarray, augment: config.Augment, native: bool = False) -> Iterator[Tensor]:
    """An image (H W 3 uint8) at every ratio of MULTISCALE (3 h w uint8 each)."""
    return (scaled(image, augment, native, ratio) for ratio in MULTISCALE)


@torch.inference_mode()
def passes_at(
    model: Segmenter, images: Iterable[Tensor], size: tuple[int, int], settings: config.Inference
) -> list[tuple[Tensor, upsample.Geometry]]:
    """An image at several scales (3 h w uint8 each), straight and mirrored, to passes that end at `size`."""

    def straight_and_mirrored() -> Iterator[tuple[Tensor, tuple[int, bool]]]:
        for scale, image in enumerate(images):
            yield image, (scale, False)
            yield image.flip(-1), (scale, True)

    passes = {
        place: (logits, replace(geometry, final=size, mirrored=place[1]))
        for logits, geometry, place in logits_of_many(model, straight_and_mirrored(), settings)
    }
    return [passes[place] for place in sorted(passes)]  # always in one order, so that sums round the same way
