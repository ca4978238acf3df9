"""Images to logits: a sliding window over each, every window's logits on its own grid.

Source: the published Segmenter's inference (windows at multiples of the stride, the last one shifted back to the
border, logits averaged where windows overlap); here the averaging is left to `upsample`. Our models take any size, so
an image smaller than the window is taken whole; `enlarge` treats it as the published code does.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.transforms import refuse_larger
from segmenter.errors import UserError
from segmenter.model.devices import multiplying_in
from segmenter.model.segmenter import Segmenter

Tag = TypeVar("Tag")
# Pixels of windows that may arrive while one waits for others of its size: 32 windows of 512 x 512, which take 25 MB as
# bytes and 100 MB as floats. Photos of one shape never wait so long; photos of many shapes would all stay in memory.
WAITING = 2**23
MOST_WINDOWS = 2**14  # of one image; 178 million pixels, the most that is read, have 776 windows at a stride of 480


def positions(length: int, window: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along an axis: multiples of the stride, then one that ends at the border."""
    last = max(length - window, 0)
    return (*range(0, last, stride), last)


def enlarged_size(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Size (H, W) of an image whose smaller side is brought to the window, its aspect kept; never smaller.

    The other side is truncated to whole pixels, not rounded, as published: 375 x 500 becomes 512 x 682.
    """
    scales = [wanted / side for side, wanted in zip(size, window, strict=True)]
    if max(scales) <= 1:
        return size
    fixed = scales.index(max(scales))
    other = int(size[1 - fixed] / size[fixed] * window[fixed])
    return (window[0], other) if fixed == 0 else (other, window[1])


def window_logits(model: Segmenter, image: Tensor, settings: config.Inference) -> tuple[Tensor, upsample.Geometry]:
    """An image (3 H W, 0 to 255) to logits (windows K h w) and their geometry on the H x W pixels.

    The settings give window, stride, windows per pass and the treatment of small images.
    """
    ((logits, geometry, _),) = logits_of_many(model, [(image, None)], settings)
    return logits, geometry


def logits_of_many(
    model: Segmenter, images: Iterable[tuple[Tensor, Tag]], settings: config.Inference
) -> Iterator[tuple[Tensor, upsample.Geometry, Tag]]:
    """Images, each with a tag, to the logits and geometry of `window_logits`, with the tag.

    Windows of one size share passes, also across images. So images of other sizes may overtake each other, but none by
    more than WAITING pixels of windows.
    """
    queues: defaultdict[tuple[int, ...], _Queue] = defaultdict(_Queue)
    arrived = 0  # pixels of all windows so far
    for image, tag in images:
        crops, geometry = windows_of(model, image, settings)
        size = tuple(crops[0].shape)
        arrived += len(crops) * math.prod(size[1:])
        queues[size].add(crops, geometry, tag, arrived)
        del crops, image  # so that a pass can free them
        yield from queues[size].completed(model, settings.batch, at_least=settings.batch)
        for size, queue in list(queues.items()):
            if queue.images and arrived - queue.images[0].arrived > WAITING:
                yield from queue.completed(model, settings.batch, at_least=1)
            if not queue.images:
                del queues[size]
    for queue in queues.values():
        yield from queue.completed(model, settings.batch, at_least=1)


class _Image(NamedTuple):
    """An image that still has windows to go through the network."""

    geometry: upsample.Geometry
    tag: object
    arrived: int
    """Pixels of all windows that had arrived by the end of this image's."""


@dataclass
class _Queue:
    """Windows of one size before the network, and logits of incomplete images after it; images in order."""

    crops: list[Tensor] = field(default_factory=list)  # before the network, 3 h w each
    logits: list[Tensor] = field(default_factory=list)  # after it, of images that are not complete, K gh gw each
    images: list[_Image] = field(default_factory=list)

    def add(self, crops: list[Tensor], geometry: upsample.Geometry, tag: object, arrived: int) -> None:
        self.crops += crops
        self.images.append(_Image(geometry, tag, arrived))

    def completed(self, model: Segmenter, batch: int, at_least: int) -> Iterator[tuple[Tensor, upsample.Geometry, Tag]]:
        """Sends windows through the network while there are `at_least` so many; yields the images that are complete."""
        while len(self.crops) >= at_least:
            crops, self.crops = self.crops[:batch], self.crops[batch:]
            self.logits += logits_of(model, torch.stack(crops))
        while self.images and len(self.logits) >= self.images[0].geometry.window_count:
            geometry, tag, _ = self.images.pop(0)
            logits = torch.stack(self.logits[: geometry.window_count])  # windows K h w
            del self.logits[: geometry.window_count]
            yield logits, geometry, tag


def logits_of(model: Segmenter, images: Tensor) -> Tensor:
    """Images (B 3 H W, 0 to 255, on the model's device) to logits (B K h w float32), in the model's precision."""
    with multiplying_in(model.precision, images.device):
        return model(model.normalize(images)).float()


def windows_of(model: Segmenter, image: Tensor, settings: config.Inference) -> tuple[list[Tensor], upsample.Geometry]:
    """An image (3 H W, 0 to 255) to its windows (3 h w each) on the model's device, and their geometry.

    Raises:
        UserError: there would be more than MOST_WINDOWS.
    """
    device = next(model.parameters()).device
    image = image.to(device, non_blocking=device.type == "cuda")
    size = height, width = tuple(image.shape[1:])
    if settings.enlarge and (larger := enlarged_size(size, settings.window)) != size:
        refuse_larger(larger)
        # As floats: the published code enlarges the normalised image, which is equivalent.
        image = image if image.is_floating_point() else image.float()
        image = F.interpolate(image[None], larger, mode="bilinear", align_corners=False)[0]
        height, width = larger
    window = (min(settings.window[0], height), min(settings.window[1], width))
    rows, columns = (
        positions(length, side, stride)
        for length, side, stride in zip((height, width), window, settings.stride, strict=True)
    )
    if len(rows) * len(columns) > MOST_WINDOWS:
        raise UserError(
            f"an image of {height} x {width} pixels (height x width) has {len(rows) * len(columns)} windows of "
            f"{window[0]} x {window[1]}, one every {settings.stride[0]} x {settings.stride[1]} pixels; at most "
            f"{MOST_WINDOWS} are taken: write a larger inference.stride and inference.window, or make the image smaller"
        )
    crops = [image[:, y : y + window[0], x : x + window[1]] for y in rows for x in columns]
    final = size if size != (height, width) else None
    return crops, replace(model.geometry(*window), windows=(rows, columns), final=final)
