"""Losses by torch's own operations on pixel logits, tile by tile.

What blocks save by sharing cells among all their places is nothing where the pixels are the cells, and less than
their bookkeeping costs where there are few classes.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.formulas import CrossEntropy, Found, added, dice_of, hardest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.threads import each

FEW = 3
"""Classes."""
SMALL = 2**16
"""Elements of a tile: torch's loss and its gradient take several times as much memory."""
Where = tuple[slice, slice, slice]
"""Images (one), rows and columns of a tile in the pixels (B H W)."""
Function = Callable[[Tensor, Where], Tensor]
"""Pixel logits of a tile (1 K r c) to values, of which the first is what the gradient is of."""


def suits(logits: Tensor, geometry: Geometry) -> bool:
    """Whether this is faster for logits (B*windows K h w) than working by blocks."""
    if logits.device.type != "cpu" or geometry.windows is not None:
        return False
    return logits.shape[1] <= FEW or all(axis.fine for axis in geometry.axes)


def cross_entropy(
    logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, options: CrossEntropy, wanted: bool
) -> Found:
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
        kept = hardest(chances, options)
        labels = labels if kept is None else labels.long().masked_fill(~kept, ignore)

    def loss(tile: Tensor, where: Where) -> Tensor:
        here = labels[where].long()
        found = F.cross_entropy(
            tile, here, weight, ignore_index=ignore, label_smoothing=options.smoothing, reduction="sum"
        )
        counted = here[here != ignore]
        return torch.stack([found, found.new_tensor(len(counted)) if weight is None else weight[counted].sum()])

    (total, divisor), gradient = pixels.sums_and_gradient(loss) if wanted else (pixels.sums(loss), None)
    return Found(total, divisor, gradient)


def dice(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, wanted: bool) -> Found:
    """The same with the soft Dice loss itself, and the number of pixels."""
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
        """What has the loss's gradient."""
        found, of_true, true = chances(tile, where)
        return ((by_common[true] * of_true).sum() + (by_found @ found).sum())[None]

    return Found(loss, number, pixels.sums_and_gradient(slope)[1] if wanted else None)


class _Pixels:
    """Pixels of logits (B K h w)."""

    def __init__(self, logits: Tensor, geometry: Geometry):
        self.shape, self.axes = logits.shape, geometry.axes
        self.images = each(lambda image: Tiles(image, geometry), logits.detach().split(1))
        self.pieces = list(product(range(len(self.images)), self.images[0].rows(size=SMALL)))

    def sums(self, function: Function) -> Tensor:
        """The values of all tiles, added up in an order that is always the same."""

        def work(piece: tuple[int, slice]) -> Tensor:
            image, rows = piece
            tiles = self.images[image]
            row = tiles.row(rows)
            return added([function(tile, where) for tile, where in _tiles(tiles, row, image, rows)])

        return added(each(work, self.pieces))

    def sums_and_gradient(self, function: Function) -> tuple[Tensor, Tensor]:
        """The same, and the gradient of the first of them by the logits (B K h w)."""

        def work(piece: tuple[int, slice]) -> tuple[Tensor, slice, Tensor]:
            image, rows = piece
            tiles = self.images[image]
            row, values = tiles.row(rows), []
            back = row.new_zeros(self.shape[1], *row.shape[1:])
            for number, (tile, where) in enumerate(_tiles(tiles, row, image, rows)):
                with torch.enable_grad():
                    tile = tile.detach().requires_grad_()
                    value = function(tile, where)
                    gradient = torch.autograd.grad(value[0], tile)[0]
                values.append(value.detach())
                tiles.tile_back(gradient[0], number, back)
            return added(values), *tiles.row_back(back, rows)

        found = each(work, self.pieces)
        down, along = (torch.from_numpy(axis.order.copy()) for axis in self.axes)
        cells = torch.zeros(*self.shape[:2], len(down), len(along))
        for (image, _), (_, rows, gradient) in zip(self.pieces, found, strict=True):
            cells[image, :, rows] += gradient
        whole = torch.zeros(self.shape)
        whole[:, :, down[:, None], along] = cells
        return added([values for values, _, _ in found]), whole


def _tiles(tiles: Tiles, row: Tensor, image: int, rows: slice):
    """The tiles of a row, each with where it is."""
    for number, columns in enumerate(tiles.columns):
        yield tiles.tile(row, number)[None], (slice(image, image + 1), rows, columns)
