"""Losses by torch's own operations on pixel logits, tile by tile.

Blocks save work because all their places share a few cells. Where the pixels are the cells there is nothing to share,
and with few classes the saving is smaller than the cost of the bookkeeping.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample.axis import Axis
from segmenter.upsample.cells import cell_rows
from segmenter.upsample.formulas import CrossEntropy, LossAndGradient, added, dice_of, hardest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.threads import each

FEW = 24
"""Classes. Loss and gradient of 4 x 384 x 384 pixels on a core, blocks against tiles: with 8 classes on strides of 16
and 8 pixels 39 against 20 and 53 against 22 ms, with 24 classes 50 against 43 and 57 against 50, with 100 2/3 of it."""
NEAR = 4
"""Pixels of a cell, a stride of 2, where tiles win with any number of classes: with 100, 179 against 311 ms."""
SMALL = 2**18
"""Elements of a tile, 1 MB: torch's loss and its gradient take several times as much memory. A quarter of it took twice
the time with 3 and 8 classes."""
SIDE = 64
"""Fewest rows and columns of a tile: larger ones cost more products, smaller ones mix cells more often."""
Where = tuple[slice, slice, slice]
"""Images (one), rows and columns of a tile in the pixels (B H W)."""
Function = Callable[[Tensor, Where], Tensor]
"""Pixel logits of a tile (1 K r c) to values, the first of which is differentiated."""


def suits(logits: Tensor, geometry: Geometry) -> bool:
    """Whether this is faster for logits (B*windows K h w) than working by blocks."""
    if logits.device.type != "cpu" or geometry.windows is not None:
        return False
    return logits.shape[1] <= FEW or math.prod(geometry.size) <= NEAR * math.prod(geometry.grid)


def cross_entropy(
    logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, options: CrossEntropy, wanted: bool
) -> LossAndGradient:
    """Logits (B K h w) against labels (B H W) to sums over pixels and, if `wanted`, the gradient."""
    pixels, weight = _Pixels(logits, geometry), options.weight
    if options.hard is not None:
        chances = torch.empty(labels.shape)

        def look(tile: Tensor, where: Where) -> Tensor:
            here = labels[where].long()
            chances[where] = -F.cross_entropy(tile, here, ignore_index=ignore, reduction="none")
            chances[where].masked_fill_(here == ignore, math.inf)
            return chances.new_zeros(1)

        pixels.sums(look)
        hard = hardest(chances, options)
        labels = labels if hard is None else labels.long().masked_fill(~hard, ignore)

    def loss(tile: Tensor, where: Where) -> Tensor:
        here = labels[where].long()
        found = F.cross_entropy(
            tile, here, weight, ignore_index=ignore, label_smoothing=options.smoothing, reduction="none"
        ).sum()  # reduction="sum" adds one after the other, which rounds more
        counts = here != ignore
        divisor = counts.sum() if weight is None else weight[here[counts]].sum()
        return torch.stack([found, divisor])

    (total, divisor), gradient = pixels.sums_and_gradient(loss) if wanted else (pixels.sums(loss), None)
    return LossAndGradient(total, divisor, gradient)


def dice(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, wanted: bool) -> LossAndGradient:
    """The same for the soft Dice loss; its divisor is the number of pixels."""
    pixels, classes = _Pixels(logits, geometry), logits.shape[1]

    def chances(tile: Tensor, where: Where) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities (K n) of the pixels that count, those of their true classes (n), and these classes (n)."""
        here = labels[where].long().flatten()
        counted = (here != ignore).nonzero()[:, 0]
        true, found = here[counted], tile[0].flatten(1)[:, counted].softmax(0)
        return found, found.gather(0, true[None])[0], true

    def look(tile: Tensor, where: Where) -> Tensor:
        found, of_true, true = chances(tile, where)
        common = torch.bincount(true, of_true, minlength=classes)
        return torch.stack([common, found.sum(1), torch.bincount(true, minlength=classes)])

    loss, number, by_common, by_found = dice_of(*pixels.sums(look))

    def slope(tile: Tensor, where: Where) -> Tensor:
        """A value with the same gradient as the loss."""
        found, of_true, true = chances(tile, where)
        return ((by_common[true] * of_true).sum() + (by_found @ found).sum())[None]

    return LossAndGradient(loss, number, pixels.sums_and_gradient(slope)[1] if wanted else None)


