"""From grid logits to labels: the argmax over classes at every pixel, most of whose logits are never computed.

Every pixel of a block is a convex mix of the block's points. So a class can win there only if its largest value at a
point reaches the largest of the classes' smallest values. Only these candidates are evaluated at the pixels.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from segmenter.upsample.bands import Tiles
from segmenter.upsample.candidates import Candidates, in_rows
from segmenter.upsample.cells import budget, cells_of, check, cuda_kernels, largest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.threads import each, in_own_thread

POINTS = 2**20
"""Logits at points that are processed together, 4 MB; smaller parts took half as long again."""
_LabelPiece = Callable[[slice], tuple[slice, Tensor]]
"""One piece of an image to its rows of pixels and their labels (r W)."""


@torch.no_grad()
@exact
def labels(logits: Tensor, geometry: Geometry, dtype: torch.dtype = torch.int64) -> Tensor:
    """Logits (B*windows K h w) to labels (B H W); the first class wins a tie, and nan is the largest value.

    `dtype` is that of the labels: torch.uint8 (up to 256 classes) or torch.int32 saves memory on a large photo.
    """
    check(logits, geometry)
    result = torch.empty(len(logits) // geometry.window_count, *geometry.size, dtype=dtype, device=logits.device)

    def store(images: slice, rows: slice, labels: Tensor) -> None:
        result[images, rows] = labels

    with_labels(logits, geometry, store)
    return result


def with_labels(logits: Tensor, geometry: Geometry, function: Callable[[slice, slice, Tensor], object]) -> None:
    """Calls a function, from several threads, with images, rows of pixels and their labels (images rows W).

    Every row of every image of the logits (B*windows K h w) is passed exactly once.
    """
    kernels = cuda_kernels(logits.device)
    if kernels and largest(logits).isfinite():
        for part in _parts(logits, geometry):
            winners = kernels.labels(*cells_of(logits.float(), geometry, part), geometry, part)
            function(slice(None), geometry.axes[0].blocks.pixels(part), in_rows(winners, geometry, part))
        return

    def work(item: tuple[int, slice, _LabelPiece]) -> None:
        number, piece, label_piece = item
        rows, labels = label_piece(piece)
        function(slice(number, number + 1), rows, labels[None])

    def work_on_all() -> None:
        divided = each(lambda image: _divided(image.float(), geometry), logits.split(geometry.window_count))
        each(work, [(number, piece, label) for number, (pieces, label) in enumerate(divided) for piece in pieces])

    in_own_thread(logits.device, work_on_all)


def _divided(image: Tensor, geometry: Geometry) -> tuple[Iterator[slice], _LabelPiece]:
    """The pieces of ONE image (windows K h w), and the function that labels one of them."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    peak, (height, width) = largest(image), geometry.size
    # Where points are hardly fewer than pixels, pruning costs more than it saves.
    if not peak.isfinite() or 8 * len(rows.points.cells) * len(columns.points.cells) > height * width:
        tiles = Tiles(image, geometry)
        return tiles.rows(), lambda rows: (rows, tiles.band(rows, lambda tile: tile.max(0).indices))
    slack = 16 * torch.finfo(torch.float32).eps * peak  # rounding must never drop the winner

    def label_part(part: slice) -> tuple[slice, Tensor]:
        cells, low = cells_of(image, geometry, part)
        winners = Candidates(cells[0], low, geometry, part, slack).winners()
        return rows.pixels(part), in_rows(winners[None], geometry, part)[0]

    return _parts(image, geometry), label_part


def _parts(logits: Tensor, geometry: Geometry) -> Iterator[slice]:
    """Rows of blocks, from the top, whose points are processed together; parts are of one size, or nearly."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    row = len(logits) // geometry.window_count * logits.shape[1] * rows.points.step * len(columns.points.cells)
    parts = -(-rows.count * row // budget(POINTS, logits.device))
    step = -(-rows.count // min(parts, rows.count))
    for top in range(0, rows.count, step):
        yield slice(top, min(top + step, rows.count))
