"""Logits on the cells of a geometry, in the order of its axes, and at the points of its blocks."""

import importlib.util
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from segmenter.upsample.geometry import Geometry

FAR = -60.0
"""exp(FAR) is far above the smallest float32: sums of such numbers lose nothing."""


def budget(elements: int, device: torch.device) -> int:
    """How many elements to process together: as given on a CPU, to fit its cache; enough to fill other devices."""
    return elements if device.type == "cpu" else 64 * elements


def check(logits: Tensor, geometry: Geometry) -> None:
    """Raises ValueError unless logits (B*windows K h w) fit the geometry."""
    if logits.ndim != 4 or tuple(logits.shape[-2:]) != geometry.grid or len(logits) % geometry.window_count:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit a grid of {geometry.grid} "
            f"with {geometry.window_count} windows an image"
        )


def cell_rows(logits: Tensor, geometry: Geometry, rows: slice) -> Tensor:
    """Logits (B*windows K h w) to some rows of the images' cells in the order of the axes (B K rows columns)."""
    down, along = (axis.order for axis in geometry.axes)
    if geometry.windows is None:
        return taken(taken(logits, down[rows], 2), along, 3)
    height, down = geometry.grid[0], torch.from_numpy(down[rows]).to(logits.device)
    windows = logits.unflatten(0, (-1, *geometry.window_grid)).movedim(4, 2)  # B R h C K w
    return taken(windows[:, down // height, down % height].permute(0, 3, 1, 2, 4).flatten(3), along, 3)


def cells_of(logits: Tensor, geometry: Geometry, part: slice) -> tuple[Tensor, int]:
    """Logits (B*windows K h w) to the cells of some rows of blocks (B rows columns K), and the first of these rows."""
    cells = geometry.axes[0].blocks.cells[part]
    low, high = int(cells.min()), int(cells.max()) + 1
    cells = cell_rows(logits, geometry, slice(low, high))
    last = cells.new_empty(len(cells), *cells.shape[2:], cells.shape[1])
    for image, channels in zip(last.flatten(1, 2), cells.flatten(2), strict=True):
        image.copy_(channels.T)  # of two dimensions, which torch transposes in a quarter of the time
    return last, low


def at_points(cells: Tensor, geometry: Geometry, part: slice, low: int) -> Tensor:
    """Cells of some rows of blocks (rows columns K; the first row is `low`) to points (points points K)."""
    rows, columns = (axis.blocks for axis in geometry.axes)
    here = rows.points_of(part)
    values = _mixed(cells, rows.points.cells[here] - low, rows.points.taps[here], 0)
    return _mixed(values, columns.points.cells, columns.points.taps, 1)


def taken(values: Tensor, index: np.ndarray, dim: int) -> Tensor:
    """Some of the values along a dimension, without a copy where they are contiguous."""
    if (np.diff(index) == 1).all():
        return values.narrow(dim, int(index[0]), len(index))
    return values.index_select(dim, torch.from_numpy(index).to(values.device))


def _mixed(values: Tensor, cells: np.ndarray, taps: np.ndarray, dim: int) -> Tensor:
    """Mixes T neighbours along a dimension for each point; cells and taps (points T)."""
    if taps.shape[1] == 1:  # the points are cells
        return taken(values, cells[:, 0], dim)
    shape = [-1 if i == dim else 1 for i in range(values.ndim)]
    weights = torch.from_numpy(taps).to(values.device)
    return sum(taken(values, cells[:, i], dim) * weights[:, i].view(shape) for i in range(taps.shape[1]))


def largest(logits: Tensor) -> Tensor:
    """The largest magnitude in a tensor; nan or infinite where one of its elements is."""
    low, high = logits.aminmax()
    return torch.maximum(-low, high)


def normalized(logits: Tensor) -> tuple[Tensor, bool]:
    """Logits (B*windows K h w) minus each cell's largest one, and whether none is far below it.

    The probabilities at the pixels stay the same, since the same number is subtracted from all classes of a cell, and
    no pixel's logit is above zero. Where none is far below, exponentials need no other shift.
    """
    logits = logits.float()
    shifted = logits - logits.amax(1, keepdim=True)
    if not shifted.amin() >= FAR:  # or it is nan
        return logits, False
    return shifted, True


def cuda_kernels(device: torch.device) -> ModuleType | None:
    """Our Triton kernels, where they can run."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("segmenter.upsample.cuda")
