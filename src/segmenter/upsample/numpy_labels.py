"""From grid logits to labels in NumPy alone, for clients of exported models: `labels`, as `upsample.labels` in torch.

An exported model that answers with grid logits sends a 256th of the full logits; the labels are computed here.
"""

import numpy as np
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

from segmenter.upsample.geometry import Geometry

BAND = 2_000_000
"""Pixel logits of a band of rows, where all classes are computed."""


def labels(logits: ndarray, geometry: Geometry) -> ndarray:
    """Logits (B*windows K h w) to labels (B H W, uint8, or uint16 above 256 classes).

    The first class wins a tie, and nan is the largest value.

    Raises:
        ValueError: the logits do not fit the geometry.
    """
    if logits.ndim != 4 or logits.shape[2:] != tuple(geometry.grid) or len(logits) % geometry.window_count:
        raise ValueError(
            f"logits of shape {logits.shape} do not fit a grid of {geometry.grid} "
            f"with {geometry.window_count} windows an image"
        )
    images = logits.astype(np.float32, copy=False).reshape(-1, *geometry.window_grid, *logits.shape[1:])
    out = np.empty((len(images), *geometry.size), np.uint8 if logits.shape[1] <= 256 else np.uint16)
    rows, columns = (len(axis.blocks.points.cells) for axis in geometry.axes)
    few = 8 * rows * columns <= geometry.size[0] * geometry.size[1]
    for image, result in zip(images, out, strict=True):
        fill = _fill_by_blocks if few and np.isfinite(image).all() else _fill_by_bands
        fill(image, geometry, result)
    return out


def _cells(image: ndarray, geometry: Geometry, rows: slice) -> ndarray:
    """Logits (R C K h w) of some rows of cells, in the order of the axes (rows columns K)."""
    down, along = (axis.order for axis in geometry.axes)
    windows, within = np.divmod(down[rows], geometry.grid[0])
    cells = image[windows, :, :, within].transpose(0, 1, 3, 2)  # rows C w K
    return cells.reshape(len(windows), -1, cells.shape[3])[:, along]


def _fill_by_blocks(image: ndarray, geometry: Geometry, out: ndarray) -> None:
    """Labels (H W) of finite logits, from the classes that can win in each block, as in `candidates`."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    slack = 16 * np.finfo(np.float32).eps * abs(image).max()
    blocks = np.empty((columns.count, rows.length * columns.length), out.dtype)
    for row in range(rows.count):
        low = rows.cells[row].min()
        cells = _cells(image, geometry, slice(low, rows.cells[row].max() + 1))
        possible = _possible(cells, geometry, row, low, slack)  # blocks K
        under = cells[rows.cells[row] - low][:, columns.cells].swapaxes(0, 1)  # blocks S T K
        under = under.reshape(columns.count, -1, cells.shape[2])
        weights = np.einsum("ps,bqt->bpqst", rows.weights[row % len(rows.weights)], columns.weights)
        weights = weights.reshape(len(weights), blocks.shape[1], -1)  # blocks or 1, L S*T
        blocks[:] = possible.argmax(1)[:, None]
        for block in np.flatnonzero(possible.sum(1) > 1):
            some = np.flatnonzero(possible[block])
            blocks[block] = some[(weights[block % len(weights)] @ under[block][:, some]).argmax(1)]
        pixels = rows.pixels(slice(row, row + 1))
        lines = blocks.reshape(columns.count, rows.length, -1).swapaxes(0, 1).reshape(rows.length, -1)
        out[pixels] = lines[rows.places[pixels] - row * rows.length][:, columns.places]


def _possible(cells: ndarray, geometry: Geometry, row: int, low: int, slack: float) -> ndarray:
    """From the cells of a row of blocks (rows columns K; the first row is `low`), which classes can win (blocks K)."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    here, points = rows.points_of(slice(row, row + 1)), columns.points
    values = (cells[rows.points.cells[here] - low] * rows.points.taps[here][..., None, None]).sum(1)
    values = sum(values[:, points.cells[:, tap]] * points.taps[:, tap, None] for tap in range(points.taps.shape[1]))
    values = sliding_window_view(values, points.size, 1)[:, :: points.step]  # points blocks K points
    return values.max((0, 3)) >= values.min((0, 3)).max(1, keepdims=True) - slack


def _fill_by_bands(image: ndarray, geometry: Geometry, out: ndarray) -> None:
    """Labels (H W) of any logits, with all classes at every pixel."""
    rows, columns = geometry.axes
    under, along = columns.matrix(slice(0, columns.pixels))
    step = max(1, BAND // (image.shape[2] * columns.pixels))
    for top in range(0, rows.pixels, step):
        pixels = slice(top, min(top + step, rows.pixels))
        cells, down = rows.matrix(pixels)
        out[pixels] = _mixed(_cells(image, geometry, cells)[:, under], down, along).argmax(2)


def _mixed(cells: ndarray, down: ndarray, along: ndarray) -> ndarray:
    """Cells (n m K) to pixels (r W K); one is not finite where a cell with a weight in it is not."""

    def mix(values: ndarray) -> ndarray:
        return np.einsum("Xx,YxK->YXK", along, np.einsum("Yy,yxK->YxK", down, values, optimize=True), optimize=True)

    finite = np.isfinite(cells)
    pixels = mix(np.where(finite, cells, 0))
    if not finite.all():
        kinds = (cells == np.inf, cells == -np.inf, np.isnan(cells))
        high, low, nan = (mix(kind.astype(np.float32)) > 0 for kind in kinds)
        pixels[high], pixels[low] = np.inf, -np.inf
        pixels[nan | (high & low)] = np.nan
    return pixels
