"""Where things stand in the drawn scenes: a street seen along, a street seen across, and a room."""

from __future__ import annotations

import numpy as np

from segmenter.data.scenes.objects import cabinet, car_across, car_along, house, picture, sofa, tree
from segmenter.data.scenes.shapes import NEAR, Camera, Drawing, Label, Sky
from segmenter.data.scenes.textures import ALL, PAINTS, STONES, Material, color, flat, tinted, two_tone

# Zenith, horizon, clouds: clear, pale, overcast, storm, sunset, dawn, dusk, green evening.
SKIES = np.array(
    [
        [(62, 112, 186), (176, 208, 232), (244, 246, 250)],
        [(128, 164, 204), (214, 224, 232), (250, 250, 250)],
        [(150, 154, 162), (206, 206, 204), (176, 178, 184)],
        [(82, 90, 104), (152, 156, 158), (116, 120, 130)],
        [(88, 96, 150), (246, 176, 112), (250, 206, 168)],
        [(150, 150, 190), (242, 200, 190), (250, 226, 216)],
        [(30, 42, 82), (128, 112, 140), (70, 72, 104)],
        [(92, 132, 140), (226, 214, 166), (232, 226, 206)],
    ],
    np.float32,
)


def compose(rng: np.random.Generator, indoors: bool) -> Drawing:
    """The contents of one scene, independent of the picture's size."""
    build = room if indoors else (street_along, street_across)[int(rng.integers(2))]
    drawing = build(rng)
    drawing.tint = rng.uniform(0.78, 1.1) * (1 + rng.uniform(-0.08, 0.08) * np.array((1.0, 0.1, -1.0)))
    drawing.noise = rng.uniform(1.5, 3.5)
    drawing.noise_phase = tuple(int(i) for i in rng.integers(0, 256, 2))
    return drawing


def outdoors(rng: np.random.Generator, focal: float, horizon: float, vanish: float, height: float) -> Drawing:
    """An empty street picture: camera, sun, sky, haze and far houses along the horizon."""
    zenith, low, cloud = SKIES[int(rng.integers(len(SKIES)))] * rng.uniform(0.85, 1.08)
    amount = float(rng.uniform(0.0, 1.0))
    sky = Sky(zenith, low, cloud, amount, tuple(int(i) for i in rng.integers(0, 256, 2)))
    drawing = Drawing(Camera(focal, horizon, vanish, height), sun=rng.uniform(0.3, 0.9) * rng.choice((-1, 1)), sky=sky)
    drawing.haze = rng.uniform(70, 300)
    left = -70.0
    while left < 70:
        width = rng.uniform(10, 20)
        house(drawing, rng, (left, left + width), (90.0, 100.0), rng.uniform(5, 16))
        left += width + rng.uniform(0, 3)
    return drawing


def asphalt(rng: np.random.Generator) -> Material:
    """A road surface."""
    base = color(rng, 0.65, 1.0, ALL if rng.random() < 0.4 else STONES)
    return two_tone(rng, "speckle", base * 0.7, base, rng.uniform(1.4, 2.2))


def paving(rng: np.random.Generator) -> Material:
    """The slabs of a pavement."""
    texture = ("slabs", "tiles")[int(rng.integers(2))]
    light = color(rng, 0.85, 1.2)
    return two_tone(rng, texture, light * rng.uniform(0.6, 0.8), light, rng.uniform(2.2, 3.4))


def place(rng: np.random.Generator, things: list, drawing: Drawing) -> None:
    """Draws things (draw function, x, z), far ones first."""
    for draw, x, z in sorted(things, key=lambda thing: -thing[2]):
        draw(drawing, rng, x, z)


def at_column(drawing: Drawing, column: float, z: float) -> float:
    """World X at depth z of a frame x, so that near things land inside the picture."""
    return (column - drawing.camera.vanish) * z / drawing.camera.focal


