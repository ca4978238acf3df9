"""One axis of a geometry, in NumPy alone: the cells that every pixel mixes.

Enlarging, cropping, averaging overlapping windows and a last resize are linear along each axis, so that a pixel is a
convex mix of a few neighbouring cells whatever the chain of operations was.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from segmenter.upsample.blocks import Blocks, make_blocks


@dataclass(frozen=True, eq=False)
class Axis:
    """Pixels along one axis as convex mixes of T neighbouring cells; cells of all windows are ordered by position."""

    order: ndarray
    """Window * grid + cell of each cell (N), without those that no pixel mixes."""
    first: ndarray
    """First of the T cells of each pixel (pixels), 0 to N - T."""
    taps: ndarray
    """Their weights (pixels T float64)."""
    blocks: Blocks

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return len(self.first)

    @cached_property
    def fine(self) -> bool:
        """Whether each pixel is exactly one cell, and neighbouring pixels are neighbouring cells."""
        return bool((self.taps.max(1) == 1).all() and (np.diff(self._heaviest) == 1).all())

    def cells_at(self, pixels: slice) -> slice:
        """The cells that coincide with a run of pixels, on a fine axis."""
        return slice(pixels.start + int(self._heaviest[0]), pixels.stop + int(self._heaviest[0]))

    @cached_property
    def _heaviest(self) -> ndarray:
        """The cell with the largest weight in each pixel (pixels)."""
        return self.first + self.taps.argmax(1)

    def matrix(self, pixels: slice) -> tuple[slice, ndarray]:
        """The cells that a run of pixels mixes, and their weights (pixels cells float32)."""
        first, taps = self.first[pixels], self.taps[pixels]
        low, count = first.min(), taps.shape[1]
        matrix = np.zeros((len(first), first.max() + count - low))
        for tap in range(count):
            matrix[np.arange(len(first)), first - low + tap] = taps[:, tap]
        return slice(low, low + matrix.shape[1]), matrix.astype(np.float32)


class _Mix(NamedTuple):
    """Pixels under construction; `run` stays the same along a run of pixels between the same cells."""

    cells: ndarray  # pixels T
    weights: ndarray  # pixels T
    run: ndarray  # pixels R


@lru_cache(maxsize=256)
def make_axis(
    grid: int, extent: int, side: int, starts: tuple[int, ...], final: int | None, mirrored: bool, align_corners: bool
) -> Axis:
    """The axis of a geometry from its sizes along it; `starts` are the first pixels of the windows."""
    mix = _window(grid, extent, side, align_corners)
    plain = starts == (0,) and final in (None, side)
    if plain:
        order, first, taps = np.arange(grid), mix.run[:, 0], mix.weights
    else:
        mix = _averaged(mix, starts, grid)
        if final not in (None, len(mix.cells)):
            mix = _resized(mix, final)
        pitch = (extent - 1) / max(grid - 1, 1) if align_corners else extent / grid
        order, first, taps = _ordered(mix, np.add.outer(starts, np.arange(grid) * pitch).ravel())
    runs = np.array([0, *np.flatnonzero((mix.run[1:] != mix.run[:-1]).any(1)) + 1, len(first)])
    if mirrored:
        order, first, taps = order[::-1].copy(), len(order) - taps.shape[1] - first[::-1], taps[::-1, ::-1]
        runs = runs[-1] - runs[::-1]
    blocks = make_blocks(first, taps, len(order), runs, plain)
    return Axis(order, *_clamped(first, taps, len(order)), blocks)


def _clamped(first: ndarray, taps: ndarray, count: int) -> tuple[ndarray, ndarray]:
    """First cell and taps of each pixel within `count` cells."""
    within = np.clip(first, 0, max(count - taps.shape[1], 0))
    clamped, pixels = np.zeros((len(taps), min(taps.shape[1], count))), np.arange(len(taps))
    for tap in range(taps.shape[1]):
        clamped[pixels, np.clip(first + tap, 0, count - 1) - within] += taps[:, tap]
    return within, clamped


def _between(old: int, new: int, align_corners: bool) -> tuple[ndarray, ndarray]:
    """For each of `new` samples the one of `old` before it, from -1 on, and how far beyond that it lies (0 to 1).

    As in torch's linear interpolation before it clamps; in whole numbers, so that equal positions give equal results.
    """
    sample = np.arange(new)
    if align_corners:
        place, unit = sample * (old - 1), max(new - 1, 1)
    else:
        place, unit = (2 * sample + 1) * old - new, 2 * new
    return place // unit, (place % unit) / unit


def _window(grid: int, extent: int, side: int, align_corners: bool) -> _Mix:
    """The pixels of one window."""
    before, beyond = (values[:side] for values in _between(grid, extent, align_corners))
    cells = np.clip(before[:, None] + [0, 1], 0, grid - 1)
    return _Mix(cells, np.stack([1 - beyond, beyond], 1), before[:, None])


def _averaged(window: _Mix, starts: tuple[int, ...], grid: int) -> _Mix:
    """The pixels of the canvas that windows are averaged on, each with two cells of every window that covers it."""
    side, size = len(window.cells), max(starts) + len(window.cells)
    over, filled = np.zeros(size, int), np.zeros(size, int)
    for start in starts:
        over[start : start + side] += 1
    most = over.max()
    cells, weights, run = np.zeros((size, most, 2), int), np.zeros((size, most, 2)), np.full((size, most), -2)
    for number, start in enumerate(starts):
        here = np.arange(start, start + side)
        cells[here, filled[here]] = window.cells + number * grid
        weights[here, filled[here]] = window.weights / over[here, None]
        run[here, filled[here]] = window.run[:, 0] + number * (grid + 1)
        filled[here] += 1
    return _Mix(cells.reshape(size, -1), weights.reshape(size, -1), run)


def _resized(canvas: _Mix, final: int) -> _Mix:
    """The pixels after a resize without align_corners."""
    before, beyond = _between(len(canvas.cells), final, align_corners=False)
    left, right = np.clip(before[:, None] + [0, 1], 0, len(canvas.cells) - 1).T
    clamped = left == right  # nothing changes beyond the outermost samples
    return _Mix(
        np.hstack([canvas.cells[left], canvas.cells[right]]),
        np.hstack([canvas.weights[left] * (1 - beyond[:, None]), canvas.weights[right] * beyond[:, None]]),
        np.hstack([canvas.run[left], canvas.run[right], clamped[:, None]]),
    )


def _ordered(mix: _Mix, position: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Used cells by position (N), and each pixel's first one of T neighbours in that order, with their weights."""
    used = np.unique(mix.cells[mix.weights > 0])
    order = used[np.argsort(position[used], kind="stable")]
    rank = np.zeros(len(position), int)
    rank[order] = np.arange(len(order))
    heaviest = np.take_along_axis(mix.cells, mix.weights.argmax(1)[:, None], 1)
    ranks = rank[np.where(mix.weights > 0, mix.cells, heaviest)]
    low = ranks.min(1)
    count = (ranks.max(1) - low).max() + 1
    first = np.minimum(low, len(order) - count)
    taps = np.zeros((len(ranks), count))
    np.add.at(taps, (np.arange(len(ranks))[:, None], ranks - first[:, None]), mix.weights)
    return order, first, taps
