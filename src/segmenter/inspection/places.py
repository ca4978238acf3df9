"""Points and classes of a photo to the window that the network saw them in, and to the patch of it.

A photo passes through the network in windows (inference/windows), and a patch attends only to the patches of its own
window. So whoever looks inside looks at one window, and says which.
"""

import difflib
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.classes import Classes
from segmenter.errors import UserError, listed, shown
from segmenter.inference.labels import Result
from segmenter.inference.passes import effective_settings, scaled
from segmenter.inference.tasks import TASKS
from segmenter.inference.windows import windows_of
from segmenter.model.segmenter import Segmenter

Point = tuple[int, int]  # y, x in pixels of the photo


class Box(NamedTuple):
    """A rectangle on a photo, in its pixels; not always whole ones."""

    top: float
    left: float
    bottom: float
    right: float


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a photo that passes through the network by itself."""

    pixels: Tensor
    """3 h w, 0 to 255, on the model's device, at the scale of the model."""
    box: Box
    """Where it lies on the photo."""
    row: int
    """Of windows, from 0; with `column` its place among `rows` x `columns` windows."""
    column: int
    rows: int
    columns: int
    grid: tuple[int, int]
    """Rows and columns of patches; those at the right and bottom may reach beyond the pixels."""
    patch_size: int

    def pixel(self, at: Point) -> tuple[int, int]:
        """Row and column of the window's pixel that a point of the photo, which is in the window, lies in."""
        found = []
        for side, where in enumerate(at):
            start, end, length = self.box[side], self.box[side + 2], self.pixels.shape[side + 1]
            found.append(min(max(int((where + 0.5 - start) * length / (end - start)), 0), length - 1))
        return found[0], found[1]

    def patch(self, at: Point) -> tuple[int, int]:
        """Row and column of the patch that a point of the photo, which is in the window, lies in."""
        row, column = self.pixel(at)
        return row // self.patch_size, column // self.patch_size

    def patch_box(self, row: int, column: int) -> Box:
        """Where a patch lies on the photo; what reaches beyond the window is cut off."""
        sides = []
        for side, index in enumerate((row, column)):
            start, end, length = self.box[side], self.box[side + 2], self.pixels.shape[side + 1]
            ends = (min(place * self.patch_size, length) for place in (index, index + 1))
            sides.append([start + pixel * (end - start) / length for pixel in ends])
        (top, bottom), (left, right) = sides
        return Box(top, left, bottom, right)

    def describe(self) -> str:
        """Which window it is, in words."""
        if self.rows == self.columns == 1:
            return "the whole photo"
        top, left, bottom, right = map(round, self.box)
        return (
            f"window {self.row * self.columns + self.column + 1} of {self.rows * self.columns} (row {self.row + 1} of "
            f"{self.rows}, column {self.column + 1} of {self.columns}): x {left} to {right}, y {top} to {bottom}"
        )


def windows_on(
    model: Segmenter, photo: np.ndarray, native: bool = False, inference: config.Inference | None = None
) -> list[Window]:
    """The windows of a photo (H W 3 uint8), row by row, as `predict` takes them with the same settings."""
    settings = effective_settings(model, inference, native)
    image = scaled(photo, model.recipe.augment, settings.native)  # 3 h w
    if TASKS[model.recipe.task].whole:
        size = tuple(image.shape[1:])
        settings = replace(settings, window=size, stride=size, enlarge=False)
    crops, geometry = windows_of(model, image, settings)
    return [
        Window(
            pixels,
            box,
            *divmod(number, geometry.window_grid[1]),
            *geometry.window_grid,
            model.encoder.grid(*pixels.shape[1:]),
            model.encoder.patch_size,
        )
        for number, (pixels, box) in enumerate(zip(crops, _boxes(geometry, photo.shape[:2]), strict=True))
    ]


def _boxes(geometry: upsample.Geometry, size: tuple[int, int]) -> list[Box]:
    """Where the windows lie on a photo of this size, row by row."""
    sides = []
    for starts, side, length in zip(geometry.windows, geometry.window_size, size, strict=True):
        scale = length / (max(starts) + side)
        sides.append([(start * scale, (start + side) * scale) for start in starts])
    return [Box(top, left, bottom, right) for top, bottom in sides[0] for left, right in sides[1]]


def window_at(windows: list[Window], at: Point) -> Window:
    """Of the windows that hold a point, the one in whose middle it lies most: with the most surroundings."""

    def off(window: Window) -> float:
        box = window.box
        return sum(((2 * (at[i] + 0.5) - box[i] - box[i + 2]) / (box[i + 2] - box[i])) ** 2 for i in (0, 1))

    return min(windows, key=off)


def refuse_outside_photo(at: Point, size: tuple[int, int]) -> None:
    """Checks that a point (y, x) lies on a photo (H, W).

    Raises:
        UserError: it does not.
    """
    if not all(0 <= where < side for where, side in zip(at, size, strict=True)):
        raise UserError(
            f"the point x {at[1]}, y {at[0]} lies outside the photo, which is {size[1]} pixels wide and {size[0]} "
            f"high; give x from 0 to {size[1] - 1} and y from 0 to {size[0] - 1}"
        )


def class_id(classes: Classes, name: str) -> int:
    """The id of the class with a name.

    Raises:
        UserError: no class has it.
    """
    if name in classes.names:
        return classes.names.index(name)
    near = difflib.get_close_matches(name, classes.names, n=3, cutoff=0.5)
    hint = f"perhaps {' or '.join(near)}" if near else f"it has {', '.join(listed(classes.names, ' '))}"
    raise UserError(f"the model has no class {shown(name)}; {hint}")


def widest_places(labels: np.ndarray, most: int, side: int = 160) -> dict[int, Point]:
    """Labels (H W) to the middle of the widest place of each class, the widest first, of at most so many classes.

    Unlike a centre of gravity it always lies in its class. Photos larger than `side` are looked at coarsely.
    """
    step = max(1, min(math.ceil(max(labels.shape) / side), *labels.shape))
    coarse = labels[step // 2 :: step, step // 2 :: step]
    found = {}
    for label in np.unique(coarse).tolist():
        width, (row, column) = _widest(coarse == label)
        found[label] = (width, (row * step + step // 2, column * step + step // 2))
    order = sorted(found, key=lambda label: (-found[label][0], label))
    return {label: found[label][1] for label in order[:most]}


def likeliest_place(result: Result, label: int) -> Point:
    """The middle of the widest place of a class in a photo; where no pixel has it, the pixel where it is likeliest."""
    places = widest_places(result.labels, len(result.classes))
    if label in places:
        return places[label]
    best = (-1.0, (0, 0))
    for rows, probabilities in result.probability_bands():  # K r W
        row, column = np.unravel_index(int(probabilities[label].argmax()), probabilities.shape[1:])
        best = max(best, (float(probabilities[label, row, column]), (rows.start + int(row), int(column))))
    return best[1]


def _widest(inside: np.ndarray) -> tuple[int, Point]:
    """Half the side of the largest square inside a region (h w bool, with some pixel), and that square's middle."""
    width, left = 0, inside
    while left.any():
        width, inside = width + 1, left
        padded = np.pad(inside, 1)
        shifts = [padded[y : y + left.shape[0], x : x + left.shape[1]] for y in range(3) for x in range(3)]
        left = np.logical_and.reduce(shifts)
    rows, columns = np.nonzero(inside)
    nearest = int(((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin())
    return width, (int(rows[nearest]), int(columns[nearest]))