class _Mixer(NamedTuple):
    """A run of pixels along an axis."""

    pixels: slice
    cells: slice
    """The cells that they mix."""
    matrix: Tensor | None
    """Their weights (pixels cells); None: each pixel is one cell."""


class _Pixels:
    """Pixels of logits (B K h w)."""

    def __init__(self, logits: Tensor, geometry: Geometry):
        self.logits, self.geometry, (down, along) = logits.detach(), geometry, geometry.axes
        self.fine = down.fine and along.fine
        height = SIDE
        width = max(SIDE, SMALL // (SIDE * logits.shape[1]))
        if self.fine:
            height, width = max(1, SMALL // (along.pixels * logits.shape[1])), along.pixels
        rows, columns = _mixers(down, height), _mixers(along, width)
        self.pieces = list(product(range(len(logits)), rows, columns))

    def sums(self, function: Function) -> Tensor:
        """The values of all tiles, added up in an order that is always the same."""
        return added(each(lambda piece: function(*self._tile(*piece)), self.pieces))

    def sums_and_gradient(self, function: Function) -> tuple[Tensor, Tensor]:
        """The same, and the gradient of the first of them by the logits (B K h w)."""
        images, classes, *grid = self.logits.shape
        orders = [torch.from_numpy(axis.order.copy()) for axis in self.geometry.axes]
        cells = torch.zeros(images, classes, *map(len, orders))

        def work(piece: tuple[int, _Mixer, _Mixer]) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
            image, rows, columns = piece
            tile, where = self._tile(*piece)
            with torch.enable_grad():
                tile = tile.detach().requires_grad_()
                values = function(tile, where)
                (gradient,) = torch.autograd.grad(values[0], tile)
            if rows.matrix is not None:
                gradient = rows.matrix.T @ gradient
            if columns.matrix is not None:
                gradient = gradient @ columns.matrix
            here = cells[image : image + 1, :, rows.cells, columns.cells]
            if self.fine:  # no two tiles have the same cells
                here.copy_(gradient)
                return values.detach(), None
            return values.detach(), (here, gradient)

        values, gradients = zip(*each(work, self.pieces), strict=True)
        for here, gradient in filter(None, gradients):
            here += gradient
        if all(np.array_equal(axis.order, range(side)) for axis, side in zip(self.geometry.axes, grid, strict=True)):
            return added(values), cells
        whole = torch.zeros(self.logits.shape)
        whole[:, :, orders[0][:, None], orders[1]] = cells
        return added(values), whole

    def _tile(self, image: int, rows: _Mixer, columns: _Mixer) -> tuple[Tensor, Where]:
        logits = self.logits[image : image + 1].float()
        tile = cell_rows(logits, self.geometry, rows.cells)[..., columns.cells]  # 1 K n m
        if columns.matrix is not None:
            tile = tile @ columns.matrix.T
        if rows.matrix is not None:
            tile = rows.matrix @ tile
        return tile, (slice(image, image + 1), rows.pixels, columns.pixels)


def _mixers(axis: Axis, size: int) -> list[_Mixer]:
    """The pixels along an axis in runs of a size."""
    found = []
    for start in range(0, axis.pixels, size):
        pixels = slice(start, min(start + size, axis.pixels))
        if axis.fine:
            found.append(_Mixer(pixels, axis.cells_at(pixels), None))
        else:
            cells, matrix = axis.matrix(pixels)
            found.append(_Mixer(pixels, cells, torch.from_numpy(matrix)))
    return found