def street_along(rng: np.random.Generator) -> Drawing:
    """A street into the picture, with houses or an open side left and right."""
    drawing = outdoors(
        rng, rng.uniform(1.05, 1.4), rng.uniform(0.3, 0.5), rng.uniform(-0.3, 0.3), rng.uniform(1.5, 3.2)
    )
    middle, half = rng.uniform(-3.5, 3.5), rng.uniform(2.6, 4.2)
    kerbs = (middle - half, middle + half)
    pave, walks = paving(rng), rng.uniform(2.2, 4.5, 2)
    drawing.level(Label.GROUND, (-120, 120), 0.0, (NEAR, 150.0), pave)
    drawing.level(Label.GROUND, kerbs, 0.0, (NEAR, 90.0), asphalt(rng))
    kerb, paint = flat(color(rng, 1.0, 1.4)), flat(np.array((222, 218, 200)) * rng.uniform(0.75, 1.1))
    for edge in kerbs:
        drawing.level(Label.GROUND, (edge - 0.13, edge + 0.13), 0.0, (NEAR, 90.0), kerb)
    if rng.random() < 0.7:
        start, period = rng.uniform(0, 4), rng.uniform(4, 7)
        for i in range(8):
            drawing.level(
                Label.GROUND,
                (middle - 0.1, middle + 0.1),
                0.0,
                (start + i * period + NEAR, start + (i + 0.5) * period),
                paint,
            )
    if rng.random() < 0.3:
        zebra(drawing, rng, kerbs, paint)
    for sign, kerb_x, walk in ((-1, kerbs[0], walks[0]), (1, kerbs[1], walks[1])):
        terrace(drawing, rng, sign, kerb_x + sign * walk)
    things = []
    for sign, kerb_x in ((-1, kerbs[0]), (1, kerbs[1])):
        trees = rng.uniform(6, 10) + np.cumsum(rng.uniform(5, 9, int(rng.integers(0, 3)))) - 4
        things += [(tree, kerb_x + sign * rng.uniform(0.7, 1.6), z) for z in trees]
        parked = rng.uniform(4.0, 6.0, int(rng.random() < 0.65))
        things += [(car_along, kerb_x - sign * 1.1, z) for z in parked]
    if rng.random() < 0.75:
        lane = rng.choice((-1, 1)) * half * 0.4
        things.append((car_along, middle + lane, rng.uniform(4, 6)))
    place(rng, things, drawing)
    return drawing


def zebra(drawing: Drawing, rng: np.random.Generator, kerbs: tuple[float, float], paint: Material) -> None:
    """A crossing over the road."""
    z = rng.uniform(5, 10)
    for x in np.arange(kerbs[0] + 0.4, kerbs[1] - 0.6, 1.0):
        drawing.level(Label.GROUND, (x, x + 0.5), 0.0, (z, z + 2.5), paint)


def terrace(drawing: Drawing, rng: np.random.Generator, sign: int, x: float) -> None:
    """Houses along one side of the street, with gaps; sometimes the side begins open."""
    start = rng.choice((1.0, 1.0, 12.0, 30.0))
    parts, z = [], start
    while z < 70:
        length = rng.uniform(6, 13)
        parts.append((z, z + length, rng.uniform(4.5, 12)))
        z += length + (rng.uniform(2, 6) if rng.random() < 0.25 else 0.0)
    for z0, z1, height in reversed(parts):
        house(drawing, rng, tuple(sorted((x, x + sign * 9.0))), (z0, z1), height)
    foot = drawing.camera.project([(x, 0, start), (x, 0, 70), (x - sign * 0.5, 0, 70), (x - sign * 0.5, 0, start)])
    drawing.shadows.append((foot, 0.6))
    if sign * drawing.sun < 0:  # the sun stands behind these houses
        reach = x - sign * rng.uniform(2, 5)
        cast = drawing.camera.project([(x, 0, start), (x, 0, 70), (reach, 0, 70), (reach, 0, start)])
        drawing.shadows.append((cast, 0.72))


