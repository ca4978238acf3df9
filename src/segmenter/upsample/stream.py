"""Pixel logits with their labels in runs of blocks, and the gradient from there back to the cells.

The weights of a block's cells sum to one at each place, so subtracting one number from all classes of a cell changes
no probability: each cell's largest logit is subtracted once, and no pixel needs its own maximum. A gradient at the
pixels goes back to the cells by the same weights, block by block, and contributions are always added in one order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from segmenter.upsample.axis import Axis
from segmenter.upsample.cells import budget, cells_of, normalized
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.threads import each, scratch

CHUNK = 2**21
"""Pixel logits that a thread works on together, 8 MB: with fewer, threads wait longer for each other's Python."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """A row of blocks of one image, n blocks of L places each."""

    where: tuple[int, int]
    """Image, row of blocks."""
    labels: Tensor
    """Labels at the places (n L int64), 0 where they do not count."""
    counts: Tensor
    """1 where a place is a pixel whose label counts, or 0 (n L)."""
    weights: Tensor
    """Weights of a block's cells at its places (n L S*T)."""
    cells: Tensor
    """Logits of a block's cells (n S*T K)."""
    bounded: bool
    """Whether no logit is far below zero."""
    scratch: Tensor
    """The thread's memory for the logits at some blocks' places (blocks L K)."""

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Some blocks, and the logits at their places (blocks L K) up to a shift; the caller may overwrite them."""
        for first in range(0, len(self.labels), len(self.scratch)):
            here = slice(first, min(first + len(self.scratch), len(self.labels)))
            scratch = self.scratch[: here.stop - first]
            logits = torch.bmm(self.weights[here], self.cells[here], out=scratch)
            if not self.bounded:
                logits -= logits.amax(2, keepdim=True)
            yield here, logits


class Stream:
    """Pixels of logits (B*windows K h w) and their labels (B H W)."""

    def __init__(self, logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int):
        self.geometry, self.labels, self.ignore = geometry, labels, ignore
        self.rows, self.columns = (axis.blocks for axis in geometry.axes)
        logits, self.bounded = normalized(logits)
        self.cells, self.low = cells_of(logits, geometry, slice(0, self.rows.count))  # B rows columns K
        self.selected: Tensor | None = None
        """Which of the valid places count (B blocks blocks L); None: all."""
        self._weights = [torch.from_numpy(blocks.weights).to(logits.device) for blocks in (self.rows, self.columns)]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, rows of blocks, blocks in each, and places of a block."""
        return len(self.cells), self.rows.count, self.columns.count, self.rows.length * self.columns.length

    def places_of(self, images: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """Labels and counts, as those of a `Row`, of some rows of blocks (images blocks blocks L)."""
        labels = self.labels[images]
        for dim, blocks, some in ((1, self.rows, rows), (2, self.columns, slice(0, self.columns.count))):
            pixels, size = blocks.pixels(some), (some.stop - some.start) * blocks.length
            labels = labels[(slice(None),) * dim + (pixels,)]
            if labels.shape[dim] < size:  # a place without a pixel is ignored
                places = torch.from_numpy(blocks.places[pixels] - some.start * blocks.length).to(labels.device)
                shape = (*labels.shape[:dim], size, *labels.shape[dim + 1 :])
                labels = labels.new_full(shape, self.ignore).index_copy_(dim, places, labels)
        labels = labels.unflatten(2, (-1, self.columns.length)).unflatten(1, (-1, self.rows.length))
        labels = labels.transpose(2, 3).flatten(3).long()
        ignored = labels == self.ignore
        if self.selected is not None:
            ignored |= ~self.selected[images, rows]
        return labels.masked_fill(ignored, 0), 1 - ignored.float()

    def each_row(self, function: Callable[[Row], Result]) -> list[Result]:
        """A function's results for each row of blocks of each image, in order; threads share the work."""
        return each(lambda where: function(self._row(*where)), product(range(len(self.cells)), range(self.rows.count)))

    def _row(self, image: int, row: int) -> Row:
        labels, counts = (part[0, 0] for part in self.places_of(slice(image, image + 1), slice(row, row + 1)))
        down, along = self._weights
        weights = torch.einsum("ps,bqt->bpqst", down[row if len(down) > 1 else 0], along).flatten(3).flatten(1, 2)
        lines = self.cells[image, self.rows.cells[row] - self.low]  # S columns K
        cells = lines[:, self.columns.cells].transpose(0, 1).flatten(1, 2)  # n S*T K
        weights = weights.expand(len(cells), -1, -1)
        return Row((image, row), labels, counts, weights, cells, self.bounded, self._scratch())

    def _scratch(self) -> Tensor:
        """The thread's own memory for logits at the places of blocks."""
        places, classes = self.shape[3], self.cells.shape[-1]
        blocks = min(max(1, budget(CHUNK, self.cells.device) // (places * classes)), self.columns.count)
        return scratch("logits", blocks, places, classes, device=self.cells.device)


class Gradient:
    """Collects the gradient of a stream's logits at the cells of each block, and sums it for each cell."""

    def __init__(self, stream: Stream):
        self.geometry, (rows, columns) = stream.geometry, (stream.rows, stream.columns)
        shape = (len(stream.cells), rows.count, columns.count, rows.size, columns.size, stream.cells.shape[-1])
        self.parts = stream.cells.new_empty(shape)  # B blocks blocks S T K

    def of_row(self, row: Row) -> Tensor:
        """The gradient of a row's cells (n S*T K), to be written."""
        return self.parts[row.where].flatten(1, 2)

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
    """Matrix (count blocks*S float32) that sums the cells of blocks into the cells of all windows along an axis."""
    cells = axis.order[axis.blocks.cells].ravel()
    matrix = np.zeros((count, len(cells)), np.float32)
    matrix[cells, np.arange(len(cells))] = 1
    return matrix
