"""Pixel logits with their labels in runs of blocks, and the way of a gradient from there back to the cells.

The weights of a block's cells sum to one at each place, so that what is taken from all classes of a cell changes no
probability: each cell's largest logit is taken from it once, and no pixel needs a maximum of its own. A gradient at
the pixels goes back to the cells by the same weights, block by block, and what meets there is added in one order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segmenter.upsample.axis import Axis
from segmenter.upsample.cells import budget, cells_of, normalized
from segmenter.upsample.geometry import Geometry

CHUNK = 2**21
"""Pixel logits that are worked on together, 8 MB: fewer fit a cache better, but make threads wait more often."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring blocks in a row of blocks, of all images (n in all), each with L places."""

    where: tuple[slice, int, slice]
    """Images, row of blocks, and blocks in it."""
    weights: Tensor
    """Weights of a block's cells at its places (n L S*T)."""
    logits: Tensor
    """Logits at the places, less a shift common to all classes (n L K); the next chunk's overwrite them."""

    def of(self, values: Tensor) -> Tensor:
        """Values at all places (B blocks blocks L) to those of the chunk (n L)."""
        return values[self.where].flatten(0, 1)


class Stream:
    """Pixels of logits (B*windows K h w) and their labels (B H W)."""

    def __init__(self, logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int):
        self.geometry = geometry
        self.rows, self.columns = (axis.blocks for axis in geometry.axes)
        logits, self.bounded = normalized(logits)
        self.cells, self.low = cells_of(logits, geometry, slice(0, self.rows.count))  # B rows columns K
        labels = self._in_blocks(labels.long(), ignore)
        counts = labels != ignore
        self.labels = labels.masked_fill_(~counts, 0)
        """Labels of all blocks (B blocks blocks L int64), 0 where they do not count."""
        self.counts = counts.float()
        """1 where a place is a pixel whose label counts, or 0 (B blocks blocks L)."""

    def _in_blocks(self, labels: Tensor, ignore: int) -> Tensor:
        """Labels (B H W) to the places of blocks (B blocks blocks L); a place without a pixel is ignored."""
        for dim, blocks in ((1, self.rows), (2, self.columns)):
            shape = list(labels.shape)
            shape[dim] = blocks.count * blocks.length
            places = torch.from_numpy(blocks.places).to(labels.device)
            labels = labels.new_full(shape, ignore).index_copy_(dim, places, labels)
        labels = labels.unflatten(2, (self.columns.count, -1)).unflatten(1, (self.rows.count, -1))
        return labels.transpose(2, 3).flatten(3)

    def __iter__(self) -> Iterator[Chunk]:
        rows, columns, images = self.rows, self.columns, len(self.cells)
        down, along = (torch.from_numpy(blocks.weights).to(self.cells.device) for blocks in (rows, columns))
        places, classes = rows.length * columns.length, self.cells.shape[-1]
        step = min(max(1, budget(CHUNK, self.cells.device) // (images * places * classes)), columns.count)
        scratch = self.cells.new_empty(images * step, places, classes)
        for row in range(rows.count):
            lines = self.cells[:, rows.cells[row] - self.low]  # B S columns K
            weights = torch.einsum("ps,bqt->bpqst", down[row if len(down) > 1 else 0], along)
            weights = weights.flatten(3).flatten(1, 2)  # blocks or 1, L S*T
            for first in range(0, columns.count, step):
                blocks = slice(first, min(first + step, columns.count))
                count = blocks.stop - blocks.start
                cells = lines[:, :, columns.cells[blocks]].transpose(1, 2).flatten(2, 3).flatten(0, 1)  # n S*T K
                some = weights[blocks] if len(weights) > 1 else weights.expand(count, -1, -1)
                some = some.expand(images, -1, -1, -1).flatten(0, 1)
                logits = torch.bmm(some, cells, out=scratch[: images * count])
                if not self.bounded:
                    logits -= logits.amax(2, keepdim=True)
                yield Chunk((slice(None), row, blocks), some, logits)


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
        gradient = self.parts.transpose(2, 3).flatten(1, 2)  # B blocks*S blocks T K
        gradient = (rows @ gradient.flatten(2)).unflatten(2, (columns.shape[1], -1))  # B R*h blocks*T K
        gradient = (columns @ gradient).unflatten(2, (along, width)).unflatten(1, (down, height))  # B R h C w K
        return gradient.permute(0, 1, 3, 5, 2, 4).flatten(0, 2)


def _meetings(axis: Axis, count: int) -> np.ndarray:
    """Which of the cells of all windows along an axis each cell of each block is (count blocks*S float32)."""
    cells = axis.order[axis.blocks.cells].ravel()
    matrix = np.zeros((count, len(cells)), np.float32)
    matrix[cells, np.arange(len(cells))] = 1
    return matrix