def street_across(rng: np.random.Generator) -> Drawing:
    """A row of houses over the road."""
    drawing = outdoors(
        rng, rng.uniform(1.1, 1.5), rng.uniform(0.32, 0.54), rng.uniform(-0.3, 0.3), rng.uniform(1.5, 3.2)
    )
    row = rng.uniform(10, 14)
    far_kerb = row - rng.uniform(2.5, 4.5)
    near_kerb = far_kerb - rng.uniform(4.0, 6.5)
    drawing.level(Label.GROUND, (-150, 150), 0.0, (NEAR, 150.0), paving(rng))
    drawing.level(Label.GROUND, (-150, 150), 0.0, (near_kerb, far_kerb), asphalt(rng))
    kerb, paint = flat(color(rng, 1.0, 1.4)), flat(np.array((222, 218, 200)) * rng.uniform(0.75, 1.1))
    middle, phase = (near_kerb + far_kerb) / 2, rng.uniform(0, 4)
    for x in np.arange(-22 + phase, 22, 4.0):
        drawing.level(Label.GROUND, (x, x + 2.0), 0.0, (middle - 0.09, middle + 0.09), paint)
    for edge in (near_kerb, far_kerb):
        drawing.level(Label.GROUND, (-150, 150), 0.0, (edge - 0.13, edge + 0.13), kerb)
    x, parts = -25.0 + rng.uniform(0, 5), []
    while x < 25:
        width = rng.uniform(4.5, 10)
        parts.append((x, x + width))
        x += width + (rng.uniform(2, 7) if rng.random() < 0.4 else 0.0)
    for span in sorted(parts, key=lambda span: -abs(sum(span))):  # the outer ones stand behind the inner ones
        house(drawing, rng, span, (row, row + 9.0), rng.uniform(3.6, 0.55 * row))
    drawing.shadows.append(
        (drawing.camera.project([(-40, 0, row), (40, 0, row), (40, 0, row - 0.6), (-40, 0, row - 0.6)]), 0.6)
    )
    things = []
    for _ in range(int(rng.integers(0, 4))):
        z = far_kerb + rng.uniform(0.6, 1.5)
        things.append((tree, at_column(drawing, rng.uniform(-0.65, 0.65), z), z))
    lanes = (near_kerb + 0.6, (near_kerb + far_kerb) / 2 + 0.3)
    for lane, count in zip(lanes, rng.integers((1, 0), 3), strict=True):
        spots = (
            rng.uniform(-0.9, 0.2) + np.cumsum(rng.uniform(5.2, 8.0, int(count))) * drawing.camera.focal / lane - 0.6
        )
        things += [(car_across, at_column(drawing, spot, lane), lane) for spot in spots]
    place(rng, things, drawing)
    return drawing


def room(rng: np.random.Generator) -> Drawing:
    """A room with furniture along its back wall and sides, pictures above."""
    camera = Camera(rng.uniform(0.95, 1.25), rng.uniform(0.14, 0.46), rng.uniform(-0.3, 0.3), rng.uniform(1.3, 2.0))
    drawing = Drawing(camera, sun=rng.uniform(0.2, 0.6) * rng.choice((-1, 1)))
    depth = rng.uniform(3.6, 5.4)
    left, right = -rng.uniform(1.8, 4.2), rng.uniform(1.8, 4.2)
    drawing.glow = (rng.uniform(-0.6, 0.6), rng.uniform(0.0, 0.5), rng.uniform(0.15, 0.5))
    drawing.level(Label.FLOOR, (left, right), 0.0, (NEAR, depth), flooring(rng))
    walls = wallpaper(rng)
    drawing.front(Label.WALL, (left, right), (0.0, 9.0), depth, walls)
    for x, light in ((left, rng.uniform(0.7, 1.0)), (right, rng.uniform(0.7, 1.0))):
        drawing.side(Label.WALL, x, (0.0, 9.0), (NEAR, depth), tinted(walls, light), (0.0, -0.1))
    skirting = flat(color(rng, 0.7, 1.4))
    drawing.front(Label.WALL, (left, right), (0.0, 0.12), depth, skirting)
    for x in (left, right):
        drawing.side(Label.WALL, x, (0.0, 0.12), (NEAR, depth), tinted(skirting, 0.85))
    corner_shade(drawing, left, right, depth)
    if rng.random() < 0.45:
        rug(drawing, rng, depth)
    furnish_back(drawing, rng, left, right, depth)
    for sign, x in ((-1, left), (1, right)):
        furnish_side(drawing, rng, sign, x, depth)
    return drawing


def flooring(rng: np.random.Generator) -> Material:
    """Boards, tiles, carpet or stone."""
    texture = ("planks", "planks", "tiles", "speckle")[int(rng.integers(4))]
    light = color(rng, 0.75, 1.15)
    dark = light * rng.uniform(0.4, 0.7)
    return two_tone(rng, texture, dark, light, rng.uniform(1.2, 2.2))


