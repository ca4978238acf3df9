"""The classes that can win in each block of pixels, and which of them wins at each pixel."""

from collections.abc import Callable
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from segmenter.upsample.cells import at_points, taken
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.threads import scratch

PIXELS = 2**18
"""Pixels that are processed together: 11 bytes each, which stay in the cache."""


class Candidates:
    """Pairs of a block and a class that may win there, block by block, classes in ascending order."""

    def __init__(self, cells: Tensor, low: int, geometry: Geometry, part: slice, slack: Tensor):
        """Takes the logits of the cells of some rows of blocks (rows columns K); the first row is `low`.

        A class that is below another one by less than the slack remains a candidate.
        """
        self.part = part
        self.rows, self.columns = (axis.blocks for axis in geometry.axes)
        self.shape = (part.stop - part.start, self.columns.count)
        possible = self._possible(at_points(cells, geometry, part, low), slack)
        self.count = possible.view(torch.uint8).sum(2).flatten()  # blocks
        self.first = self.count.cumsum(0) - self.count
        block, self.class_of = possible.flatten(0, 1).nonzero().T  # pairs
        self.classes = possible.shape[2]
        self.at_cells = cells.flatten()[self._offsets(cells, low)[block] + self.class_of[:, None]]  # pairs S*T

    def _possible(self, values: Tensor, slack: Tensor) -> Tensor:
        """Values at points (points points K) to whether a class can win in a block (blocks blocks K)."""
        low = high = values
        for dim, (count, blocks) in enumerate(zip(self.shape, (self.rows, self.columns), strict=True)):
            step, stop = blocks.points.step, (count - 1) * blocks.points.step + 1
            slices = [(slice(None),) * dim + (slice(i, i + stop, step),) for i in range(blocks.points.size)]
            low = reduce(torch.minimum, [low[points] for points in slices])
            high = reduce(torch.maximum, [high[points] for points in slices])
        return high >= low.amax(2, keepdim=True) - slack

    def _offsets(self, cells: Tensor, low: int) -> Tensor:
        """Where the logits of each block's cells begin in the flattened cells (blocks S*T)."""
        down = torch.from_numpy(self.rows.cells[self.part] - low).to(cells.device)[:, None, :, None]  # n 1 S 1
        along = torch.from_numpy(self.columns.cells).to(cells.device)[None, :, None]  # 1 m 1 T
        return ((down * cells.shape[1] + along) * cells.shape[2]).flatten(2).flatten(0, 1)

    def winners(self) -> Tensor:
        """The winner at every place (blocks blocks P*Q, uint8, or int32 above 256 classes)."""
        places = self.rows.length * self.columns.length
        dtype = torch.uint8 if self.classes <= 256 else torch.int32
        labels = self.class_of[self.first].to(dtype)[:, None].repeat(1, places)  # blocks P*Q
        # Blocks with the most candidates first: then those that have one more are always a leading part.
        count, order = self.count.sort(descending=True)
        contested = int((count > 1).sum())
        step = max(1, PIXELS // places)
        for start in range(0, contested, step):
            blocks = slice(start, min(start + step, contested))
            labels.index_copy_(0, order[blocks], self._best(order[blocks], count[blocks], places, dtype))
        return labels.unflatten(0, self.shape)

    def _best(self, blocks: Tensor, count: Tensor, places: int, dtype: torch.dtype) -> Tensor:
        """Winners (n P*Q) in n blocks ordered by their number of candidates, the largest number first.

        The result is overwritten by the next call in this thread.
        """
        memory = partial(scratch, device=blocks.device)
        highest, values = memory("values", 2, len(blocks), places)
        winners, chosen = memory("winners", 2, len(blocks), places, dtype=dtype)
        flags = memory("flags", len(blocks), places, dtype=torch.uint8)
        mix, number = self._mixer(blocks), torch.arange(int(count[0]), device=blocks.device)[:, None]
        there = number < count  # candidates blocks: every block's first candidate, then every second one ...
        pairs = (self.first[blocks] + number)[there]
        at_cells, classes = self.at_cells[pairs], self.class_of[pairs].to(dtype)[:, None]
        library, arrays = torch, (highest, values, winners, chosen, flags.view(torch.bool), flags, classes)
        if blocks.device.type == "cpu":  # NumPy compares in a third of torch's time, and slices in a tenth
            library, arrays = np, [array.numpy() for array in arrays]
        best, value, winner, if_better, better, flag, class_of = arrays
        start = 0
        for some in there.sum(1).tolist():
            here = slice(start, start := start + some)
            if here.start == 0:
                mix(at_cells[here], highest)
                winner[:] = class_of[here]
                continue
            mix(at_cells[here], values[:some])
            library.greater(value[:some], best[:some], out=better[:some])
            library.maximum(best[:some], value[:some], out=best[:some])
            library.multiply(flag[:some], class_of[here], out=if_better[:some])
            library.maximum(winner[:some], if_better[:some], out=winner[:some])  # classes ascend
        return winners

    def _mixer(self, blocks: Tensor) -> Callable[[Tensor, Tensor], object]:
        """A function that mixes the cells (n S*T) of the first n of the blocks into their places (n P*Q)."""
        weights = [torch.from_numpy(axis.weights).to(blocks.device) for axis in (self.rows, self.columns)]
        if len(weights[0]) == len(weights[1]) == 1:
            joint = torch.einsum("ps,qt->stpq", weights[0][0], weights[1][0]).flatten(2).flatten(0, 1)
            return lambda cells, out: torch.mm(cells, joint, out=out)
        which = (blocks // self.shape[1] + self.part.start, blocks % self.shape[1])
        down, along = (w[i] if len(w) > 1 else w.expand(len(i), -1, -1) for w, i in zip(weights, which, strict=True))
        sizes, places = (down.shape[2], along.shape[2]), (down.shape[1], along.shape[1])

        def mix(cells: Tensor, out: Tensor) -> None:
            some = len(cells)
            torch.bmm(down[:some] @ cells.unflatten(1, sizes), along[:some].mT, out=out.unflatten(1, places))

        return mix


def in_rows(labels: Tensor, geometry: Geometry, part: slice) -> Tensor:
    """Labels at the places of some rows of blocks (B blocks blocks P*Q) in rows of pixels (B r W)."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    labels = labels.unflatten(3, (rows.length, columns.length)).transpose(2, 3).flatten(3).flatten(1, 2)
    places = rows.places[rows.pixels(part)] - part.start * rows.length
    return taken(taken(labels, places, 1), columns.places, 2)
