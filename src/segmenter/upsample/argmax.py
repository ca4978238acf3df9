"""From grid logits to labels: the argmax over classes at every pixel, most of whose logits are never made.

Every pixel of a block is a convex mix of the block's points. So a class can win there only if its largest value at a
point reaches the largest of the classes' smallest values. Of these candidates the pixels are made, and of no others.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.candidates import Candidates, in_rows
from segmenter.upsample.cells import budget, cells_of, check, cuda_kernels, largest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact

POINTS = 1_000_000
"""Logits at points that are looked at together: four megabytes."""


@torch.no_grad()
@exact
def labels(logits: Tensor, geometry: Geometry, dtype: torch.dtype = torch.int64) -> Tensor:
    """Logits (B*windows K h w) to labels (B H W); the first class wins a tie, and nan is the largest value.

    `dtype` is the labels' own; of a large photo they are smaller as torch.uint8 (to 256 classes) or torch.int32.
    """
    check(logits, geometry)
    result = torch.empty(len(logits) // geometry.window_count, *geometry.size, dtype=dtype, device=logits.device)
    for images, rows, part in label_bands(logits, geometry):
        result[images, rows] = part
    return result


def label_bands(logits: Tensor, geometry: Geometry) -> Iterator[tuple[slice, slice, Tensor]]:
    """Logits (B*windows K h w) to labels in bands: images, rows of pixels, and their labels (images rows W)."""
    kernels = cuda_kernels(logits.device)
    if kernels and largest(logits).isfinite():
        for part in _parts(logits, geometry):
            winners = kernels.labels(*cells_of(logits.float(), geometry, part), geometry, part)
            yield slice(None), geometry.axes[0].blocks.pixels(part), in_rows(winners, geometry, part)
        return
    for number, image in enumerate(logits.split(geometry.window_count)):
        for rows, part in _bands_of_one(image.float(), geometry):
            yield slice(number, number + 1), rows, part[None]


def _bands_of_one(image: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Tensor]]:
    """Logits of ONE image (windows K h w) to its labels in bands (rows, r W) from the top."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    peak, (height, width) = largest(image), geometry.size
    # Where points are hardly fewer than pixels, pruning costs more than it saves.
    if not peak.isfinite() or 8 * len(rows.points.cells) * len(columns.points.cells) > height * width:
        yield from Tiles(image, geometry).bands(lambda tile: tile.max(0).indices)
        return
    slack = 16 * torch.finfo(torch.float32).eps * peak  # rounding must never drop the winner
    for part in _parts(image, geometry):
        cells, low = cells_of(image, geometry, part)
        winners = Candidates(cells[0], low, geometry, part, slack).winners()
        yield rows.pixels(part), in_rows(winners[None], geometry, part)[0]


def _parts(logits: Tensor, geometry: Geometry) -> Iterator[slice]:
    """Rows of blocks, from the top, whose points are looked at together."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    each = len(logits) // geometry.window_count * logits.shape[1] * rows.points.step * len(columns.points.cells)
    step = max(1, budget(POINTS, logits.device) // each)
    for top in range(0, rows.count, step):
        yield slice(top, min(top + step, rows.count))
