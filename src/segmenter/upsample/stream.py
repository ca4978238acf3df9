"""Pixel logits with their labels in runs of blocks, and the way of a gradient from there back to the cells.

The weights of a block's cells sum to one at each place, so that what is taken from all classes of a cell changes no
probability: each cell's largest logit is taken from it once, and no pixel needs a maximum of its own. A gradient at
the pixels goes back to the cells by the same weights, block by block, and what meets there is added in one order.
"""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from segmenter.upsample.axis import Axis
from segmenter.upsample.cells import budget, cells_of, normalized
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.threads import each

CHUNK = 2**18
"""Pixel logits that a thread works on together: 1 MB, so that the next operation finds them in the cache."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Chunk:
    """Neighbouring blocks in a row of blocks, of some images (n in all), each with L places."""

    where: tuple[slice, int, slice]
    """Images, row of blocks, and blocks in it."""
    weights: Tensor
    """Weights of a block's cells at its places (n L S*T)."""
    logits: Tensor
    """Logits at the places, less a shift common to all classes (n L K); the thread's next chunk overwrites them."""
    labels: Tensor
    """Labels at the places (n L int64), 0 where they do not count."""
    counts: Tensor
    """1 where a place is a pixel whose label counts, or 0 (n L)."""


class Stream:
    """Pixels of logits (B*windows K h w) and their labels (B H W)."""

    def __init__(self, logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int):
        self.geometry, self.labels, self.ignore = geometry, labels, ignore
        self.rows, self.columns = (axis.blocks for axis in geometry.axes)
        logits, self.bounded = normalized(logits)
        self.cells, self.low = cells_of(logits, geometry, slice(0, self.rows.count))  # B rows columns K
        self.kept: Tensor | None = None
        """Which places count of those that would (B blocks blocks L); None: all."""
        self._weights = [torch.from_numpy(blocks.weights).to(logits.device) for blocks in (self.rows, self.columns)]
        self._own = threading.local()

    def labels_of(self, images: slice, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Labels and counts, as those of a `Chunk`, of a rectangle of blocks (images blocks blocks L)."""
        labels = self.labels[images]
        for dim, blocks, some in ((1, self.rows, rows), (2, self.columns, columns)):
            pixels = blocks.pixels(some)
            labels = labels[(slice(None),) * dim + (pixels,)]
            places = blocks.places[pixels] - some.start * blocks.length
            if len(places) < (some.stop - some.start) * blocks.length:  # a place without a pixel is ignored
                shape = list(labels.shape)
                shape[dim] = (some.stop - some.start) * blocks.length
                where = torch.from_numpy(places).to(labels.device)
                labels = labels.new_full(shape, self.ignore).index_copy_(dim, where, labels)
        labels = labels.unflatten(2, (-1, self.columns.length)).unflatten(1, (-1, self.rows.length))
        labels = labels.transpose(2, 3).flatten(3).long()
        counts = labels != self.ignore
        if self.kept is not None:
            counts &= self.kept[images, rows, columns]
        return labels.masked_fill(~counts, 0), counts.float()

    def each(self, function: Callable[[Chunk], Result]) -> list[Result]:
        """What a function makes of each chunk, in their order; threads share them."""
        return each(lambda where: function(self._chunk(*where)), self._places())

    def _places(self) -> Iterator[tuple[slice, int, slice]]:
        """`where` of all chunks."""
        block = self.rows.length * self.columns.length * self.cells.shape[-1]
        most = max(1, budget(CHUNK, self.cells.device) // block)  # blocks
        images = max(1, most // self.columns.count)
        for image in range(0, len(self.cells), images):
            for row in range(self.rows.count):
                for first in range(0, self.columns.count, most):
                    some = slice(image, min(image + images, len(self.cells)))
                    yield some, row, slice(first, min(first + most, self.columns.count))

    def _chunk(self, images: slice, row: int, blocks: slice) -> Chunk:
        down, along = self._weights
        down, along = down[row if len(down) > 1 else 0], along[blocks] if len(along) > 1 else along
        weights = torch.einsum("ps,bqt->bpqst", down, along).flatten(3).flatten(1, 2)  # blocks or 1, L S*T
        lines = self.cells[images, self.rows.cells[row] - self.low]  # b S columns K
        cells = lines[:, :, self.columns.cells[blocks]].transpose(1, 2).flatten(2, 3).flatten(0, 1)  # n S*T K
        weights = weights.expand(len(lines), blocks.stop - blocks.start, -1, -1).flatten(0, 1)
        size = (len(weights), weights.shape[1], cells.shape[2])
        logits = torch.bmm(weights, cells, out=self._scratch(math.prod(size)).view(size))
        if not self.bounded:
            logits -= logits.amax(2, keepdim=True)
        labels, counts = (some[:, 0].flatten(0, 1) for some in self.labels_of(images, slice(row, row + 1), blocks))
        return Chunk((images, row, blocks), weights, logits, labels, counts)

    def _scratch(self, elements: int) -> Tensor:
        """Memory that belongs to the thread."""
        scratch = getattr(self._own, "scratch", None)
        if scratch is None or len(scratch) < elements:
            scratch = self._own.scratch = self.cells.new_empty(elements)
        return scratch[:elements]


class Gradient:
    """Collects the gradient of a stream's logits at the cells of each block, and adds up what meets in a cell."""

    def __init__(self, stream: Stream):
        self.geometry, (rows, columns) = stream.geometry, (stream.rows, stream.columns)
        shape = (len(stream.cells), rows.count, columns.count, rows.size, columns.size, stream.cells.shape[-1])
        self.parts = stream.cells.new_empty(shape)  # B blocks blocks S T K

    def add(self, chunk: Chunk, factors: Tensor, slopes: Tensor) -> None:
        """Takes the gradient of a chunk's logits: slopes (n L K) times a factor at each place (n L)."""
        parts = self.parts[chunk.where]
        parts.copy_(((chunk.weights.mT * factors[:, None]) @ slopes).view(parts.shape))

    def add_same(self, chunk: Chunk, factors: Tensor, slopes: Tensor) -> None:
        """Adds slopes (K) that are the same at all of a chunk's places, times a factor at each (n L)."""
        parts = self.parts[chunk.where]
        parts += (chunk.weights.mT @ factors[..., None] * slopes).view(parts.shape)

    def of_logits(self) -> Tensor:
        """The gradient of the logits (B*windows K h w)."""
        (down, along), (height, width) = self.geometry.window_grid, self.geometry.grid
        rows, columns = (
            torch.from_numpy(_meetings(axis, windows * cells)).to(self.parts.device)
            for axis, windows, cells in zip(self.geometry.axes, (down, along), (height, width), strict=True)
        )

        def of_image(parts: Tensor) -> Tensor:
            gradient = parts.transpose(1, 2).flatten(0, 1)  # blocks*S blocks T K
            gradient = (rows @ gradient.flatten(1)).unflatten(1, (columns.shape[1], -1))  # R*h blocks*T K
            gradient = (columns @ gradient).unflatten(1, (along, width)).unflatten(0, (down, height))  # R h C w K
            return gradient.permute(0, 2, 4, 1, 3).flatten(0, 1)  # windows K h w

        return torch.cat(each(of_image, self.parts))


def _meetings(axis: Axis, count: int) -> np.ndarray:
    """Which of the cells of all windows along an axis each cell of each block is (count blocks*S float32)."""
    cells = axis.order[axis.blocks.cells].ravel()
    matrix = np.zeros((count, len(cells)), np.float32)
    matrix[cells, np.arange(len(cells))] = 1
    return matrix
