"""Class probabilities at every pixel, and their mean over passes (scales and mirror images).

Source: Segmenter's published evaluation: logits are averaged over windows, probabilities over passes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from segmenter.upsample.bands import bands, check
from segmenter.upsample.geometry import Geometry

Passes = Sequence[tuple[Tensor, Geometry]]


def mean_probabilities(passes: Passes) -> Iterator[tuple[slice, Tensor]]:
    """Passes over ONE image, each (logits windows K h w, geometry), to (rows, probabilities K r W) in bands.

    Raises:
        ValueError: the passes end at different sizes, or one holds several images.
    """
    if len({geometry.size for _, geometry in passes}) != 1:
        raise ValueError(f"all passes must end at one size, not {[g.size for _, g in passes]}")
    for logits, geometry in passes:
        check(logits, geometry)
        if len(logits) != geometry.window_count:
            raise ValueError(f"{len(logits)} windows of logits for one image of {geometry.window_count} windows")
    for parts in zip(*(bands(logits, geometry) for logits, geometry in passes), strict=True):
        yield parts[0][0], sum(pixels.softmax(0) for _, pixels in parts) / len(parts)


def labels_of_mean(passes: Passes) -> Tensor:
    """Passes over ONE image to the labels (H W int64) of their mean probabilities."""
    logits, geometry = passes[0]
    result = torch.empty(geometry.size, dtype=torch.int64, device=logits.device)
    for rows, probabilities in mean_probabilities(passes):
        result[rows] = probabilities.argmax(0)
    return result
