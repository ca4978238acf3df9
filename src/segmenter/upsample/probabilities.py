"""Class probabilities at every pixel, and their mean over passes (scales and mirror images).

A temperature T makes p^(1/T) / sum p^(1/T) of the mean p; of one pass that is the softmax of its logits divided by T.
Sources: Segmenter's published evaluation, where logits are averaged over windows and probabilities over passes; for the
temperature arXiv 1706.04599, which has one pass.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.cells import check, normalized
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.threads import each, in_own_thread

Passes = Sequence[tuple[Tensor, Geometry]]

LOG2_E = math.log2(math.e)
"""Of the cells, so that e^x is 2^x at the pixels, which torch computes in a quarter of the time."""


@torch.compiler.disable
def mean_probabilities(passes: Passes, temperature: float = 1.0) -> Iterator[tuple[slice, Tensor]]:
    """Passes over ONE image, each (logits windows K h w, geometry), to (rows, probabilities K r W) in bands.

    Raises:
        ValueError: the temperature is not above 0; the passes end at different sizes, or one holds several images.
    """
    mean = Mean(passes, temperature)
    for rows in mean.first.rows(whole=True):
        yield rows, mean.band(rows)


@exact
def labels_of_mean(passes: Passes, dtype: torch.dtype = torch.int64) -> Tensor:
    """Passes over ONE image to the labels (H W) of their mean probabilities; `dtype` as in `labels`."""
    mean = Mean(passes)
    logits, geometry = passes[0]
    result = torch.empty(geometry.size, dtype=dtype, device=logits.device)

    def fill(rows: slice, columns: slice, tile: Tensor) -> None:
        result[rows, columns] = tile.max(0).indices.to(dtype)

    mean.each_tile(fill)
    return result


class Mean:
    """Mean probabilities of passes over one image, tile by tile."""

    def __init__(self, passes: Passes, temperature: float = 1.0):
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature is {temperature}; it must be above 0")
        if len({geometry.size for _, geometry in passes}) != 1:
            raise ValueError(f"all passes must end at one size, not {[g.size for _, g in passes]}")
        for logits, geometry in passes:
            check(logits, geometry)
            if len(logits) != geometry.window_count:
                raise ValueError(f"{len(logits)} windows of logits for one image of {geometry.window_count} windows")
        self.device, self.alone, self.temperature = passes[0][0].device, len(passes) == 1, temperature
        if self.alone:
            passes = [(logits.float() / temperature, geometry) for logits, geometry in passes]
        self.passes: list[tuple[Tiles, bool]] = in_own_thread(self.device, lambda: each(_tiles, passes))
        self.first = self.passes[0][0]

    @exact
    def band(self, rows: slice) -> Tensor:
        """Mean probabilities (K r W) of some rows of pixels, at the temperature."""
        tiles = in_own_thread(self.device, lambda: self._tiles_of(rows))
        return torch.cat(tiles, 2)

    def _tiles_of(self, rows: slice) -> list[Tensor]:
        parts = self._rows(rows)
        return each(lambda number: self.tempered(self._tile(parts, number)), range(len(self.first.columns)))

    def each_tile(self, function: Callable[[slice, slice, Tensor], object]) -> None:
        """Calls a function, from several threads, with rows, columns and mean probabilities (K r c) of every tile.

        Those of several passes are not yet brought to the temperature.
        """

        def work(rows: slice) -> None:
            parts = self._rows(rows)
            for number, columns in enumerate(self.first.columns):
                function(rows, columns, self._tile(parts, number))

        in_own_thread(self.device, lambda: each(work, self.first.rows()))

    def tempered(self, tile: Tensor) -> Tensor:
        """The probabilities (K r c) of a tile, which are overwritten, at the temperature."""
        if self.alone or self.temperature == 1:
            return tile
        tile /= tile.amax(0)  # no power of the largest one underflows
        tile.log2_().mul_(1 / self.temperature).exp2_()
        return tile.div_(tile.sum(0))

    def _rows(self, rows: slice) -> list[Tensor]:
        """Some rows of pixels of each pass, not yet enlarged along the columns (K r N)."""
        return [tiles.row(rows) for tiles, _ in self.passes]

    def _tile(self, rows: list[Tensor], number: int) -> Tensor:
        """Rows of all passes to the mean probabilities (K r c) of the tile with that number."""
        mean = None
        for row, (tiles, bounded) in zip(rows, self.passes, strict=True):
            tile = tiles.tile(row, number)
            if not bounded:
                tile -= tile.amax(0)
            tile.exp2_()
            share = 1 / (len(rows) * tile.sum(0))
            mean = tile.mul_(share) if mean is None else mean.addcmul_(tile, share)
        return mean


def _tiles(one: tuple[Tensor, Geometry]) -> tuple[Tiles, bool]:
    """The pixel logits of a pass, and whether their exponentials need no other shift."""
    image, bounded = normalized(one[0].detach())
    return Tiles(image * LOG2_E, one[1]), bounded
