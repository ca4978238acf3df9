"""One image to logits: a sliding window over it, every window's logits on its own grid.

Source: the published Segmenter's inference (windows at multiples of the stride, the last one shifted back to the
border, logits averaged where windows overlap); here the averaging is left to `upsample`. Our models take any size,
so that an image smaller than the window is taken whole; `enlarge` does what the published code does with it.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter import upsample
from segmenter.model.segmenter import Segmenter


def positions(length: int, window: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along an axis: multiples of the stride, then one that ends at the border."""
    last = max(length - window, 0)
    return (*range(0, last, stride), last)


def enlarged_size(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Size (H, W) of an image whose smaller side is brought to the window, its aspect kept; never smaller.

    The other side is cut to whole pixels, not rounded, as published: 375 x 500 becomes 512 x 682.
    """
    scales = [wanted / side for side, wanted in zip(size, window, strict=True)]
    if max(scales) <= 1:
        return size
    fixed = scales.index(max(scales))
    other = int(size[1 - fixed] / size[fixed] * window[fixed])
    return (window[0], other) if fixed == 0 else (other, window[1])


def window_logits(model: Segmenter, image: Tensor) -> tuple[Tensor, upsample.Geometry]:
    """An image (3 H W, 0 to 255) to logits (windows K h w) and their geometry on the H x W pixels.

    Window, stride, windows a pass and what becomes of small images are those of the model's recipe.
    """
    settings = model.recipe.inference
    size = height, width = tuple(image.shape[1:])
    if settings.enlarge and (larger := enlarged_size(size, settings.window)) != size:
        # In real numbers: the published code enlarges what is normalised already, which is the same.
        image = image if image.is_floating_point() else image.float()
        image = F.interpolate(image[None], larger, mode="bilinear", align_corners=False)[0]
        height, width = larger
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
    final = size if size != (height, width) else None
    return torch.cat(parts), replace(model.geometry(*window), windows=(rows, columns), final=final)
