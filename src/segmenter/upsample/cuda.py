"""Triton kernels for CUDA: labels, and the loss with its gradient. A program does one block of pixels, class by class.

All pixels of a block mix the same few cells, so a class costs a program only a few numbers from the cache. Each
program writes its own part of the gradient; the parts are added afterwards, always in the same order. The kernels must
agree with the rest of this package, which takes their place on other devices.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from segmenter.upsample.geometry import Geometry


@triton.jit
def _pixels(
    image, row_cells, column_cells, down, along, width, classes, P, Q,
    S: tl.constexpr, T: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Logits of one class at the places of a block; `image` is where the image's first cell has that class."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    tile = tl.zeros([ROWS, COLUMNS], tl.float32)
    for s in tl.static_range(S):
        line, row = tl.zeros([COLUMNS], tl.float32), tl.load(row_cells + s) * width
        for t in tl.static_range(T):
            value = tl.load(image + (row + tl.load(column_cells + t)) * classes)
            line += value * tl.load(along + columns * T + t, columns < Q, 0.0)
        tile += tl.load(down + rows * S + s, rows < P, 0.0)[:, None] * line[None, :]
    return tile


@triton.jit
def _labels(
    cells, row_cells, column_cells, down, along, out, height, width, classes, down_step, along_step, P, Q,
    S: tl.constexpr, T: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    block = (image * tl.num_programs(1) + row) * tl.num_programs(0) + column
    cells += image * height * width * classes
    row_cells, column_cells = row_cells + row * S, column_cells + column * T
    down, along = down + row * down_step, along + column * along_step
    best = _pixels(cells, row_cells, column_cells, down, along, width, classes, P, Q, S, T, ROWS, COLUMNS)
    winner = tl.zeros([ROWS, COLUMNS], tl.int32)
    for label in range(1, classes):
        value = _pixels(cells + label, row_cells, column_cells, down, along, width, classes, P, Q, S, T, ROWS, COLUMNS)
        winner = tl.where(value > best, label, winner)  # the first of equals stays
        best = tl.maximum(best, value)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (rows < P)[:, None] & (columns < Q)[None, :]
    tl.store(out + block * P * Q + rows[:, None] * Q + columns[None, :], winner, inside)


@triton.jit
def _cross_entropy(
    cells, row_cells, column_cells, down, along, labels, true, every, rest, weight, losses, gradient,
    height, width, classes, down_step, along_step, P, Q,
    S: tl.constexpr, T: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WANTED: tl.constexpr,
):  # fmt: skip
    column, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    block = (image * tl.num_programs(1) + row) * tl.num_programs(0) + column
    cells += image * height * width * classes
    row_cells, column_cells = row_cells + row * S, column_cells + column * T
    down, along = down + row * down_step, along + column * along_step
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (rows < P)[:, None] & (columns < Q)[None, :]
    places = block * P * Q + rows[:, None] * Q + columns[None, :]
    label, of_true = tl.load(labels + places, inside, 0), tl.load(true + places, inside, 0.0)
    of_every, of_rest = tl.load(every + places, inside, 0.0), tl.load(rest + places, inside, 0.0)
    peak = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
    target = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(classes):
        value = _pixels(cells + k, row_cells, column_cells, down, along, width, classes, P, Q, S, T, ROWS, COLUMNS)
        peak = tl.maximum(peak, value)
        target += (tl.where(label == k, of_true, 0.0) + of_rest * tl.load(weight + k)) * value
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(classes):
        value = _pixels(cells + k, row_cells, column_cells, down, along, width, classes, P, Q, S, T, ROWS, COLUMNS)
        total += tl.exp(value - peak)
    peak += tl.log(total)
    tl.store(losses + block, tl.sum(tl.sum(of_every * peak - target, 1), 0))
    if WANTED:
        for k in range(classes):
            value = _pixels(cells + k, row_cells, column_cells, down, along, width, classes, P, Q, S, T, ROWS, COLUMNS)
            slope = of_every * tl.exp(value - peak)
            slope -= tl.where(label == k, of_true, 0.0) + of_rest * tl.load(weight + k)
            for s in tl.static_range(S):
                line = tl.sum(slope * tl.load(down + rows * S + s, rows < P, 0.0)[:, None], 0)
                for t in tl.static_range(T):
                    part = tl.sum(line * tl.load(along + columns * T + t, columns < Q, 0.0), 0)
                    tl.store(gradient + ((block * S + s) * T + t) * classes + k, part)


class _Call:
    """The arguments of both kernels for cells (B rows columns K; the first row is `low`) and some rows of blocks."""

    def __init__(self, cells: Tensor, low: int, geometry: Geometry, part: slice):
        rows, columns = (axis.blocks for axis in geometry.axes)
        down = rows.weights if len(rows.weights) == 1 else rows.weights[part]
        arrays = (rows.cells[part] - low, columns.cells, down, columns.weights)
        self.tensors = (cells, *(torch.from_numpy(array).to(cells.device) for array in arrays))
        self.shape = (len(cells), part.stop - part.start, columns.count)
        self.places = (rows.length, columns.length)
        steps = [0 if len(weights) == 1 else weights[0].size for weights in (down, columns.weights)]
        self.sizes = (*cells.shape[1:], *steps, *self.places)
        self.constants = {
            "S": rows.size,
            "T": columns.size,
            "ROWS": triton.next_power_of_2(rows.length),
            "COLUMNS": triton.next_power_of_2(columns.length),
            "num_warps": 1 if rows.length * columns.length <= 512 else 4,  # sums within a warp need no waiting
        }


def labels(cells: Tensor, low: int, geometry: Geometry, part: slice) -> Tensor:
    """Logits of the cells of some rows of blocks to labels (B blocks blocks P*Q)."""
    call = _Call(cells, low, geometry, part)
    dtype = torch.uint8 if cells.shape[3] <= 256 else torch.int32
    out = torch.empty(*call.shape, call.places[0] * call.places[1], dtype=dtype, device=cells.device)
    with torch.cuda.device_of(cells):  # Triton starts kernels on the current device
        _labels[call.shape[::-1]](*call.tensors, out, *call.sizes, **call.constants)
    return out


def cross_entropy(
    cells: Tensor,
    low: int,
    geometry: Geometry,
    labels: Tensor,
    target: tuple[Tensor, Tensor, Tensor],
    weight: Tensor,
    gradient: Tensor | None,
) -> Tensor:
    """Logits of the cells of all blocks and labels (B blocks blocks P*Q) to the sum of a loss.

    At each place it is every * log sum exp x - true * x[label] - rest * sum weight * x, where `target` is (true,
    every, rest), each as the labels. The gradient is written, where one is given (B blocks blocks S T K).
    """
    call = _Call(cells, low, geometry, slice(0, labels.shape[1]))
    losses = cells.new_empty(call.shape)
    given = [tensor.contiguous() for tensor in (labels, *target, weight)]
    with torch.cuda.device_of(cells):
        _cross_entropy[call.shape[::-1]](
            *call.tensors, *given, losses, gradient, *call.sizes, **call.constants, WANTED=gradient is not None
        )
    return losses.sum()
