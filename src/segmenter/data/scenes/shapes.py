"""The camera of the drawn scenes, the flat surfaces it sees, and the drawing that collects them.

A drawing is a list of surfaces in painter's order (far ones first). Each lies in one of three planes that a camera with
an upright picture sees simply: facing it ("front", a depth), along the view ("side", a distance to the right) or level
("level", a height). World coordinates are metres: X to the right, Y above the ground, Z into the picture.
The frame is 1 high and 4/3 wide, y down from the top edge, x from the middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import wraps
from typing import Concatenate, ParamSpec

import numpy as np

from segmenter.data.scenes.textures import Material

NEAR = 0.4  # metres; nothing is drawn closer
FAR = 200.0  # metres; the depth of the sky
Given = ParamSpec("Given")
Span = tuple[float, float]
Polygon = list[tuple[float, float]]
Points = Sequence[tuple[float, float, float]]

RING = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20, endpoint=False)]


# A rounded square with sides of 2.
CUSHION = [(math.copysign(abs(c) ** 0.5, c), math.copysign(abs(s) ** 0.5, s)) for c, s in RING]


class Label(IntEnum):
    """Class ids."""

    SKY = 0
    BUILDING = 1
    GROUND = 2
    TREE = 3
    CAR = 4
    WALL = 5
    FLOOR = 6
    FURNITURE = 7


@dataclass(frozen=True)
class Camera:
    """Pinhole with an upright picture: focal length, horizon y and vanishing x in frame units, height in metres."""

    focal: float
    horizon: float
    vanish: float
    height: float

    def project(self, points: Iterable[tuple[float, float, float]]) -> list[tuple[float, float]]:
        """World points X Y Z to frame points x y; plain floats, since polygons are short and many."""
        projected = []
        for x, y, z in points:
            scale = self.focal / max(z, NEAR)
            projected.append((self.vanish + scale * x, self.horizon + scale * (self.height - y)))
        return projected


@dataclass(frozen=True)
class Surface:
    """Polygons (frame units) of one class and material in one plane.

    at: where the plane lies (metres; see the module); depths: the nearest and farthest point, which bound what a pixel
    at the very edge of a grazing plane may claim; shade: gain over the width and the height; thing: the number, from 1,
    of the house, tree, car or piece of furniture that it is a side of, or 0.
    """

    label: Label
    plane: str
    at: float
    polygons: tuple[Polygon, ...]
    material: Material
    depths: Span
    shade: Span = (0.0, 0.0)
    thing: int = 0


@dataclass(frozen=True)
class Sky:
    """Colours (3,) of the zenith, the horizon and the clouds, and the clouds' amount (0 to 1) and phase."""

    zenith: np.ndarray
    horizon: np.ndarray
    cloud: np.ndarray
    amount: float
    phase: tuple[int, int]


@dataclass
class Drawing:
    """What one scene holds; `shadows` are polygons on the ground with the light (0 to 1, above 1 a sun patch) left."""

    camera: Camera
    sun: float
    sky: Sky | None = None
    surfaces: list[Surface] = field(default_factory=list)
    shadows: list[tuple[Polygon, float]] = field(default_factory=list)
    tint: np.ndarray = field(default_factory=lambda: np.ones(3))
    glow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    haze: float = math.inf
    noise: float = 3.0
    noise_phase: tuple[int, int] = (0, 0)
    things: int = 0
    """How many things have been drawn; a surface that is added is one of the last, if `of_a_thing`."""
    of_a_thing: bool = False

    def add(
        self, label: Label, plane: str, at: float, corners: Points, material: Material, shade: Span = (0, 0)
    ) -> None:
        """One polygon given by its world corners (N 3)."""
        near, *_, far = sorted(max(z, NEAR) for _, _, z in corners)
        polygon = self.camera.project(corners)
        self.surfaces.append(Surface(label, plane, at, (polygon,), material, (near, far), shade, self._thing()))

    def front(self, label: Label, x: Span, y: Span, z: float, material: Material, shade: Span = (0, 0)) -> None:
        """A rectangle that faces the camera."""
        corners = [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]
        self.add(label, "front", z, corners, material, shade)

    def side(self, label: Label, x: float, y: Span, z: Span, material: Material, shade: Span = (0, 0)) -> None:
        """An upright rectangle along the view."""
        corners = [(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])]
        self.add(label, "side", x, corners, material, shade)

    def level(self, label: Label, x: Span, y: float, z: Span, material: Material, shade: Span = (0, 0)) -> None:
        """A level rectangle."""
        corners = [(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])]
        self.add(label, "level", y, corners, material, shade)

    def box(self, label: Label, x: Span, y: Span, z: Span, front: Material, side: Material, top: Material) -> None:
        """The faces of a box that the camera sees."""
        if y[1] < self.camera.height:
            self.level(label, x, y[1], z, top)
        if x[0] > 0:
            self.side(label, x[0], y, z, side)
        elif x[1] < 0:
            self.side(label, x[1], y, z, side)
        self.front(label, x, y, z[0], front)

    def discs(self, label: Label, circles: Points, z: float, material: Material, shade: Span = (0, 0)) -> None:
        """Circles (X, Y, radius) that face the camera, one surface together."""
        rings = [self.camera.project([(x + r * c, y + r * s, z) for c, s in RING]) for x, y, r in circles]
        self.surfaces.append(Surface(label, "front", z, tuple(rings), material, (z, z), shade, self._thing()))

    def _thing(self) -> int:
        return self.things if self.of_a_thing else 0

    def shadow(self, x: Span, z: Span, height: float, light: float = 0.5) -> None:
        """The shadow on the ground of a thing over the given spans: a contact shadow and one away from the sun."""
        for reach, left in ((0.0, light), (self.sun * height, 0.5 + 0.5 * light)):
            x0, x1 = min(x[0], x[0] + reach), max(x[1], x[1] + reach)
            cx, rx = (x0 + x1) / 2, (x1 - x0) / 2 * 1.12 + 0.05
            cz, rz = (z[0] + z[1]) / 2, (z[1] - z[0]) / 2 * 1.12 + 0.08
            ring = [(cx + rx * c, 0.0, cz + rz * s) for c, s in CUSHION]
            self.shadows.append((self.camera.project(ring), left))


def thing(draw: Callable[Concatenate[Drawing, Given], None]) -> Callable[Concatenate[Drawing, Given], None]:
    """A function that draws one thing: all surfaces that it adds have a new number."""

    @wraps(draw)
    def numbered(drawing: Drawing, *arguments: Given.args, **named: Given.kwargs) -> None:
        drawing.things += 1
        drawing.of_a_thing = True
        draw(drawing, *arguments, **named)
        drawing.of_a_thing = False

    return numbered
