"""What every annotation format is read into: pictures with shapes, each of one class, an outline or a bitmap.

Coordinates are pixels from the left and the top edge of the upright picture: the first pixel reaches from 0 to 1, and
its centre is at 0.5.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segmenter.data.classes_yaml import MOST_CLASSES, Color
from segmenter.data.pairs import first
from segmenter.errors import UserError, shown

LARGEST_COORDINATE = 1e6  # pixels; no picture that can be read has a side as long
MOST_KEPT = 1000  # faults whose sentence is kept
IGNORED = -1  # in the place of a label: pixels that are neither learnt nor scored
IGNORED_NAMES = ("__ignore__", "void", "ignore", "ignored", "unlabeled", "unlabelled")
BACKGROUND_NAMES = ("background", "_background_")


class BadShape(ValueError):
    """A shape that cannot be what its format says; the text says why, without the place."""


class Outline(NamedTuple):
    """A polygon: rings of N 2 coordinates (x, y), float64; the first is the border, the others are holes."""

    rings: tuple[np.ndarray, ...]


class Bitmap(NamedTuple):
    """Pixels of a rectangle, whose top left one is (left, top) of the picture."""

    left: int
    top: int
    decode: Callable[[tuple[int, int]], np.ndarray]
    """From the height and width of the picture to h w, bool. Raises BadShape, before anything larger is made."""


class Shape(NamedTuple):
    """One annotated thing."""

    label: int
    """Position of its class in the reading's labels, or IGNORED."""
    form: Outline | Bitmap
    where: str
    """Which one it is, for messages."""
    order: int = 0
    """What is higher covers what is lower, and of equals the later one covers the earlier."""


@dataclass
class Picture:
    """A picture and its shapes."""

    path: Path
    file: Path
    """The file with its annotations."""
    shapes: list[Shape] = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Height and width that the annotations state."""
    split: str = ""
    """train, val, test, or empty where nothing says."""
    relative: bool = False
    """Coordinates are shares of width and height."""


@dataclass
class Labels:
    """Names of classes with their positions, in order, and the colours of some."""

    names: dict[str, int] = field(default_factory=dict)
    colors: dict[str, Color] = field(default_factory=dict)

    def place(self, name: str) -> int:
        """The position of a name, which is added where it is new; IGNORED for those that mean so.

        Raises:
            UserError: there are more names than there can be classes.
        """
        if name.casefold() in IGNORED_NAMES:
            return IGNORED
        if len(self.names) >= MOST_CLASSES and name not in self.names:
            raise UserError(f"there are more than {MOST_CLASSES} names of classes; is the class what was exported?")
        return self.names.setdefault(name, len(self.names))


class Problems:
    """What is wrong with annotations (faults, which nothing is learnt from) and what was left out (with counts)."""

    def __init__(self):
        self.faults: list[str] = []
        self.count = 0
        self._left_out: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def fault(self, text: object) -> None:
        """Keeps a sentence about what is wrong."""
        self.count += 1
        if len(self.faults) < MOST_KEPT:
            self.faults.append(str(text))

    def leave_out(self, kind: str, where: object) -> None:
        """Counts something of a kind, a sentence that follows a number."""
        self._counts[kind] += 1
        if len(self._left_out[kind]) < 6:
            self._left_out[kind].append(str(where))

    @contextmanager
    def at(self, where: object) -> Iterator[None]:
        """What is raised within as BadShape or UserError becomes a fault of this place."""
        try:
            yield
        except BadShape as error:
            self.fault(f"{where} {error}")
        except UserError as error:
            self.fault(error)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, a sentence a kind."""
        return tuple(f"{self._counts[kind]} {kind} ({first(places)})" for kind, places in self._left_out.items())


@dataclass
class Reading:
    """All that a format's files say."""

    labels: Labels = field(default_factory=Labels)
    pictures: list[Picture] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)


def polygon(coordinates: object) -> np.ndarray:
    """N 2 coordinates (x, y) of a flat list x1, y1, x2, y2, ...

    Raises:
        BadShape: there is no list of finite numbers, or they make no pairs, or no picture is as large.
    """
    flat = _numbers(coordinates)
    if len(flat) % 2:
        raise BadShape(f"has {len(flat)} coordinates, an odd number, but each point has two, x and y")
    return flat.reshape(-1, 2)


def points(listed: object) -> np.ndarray:
    """N 2 coordinates (x, y) of a list of points [x, y].

    Raises:
        BadShape: as `polygon`, or a point does not have two coordinates.
    """
    if not isinstance(listed, list):
        raise BadShape(f"has the points {shown(listed)}; write a list of [x, y]")
    for point in listed:
        if not isinstance(point, list) or len(point) != 2:
            raise BadShape(f"has the point {shown(point)}; write [x, y]")
    return polygon([value for point in listed for value in point])


def number(value: object, name: str) -> float:
    """A finite number.

    Raises:
        BadShape: it is none.
    """
    try:
        return float(_numbers([value])[0])
    except BadShape:
        raise BadShape(f"has {name} {shown(value)}; write a number of pixels") from None


def whole(value: object, name: str, least: int = 0) -> int:
    """A whole number from `least` up.

    Raises:
        BadShape: it is none.
    """
    if type(value) is not int or not least <= value <= LARGEST_COORDINATE:
        raise BadShape(f"has {name} {shown(value)}; write a whole number from {least} up")
    return value


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners (4 2) of a rectangle."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """An ellipse as N 2 points, so many that none of its sides is a twentieth of a pixel off the curve."""
    radius = max(abs(across), abs(down), 1.0)
    sides = int(np.clip(np.ceil(np.pi / np.arccos(1 - 0.05 / radius)), 16, 4096))
    angles = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def turned(corners: np.ndarray, around: Sequence[float], degrees: float) -> np.ndarray:
    """Points (N 2) turned clockwise, as seen on a screen, around one."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners - around) @ turn + around


def _numbers(values: object) -> np.ndarray:
    if not isinstance(values, list):
        raise BadShape(f"has the coordinates {shown(values)}; write a list of numbers")
    for value in values:
        if type(value) is not float and type(value) is not int:
            raise BadShape(f"has the coordinate {shown(value)}; write a number")
    found = np.array(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise BadShape(f"has the coordinate {found[~np.isfinite(found)][0]}, which is no number of pixels")
    if found.size and np.abs(found).max() > LARGEST_COORDINATE:
        raise BadShape(f"has the coordinate {found[np.abs(found).argmax()]:g}, but no picture has as many pixels")
    return found