def wallpaper(rng: np.random.Generator) -> Material:
    """Plaster, wallpaper, brick or panels."""
    texture = ("plaster", "plaster", "plaster", "stripes", "bricks")[int(rng.integers(5))]
    light = color(rng, 0.85, 1.2, PAINTS if rng.random() < 0.5 else ALL)
    dark = light * (rng.uniform(0.6, 0.85) if texture != "bricks" else 0.5)
    return two_tone(rng, texture, dark, light, rng.uniform(1.0, 2.0))


def corner_shade(drawing: Drawing, left: float, right: float, depth: float) -> None:
    """The floor darkens towards the walls."""
    for near in (0.5, 0.2):
        drawing.shadows.append(
            (
                drawing.camera.project(
                    [(left, 0, depth), (right, 0, depth), (right, 0, depth - near), (left, 0, depth - near)]
                ),
                0.82,
            )
        )
        for x, inner in ((left, left + near), (right, right - near)):
            drawing.shadows.append(
                (
                    drawing.camera.project([(x, 0, NEAR), (x, 0, depth), (inner, 0, depth), (inner, 0, NEAR)]),
                    0.85,
                )
            )


def rug(drawing: Drawing, rng: np.random.Generator, depth: float) -> None:
    """A carpet with a border; part of the floor."""
    z = (rng.uniform(1.6, 2.4), depth - rng.uniform(1.0, 1.5))
    x0 = at_column(drawing, rng.uniform(-0.5, 0.1), sum(z) / 2)
    width, weave = rng.uniform(1.4, 2.4), ("speckle", "fabric")[int(rng.integers(2))]
    drawing.level(Label.FLOOR, (x0, x0 + width), 0.0, z, flat(color(rng)))
    inner = two_tone(rng, weave, color(rng), color(rng), rng.uniform(0.8, 1.6))
    drawing.level(Label.FLOOR, (x0 + 0.12, x0 + width - 0.12), 0.0, (z[0] + 0.12, z[1] - 0.12), inner)


def furnish_back(drawing: Drawing, rng: np.random.Generator, left: float, right: float, depth: float) -> None:
    """Sofas, cabinets and pictures along the back wall, from left to right."""
    x, end = (
        max(left, at_column(drawing, -0.66, depth)) + rng.uniform(0.0, 0.5),
        min(right, at_column(drawing, 0.66, depth)),
    )
    while x < end - 1.1:
        kind = rng.random()
        if kind < 0.42:
            width, height = min(rng.uniform(1.4, 2.4), end - x), 1.0
            sofa(drawing, rng, (x, x + width), depth - rng.uniform(1.0, 1.8))
        elif kind < 0.84:
            width, height = min(rng.uniform(0.9, 1.8), end - x), rng.uniform(0.7, 2.1)
            cabinet(drawing, rng, (x, x + width), (depth - rng.uniform(0.4, 0.6), depth), height, along=False)
        else:
            width, height = rng.uniform(0.8, 1.4), 0.6
        if height < 1.3 and rng.random() < 0.5:
            size = (min(width, rng.uniform(0.7, 1.5)), rng.uniform(0.6, 1.0))
            picture(
                drawing,
                rng,
                (x + width / 2, height + 0.25 + size[1] / 2 + rng.uniform(0, 0.2)),
                size,
                depth,
                side=False,
            )
        x += width + rng.uniform(0.15, 0.6)


def furnish_side(drawing: Drawing, rng: np.random.Generator, sign: int, x: float, depth: float) -> None:
    """A picture and perhaps a cabinet on one side wall."""
    z = depth - rng.uniform(1.2, 1.8)
    if rng.random() < 0.4:
        size = (rng.uniform(0.8, 1.3), rng.uniform(0.6, 1.0))
        picture(drawing, rng, (z, rng.uniform(1.4, 1.8)), size, x, side=True)
    if rng.random() < 0.35:
        near, deep = z - rng.uniform(1.0, 1.6), rng.uniform(0.4, 0.6)
        span = tuple(sorted((x, x - sign * deep)))
        cabinet(drawing, rng, span, (near, z), rng.uniform(0.7, 1.9), along=True)
