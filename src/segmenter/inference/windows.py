"""Images to logits: a sliding window over each, every window's logits on its own grid.

Source: the published Segmenter's inference (windows at multiples of the stride, the last one shifted back to the
border, logits averaged where windows overlap); here the averaging is left to `upsample`. Our models take any size,
so that an image smaller than the window is taken whole; `enlarge` does what the published code does with it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter import upsample
from segmenter.model.devices import multiplying_in
from segmenter.model.segmenter import Segmenter

Other = TypeVar("Other")


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
    ((logits, geometry, _),) = logits_of_many(model, [(image, None)])
    return logits, geometry


def logits_of_many(
    model: Segmenter, images: Iterable[tuple[Tensor, Other]]
) -> Iterator[tuple[Tensor, upsample.Geometry, Other]]:
    """Images, each with something that belongs to it, to what `window_logits` gives, and that.

    Windows of one size share passes whatever image they are of; so images of other sizes may overtake each other.
    """
    queues: defaultdict[tuple[int, ...], _Queue] = defaultdict(_Queue)
    for image, other in images:
        crops, geometry = windows_of(model, image)
        queue = queues[tuple(crops[0].shape)]
        queue.add(crops, geometry, other)
        yield from queue.passed(model, at_least=model.recipe.inference.batch)
    for queue in queues.values():
        yield from queue.passed(model, at_least=1)


@dataclass
class _Queue:
    """Windows of one size, of images in order, on both sides of the network."""

    crops: list[Tensor] = field(default_factory=list)  # before it, 3 h w each
    logits: list[Tensor] = field(default_factory=list)  # behind it, of images that still miss some, K gh gw each
    images: list[tuple] = field(default_factory=list)  # geometry, and what belongs to the image

    def add(self, crops: list[Tensor], geometry: upsample.Geometry, other: Other) -> None:
        self.crops += crops
        self.images.append((geometry, other))

    def passed(self, model: Segmenter, at_least: int) -> Iterator[tuple[Tensor, upsample.Geometry, Other]]:
        """Sends windows through the network while there are enough of them; the images that are then complete."""
        batch = model.recipe.inference.batch
        while len(self.crops) >= at_least:
            crops, self.crops = self.crops[:batch], self.crops[batch:]
            self.logits += logits_of(model, torch.stack(crops))
        while self.images and len(self.logits) >= self.images[0][0].window_count:
            geometry, other = self.images.pop(0)
            logits = torch.stack(self.logits[: geometry.window_count])  # windows K h w
            del self.logits[: geometry.window_count]
            yield logits, geometry, other


def logits_of(model: Segmenter, images: Tensor) -> Tensor:
    """Images (B 3 H W, 0 to 255, on the model's device) to logits (B K h w float32), in the model's precision."""
    with multiplying_in(model.precision, images.device):
        return model(model.normalize(images)).float()


def windows_of(model: Segmenter, image: Tensor) -> tuple[list[Tensor], upsample.Geometry]:
    """An image (3 H W, 0 to 255) to its windows (3 h w each) on the model's device, and their geometry."""
    settings = model.recipe.inference
    device = next(model.parameters()).device
    image = image.to(device, non_blocking=device.type == "cuda")
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
    crops = [image[:, y : y + window[0], x : x + window[1]] for y in rows for x in columns]
    final = size if size != (height, width) else None
    return crops, replace(model.geometry(*window), windows=(rows, columns), final=final)
