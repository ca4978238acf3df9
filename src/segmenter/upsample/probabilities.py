"""Class probabilities at every pixel, and their mean over passes (scales and mirror images).

Source: Segmenter's published evaluation: logits are averaged over windows, probabilities over passes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.cells import check, normalized
from segmenter.upsample.geometry import Geometry

Passes = Sequence[tuple[Tensor, Geometry]]


def mean_probabilities(passes: Passes) -> Iterator[tuple[slice, Tensor]]:
    """Passes over ONE image, each (logits windows K h w, geometry), to (rows, probabilities K r W) in bands.

    Raises:
        ValueError: the passes end at different sizes, or one holds several images.
    """
    mean = _Mean(passes)
    for rows in mean.first.rows(whole=True):
        yield rows, torch.cat([tile for _, tile in mean.tiles(rows)], 2)


def labels_of_mean(passes: Passes, dtype: torch.dtype = torch.int64) -> Tensor:
    """Passes over ONE image to the labels (H W) of their mean probabilities; `dtype` as in `labels`."""
    mean = _Mean(passes)
    logits, geometry = passes[0]
    result = torch.empty(geometry.size, dtype=dtype, device=logits.device)
    for rows in mean.first.rows():
        for columns, tile in mean.tiles(rows):
            result[rows, columns] = tile.max(0).indices.to(dtype)
    return result


class _Mean:
    """Mean probabilities of passes over one image, tile by tile."""

    def __init__(self, passes: Passes):
        if len({geometry.size for _, geometry in passes}) != 1:
            raise ValueError(f"all passes must end at one size, not {[g.size for _, g in passes]}")
        self.passes: list[tuple[Tiles, bool]] = []
        for logits, geometry in passes:
            check(logits, geometry)
            if len(logits) != geometry.window_count:
                raise ValueError(f"{len(logits)} windows of logits for one image of {geometry.window_count} windows")
            image, bounded = normalized(logits.detach())
            self.passes.append((Tiles(image, geometry), bounded))
        self.first = self.passes[0][0]

    def tiles(self, rows: slice) -> Iterator[tuple[slice, Tensor]]:
        """Some rows of pixels to tiles (columns, mean probabilities K r c) from the left."""
        each = [tiles.row(rows) for tiles, _ in self.passes]
        for number, columns in enumerate(self.first.columns):
            yield columns, self._tile(each, number)

    def _tile(self, rows: list[Tensor], number: int) -> Tensor:
        """Rows of all passes to the mean probabilities (K r c) of their columns of that number."""
        mean = None
        for row, (tiles, bounded) in zip(rows, self.passes, strict=True):
            tile = tiles.tile(row, number)
            if not bounded:
                tile -= tile.amax(0)
            tile.exp_()
            share = 1 / (len(rows) * tile.sum(0))
            mean = tile.mul_(share) if mean is None else mean.addcmul_(tile, share)
        return mean
