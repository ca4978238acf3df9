"""Blocks of pixels along an axis, the cells they mix, and the points they lie between; imports NumPy alone.

Along a run of pixels between the same cells the mix of those cells changes evenly, whatever the chain of operations
was: all of the run lies between its two ends. A block is a run, several short ones, or a part of a long one; the
values at its points, which are cells or ends of runs, bound the values at all of its pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

SHORT, LONG = 8, 24
"""Pixels: shorter runs are joined, longer ones divided."""


@dataclass(frozen=True, eq=False)
class Points:
    """What the pixels of blocks lie between: those of a block are `size` points from block * step on."""

    cells: ndarray
    """Cells that each point mixes (points T)."""
    taps: ndarray
    """Their weights (points T float32), which sum to one."""
    step: int
    size: int


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of pixels, each a convex mix of S cells; all have L places, of which some may be unused."""

    cells: ndarray
    """Cells of each block (blocks S); at the border one may occur more than once."""
    weights: ndarray
    """Their weights at each place (blocks L S float32), or (1 L S) where they are the same in all blocks."""
    places: ndarray
    """Place of each pixel, block * L + place in the block, ascending."""
    points: Points

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.cells)

    @property
    def length(self) -> int:
        """Places of a block, L."""
        return self.weights.shape[1]

    @property
    def size(self) -> int:
        """Cells of a block, S."""
        return self.cells.shape[1]

    def pixels(self, blocks: slice) -> slice:
        """The pixels of a run of blocks."""
        first, last = np.searchsorted(self.places, (blocks.start * self.length, blocks.stop * self.length))
        return slice(int(first), int(last))

    def points_of(self, blocks: slice) -> slice:
        """The points of a run of blocks."""
        return slice(blocks.start * self.points.step, (blocks.stop - 1) * self.points.step + self.points.size)


def make_blocks(first: ndarray, taps: ndarray, count: int, runs: ndarray, plain: bool) -> Blocks:
    """Pixels that mix T of `count` cells, from `first` on, with `taps` (pixels T), and borders of runs, to blocks.

    `first` may lie beyond the border cells, which then stand in: so the runs there are like all others. `plain` means
    one window without a further resize, whose runs follow each other regularly.
    """
    parts = -(-np.diff(runs) // LONG)
    divided = [
        start + (end - start) * part // number
        for start, end, number in zip(runs[:-1], runs[1:], parts, strict=True)
        for part in range(number)
    ]
    runs = np.array([*divided, runs[-1]])
    borders = _borders(runs, first, taps.shape[1], plain)
    low, weights = _by_cells(first, taps, borders)
    cells = low[:, None] + np.arange(weights.shape[2])
    points = _between_ends(first, taps, runs, borders)
    # Neighbouring blocks share cells; ends of runs are nearer to what lies between them.
    if plain and cells.shape[1] < points.size + (parts.max() == 1) and len(np.unique(np.diff(low))) <= 1:
        step = int(low[1] - low[0]) if len(low) > 1 else 1
        own = np.arange(low[0], cells[-1, -1] + 1)[:, None]
        points = Points(own, np.ones(own.shape, np.float32), step, cells.shape[1])
    points = Points(np.clip(points.cells, 0, count - 1), points.taps, points.step, points.size)
    places = _places(borders, weights.shape[1])
    return Blocks(np.clip(cells, 0, count - 1), _alike(weights, places).astype(np.float32), places, points)


def _borders(runs: ndarray, first: ndarray, taps: int, plain: bool) -> ndarray:
    """Borders of blocks of whole runs: at least SHORT pixels each, unless they mix many more cells."""
    pixels = runs[-1]
    if plain:  # a fixed number of runs, which makes blocks alike
        a_pixel = (len(runs) - 1) / pixels
        a_cell = pixels / (first[-1] - first[0] + 1)
        return np.append(runs[: -1 : max(1, round(SHORT * min(a_pixel, a_cell)))], pixels)
    borders = [0]
    for border in runs[1:-1]:
        cells = first[border - 1] - first[borders[-1]] + taps
        if border - borders[-1] >= SHORT or cells >= 2 * SHORT:
            borders.append(border)
    return np.array([*borders, pixels])


def _places(borders: ndarray, length: int) -> ndarray:
    """Place of each pixel; a short first block ends at its last place, the others begin at their first one."""
    sizes = np.diff(borders)
    begin = np.arange(len(sizes)) * length - borders[:-1]
    begin[0] = length - sizes[0]
    return np.arange(borders[-1]) + np.repeat(begin, sizes)


def _by_cells(first: ndarray, taps: ndarray, borders: ndarray) -> tuple[ndarray, ndarray]:
    """The first of the S cells of each block, and their weights (blocks L S)."""
    sizes, low = np.diff(borders), np.minimum.reduceat(first, borders[:-1])
    offset = (first - np.repeat(low, sizes))[:, None] + np.arange(taps.shape[1])
    weights = np.zeros((len(sizes) * sizes.max(), offset.max() + 1))
    weights[_places(borders, sizes.max())[:, None], offset] = taps
    return low, weights.reshape(len(sizes), sizes.max(), -1)


def _between_ends(first: ndarray, taps: ndarray, runs: ndarray, borders: ndarray) -> Points:
    """Both ends of each run in a block: its first and its last pixel, or once where they are the same."""
    start, last = runs[:-1], runs[1:] - 1
    block = np.searchsorted(borders, start, "right") - 1
    number = 1 + (last > start)
    before = np.cumsum(number) - number
    before -= before[np.searchsorted(start, borders[:-1])][block]  # ends of earlier runs in the block
    pixels = np.repeat(borders[1:, None] - 1, (before + number).max(), 1)
    pixels[block, before] = start
    pixels[block, before + number - 1] = last
    size, pixels = pixels.shape[1], pixels.ravel()
    return Points(first[pixels, None] + np.arange(taps.shape[1]), taps[pixels].astype(np.float32), size, size)


def _alike(weights: ndarray, places: ndarray) -> ndarray:
    """The weights of all blocks (blocks L S), or of one (1 L S) if they fit all pixels."""
    used = np.zeros(weights.shape[:2], bool)
    used.flat[places] = True
    model = weights[used.sum(1).argmax()]
    return model[None] if (~used | (abs(weights - model).max(2) < 1e-12)).all() else weights
