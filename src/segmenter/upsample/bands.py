"""Pixel logits of one image, tile by tile: no tensor has K x H x W elements."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segmenter.upsample.cells import budget, cell_rows, largest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact

TILE = 2**18
"""Elements of a tile: one megabyte, so that the operations on it find it in the cache."""
WIDTH = 64
"""Columns of a tile: they lie over few cells, and a product with few cells costs little."""
TOGETHER = 8
"""Neighbouring tiles that may be held in memory at full height."""


class Tiles:
    """Pixel logits of ONE image (windows K h w).

    A pixel is not finite where a cell with a weight in it is not: it is infinite, or nan where any cell is nan or
    infinities of both signs meet.
    """

    def __init__(self, image: Tensor, geometry: Geometry):
        image = image.float()
        self.geometry, self.classes = geometry, image.shape[1]
        self.finite = bool(largest(image).isfinite())
        if not self.finite:  # zero times nan would be nan: mix the finite numbers and the rest separately
            image = torch.cat([image.nan_to_num(0, 0, 0), image.isnan(), image == torch.inf, image == -torch.inf], 1)
        self.image, columns = image, geometry.axes[1]
        self.width = columns.pixels if columns.fine else WIDTH
        starts = range(0, columns.pixels, self.width)
        self.columns = [slice(left, min(left + self.width, columns.pixels)) for left in starts]
        self.weights = []
        for pixels in self.columns if not columns.fine else ():
            cells, matrix = columns.matrix(pixels)
            self.weights.append((cells, torch.from_numpy(matrix).to(image.device).T))

    def rows(self, whole: bool = False) -> Iterator[slice]:
        """Rows of pixels, from the top, for tiles of the usual size; fewer rows where bands are held `whole`."""
        tiles = -(-len(self.columns) // TOGETHER) if whole else 1
        step = max(1, budget(TILE, self.image.device) // (self.classes * self.width * tiles))
        for top in range(0, self.geometry.size[0], step):
            yield slice(top, min(top + step, self.geometry.size[0]))

    @exact
    def row(self, pixels: slice) -> Tensor:
        """Some rows of pixels, not yet enlarged along the columns (K r N)."""
        axis = self.geometry.axes[0]
        if axis.fine:
            return cell_rows(self.image, self.geometry, axis.cells_at(pixels))[0]
        rows, matrix = axis.matrix(pixels)
        cells = cell_rows(self.image, self.geometry, rows)[0]  # K n N
        return torch.from_numpy(matrix).to(cells.device) @ cells

    @exact
    def tile(self, row: Tensor, number: int) -> Tensor:
        """Such rows to the logits (K r c) of the tile with that number."""
        if self.weights:
            cells, weights = self.weights[number]
            tile = row[..., cells] @ weights
        else:
            tile = row[..., self.geometry.axes[1].cells_at(self.columns[number])]
        return tile if self.finite else _not_finite(tile)

    def band(self, rows: slice, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function's results for the tiles (K r c to ... r c) of some rows of pixels, joined along the columns."""
        row = self.row(rows)
        return torch.cat([function(self.tile(row, number)) for number in range(len(self.columns))], -1)


def _not_finite(tile: Tensor) -> Tensor:
    """Numbers, and the shares of nan, infinity and minus infinity (4K r c), to logits (K r c)."""
    numbers, nan, high, low = tile.unflatten(0, (4, -1))
    numbers = numbers.masked_fill(high > 0, torch.inf).masked_fill(low > 0, -torch.inf)
    return numbers.masked_fill((nan > 0) | ((high > 0) & (low > 0)), torch.nan)
