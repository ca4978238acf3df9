"""From grid logits to labels: the argmax over classes at every pixel, most of whose logits are never made.

Every pixel of a block is a convex mix of the block's points. So a class can win there only if its largest value at a
point reaches the largest of the classes' smallest values. Of these candidates the pixels are made, and of no others.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.candidates import Candidates, in_rows
from segmenter.upsample.cells import budget, cells_of, check, cuda_kernels, largest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.threads import apart, each

POINTS = 2**17
"""Logits at points that are looked at together: half a megabyte, so that threads have several parts to share."""
_Find = Callable[[slice], tuple[slice, Tensor]]


@torch.no_grad()
@exact
def labels(logits: Tensor, geometry: Geometry, dtype: torch.dtype = torch.int64) -> Tensor:
    """Logits (B*windows K h w) to labels (B H W); the first class wins a tie, and nan is the largest value.

    `dtype` is the labels' own; of a large photo they are smaller as torch.uint8 (to 256 classes) or torch.int32.
    """
    check(logits, geometry)
    result = torch.empty(len(logits) // geometry.window_count, *geometry.size, dtype=dtype, device=logits.device)

    def keep(images: slice, rows: slice, found: Tensor) -> None:
        result[images, rows] = found

    with_labels(logits, geometry, keep)
    return result


def with_labels(logits: Tensor, geometry: Geometry, function: Callable[[slice, slice, Tensor], object]) -> None:
    """Calls a function, in several threads, with images, rows of pixels and their labels (images rows W).

    Each row of each of the images of the logits (B*windows K h w) comes once.
    """
    kernels = cuda_kernels(logits.device)
    if kernels and largest(logits).isfinite():
        for part in _parts(logits, geometry):
            winners = kernels.labels(*cells_of(logits.float(), geometry, part), geometry, part)
            function(slice(None), geometry.axes[0].blocks.pixels(part), in_rows(winners, geometry, part))
        return

    def work(piece: tuple[int, slice, _Find]) -> None:
        number, some, find = piece
        rows, found = find(some)
        function(slice(number, number + 1), rows, found[None])

    def work_on_all() -> None:
        found = each(lambda image: _divided(image.float(), geometry), logits.split(geometry.window_count))
        each(work, [(number, piece, find) for number, (pieces, find) in enumerate(found) for piece in pieces])

    apart(logits.device, work_on_all)


def _divided(image: Tensor, geometry: Geometry) -> tuple[Iterator[slice], _Find]:
    """Pieces of ONE image (windows K h w), and what makes one of them rows of pixels and their labels (r W)."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    peak, (height, width) = largest(image), geometry.size
    # Where points are hardly fewer than pixels, pruning costs more than it saves.
    if not peak.isfinite() or 8 * len(rows.points.cells) * len(columns.points.cells) > height * width:
        tiles = Tiles(image, geometry)
        return tiles.rows(), lambda some: (some, tiles.band(some, lambda tile: tile.max(0).indices))
    slack = 16 * torch.finfo(torch.float32).eps * peak  # rounding must never drop the winner

    def find(part: slice) -> tuple[slice, Tensor]:
        cells, low = cells_of(image, geometry, part)
        winners = Candidates(cells[0], low, geometry, part, slack).winners()
        return rows.pixels(part), in_rows(winners[None], geometry, part)[0]

    return _parts(image, geometry), find


def _parts(logits: Tensor, geometry: Geometry) -> Iterator[slice]:
    """Rows of blocks, from the top, whose points are looked at together."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    row = len(logits) // geometry.window_count * logits.shape[1] * rows.points.step * len(columns.points.cells)
    step = max(1, budget(POINTS, logits.device) // row)
    for top in range(0, rows.count, step):
        yield slice(top, min(top + step, rows.count))
