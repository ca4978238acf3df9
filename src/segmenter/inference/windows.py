"""One image to logits: a sliding window over it, every window's logits on its own grid.

Source: the published Segmenter's inference (windows at multiples of the stride, the last one shifted back to the
border, logits averaged where windows overlap); here the averaging is left to `upsample`. Our models take any size,
so that an image smaller than the window is taken whole instead of being enlarged.
"""

from dataclasses import replace

import torch
from torch import Tensor

from segmenter import upsample
from segmenter.model.segmenter import Segmenter


def positions(length: int, window: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along an axis: multiples of the stride, then one that ends at the border."""
    last = max(length - window, 0)
    return (*range(0, last, stride), last)


def window_logits(model: Segmenter, image: Tensor) -> tuple[Tensor, upsample.Geometry]:
    """An image (3 H W uint8) to logits (windows K h w) and their geometry on the H x W pixels.

    Window, stride and windows a pass are those of the model's recipe.
    """
    settings = model.recipe.inference
    height, width = image.shape[1:]
    window = (min(settings.window[0], height), min(settings.window[1], width))
    rows, columns = (
        positions(length, side, stride)
        for length, side, stride in zip((height, width), window, settings.stride, strict=True)
    )
    corners = [(row, column) for row in rows for column in columns]
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(corners), settings.batch):
        crops = [image[:, y : y + window[0], x : x + window[1]] for y, x in corners[start : start + settings.batch]]
        parts.append(model(model.normalize(torch.stack(crops).to(device))).float())
    return torch.cat(parts), replace(model.geometry(*window), windows=(rows, columns))
