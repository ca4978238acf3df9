"""Images to depth at their own size.

Always in one pass over the whole image: each window of a relative model would have a different scale and shift.
Source of the metric models' formula: the published DPT for KITTI and NYU, arXiv 2103.13413.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.inference.passes import scaled
from segmenter.inference.windows import logits_of
from segmenter.model.segmenter import Segmenter

LEAST = 1e-8  # of metric inverse depth, as published


@dataclass(frozen=True)
class DepthResult:
    """Depth of one image at its own size."""

    task = "depth"

    depth: np.ndarray
    """H W float32: metres with `metric`; else inverse depth up to a scale and a shift: larger is nearer."""
    metric: bool


def metric_inverse(output: Tensor, settings: config.Depth) -> Tensor:
    """The output of a metric model's decoder, at pixels, to inverse depth in 1 / metre."""
    return (settings.scale * output + settings.shift).clamp(min=LEAST)


@torch.inference_mode()
def inverse_depth(model: Segmenter, image: Tensor, size: tuple[int, int]) -> Tensor:
    """A scaled image (3 h w uint8) to inverse depth (H W float32): in 1 / metre for metric models, else relative."""
    device = next(model.parameters()).device
    geometry = replace(model.geometry(*image.shape[-2:]), final=size)
    pixels = upsample.logits(logits_of(model, image[None].to(device)), geometry)[0, 0]  # H W
    settings = model.recipe.depth
    return metric_inverse(pixels, settings) if settings.target == "metric" else pixels


def depth_results(
    model: Segmenter, images: Iterable[np.ndarray], settings: config.Inference, _: bool
) -> Iterator[DepthResult]:
    """Depth of each image (H W 3 uint8), in order."""
    metric = model.recipe.depth.target == "metric"
    for image in images:
        inverse = inverse_depth(model, scaled(image, model.recipe.augment, settings.native), image.shape[:2])
        yield DepthResult((1 / inverse if metric else inverse).cpu().numpy(), metric)
