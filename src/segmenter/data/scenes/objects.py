"""The things in the drawn scenes: houses, trees, cars, cupboards, sofas and pictures on the wall.

Each function draws one thing with random materials and proportions: its shadow first, far parts before near ones.
Sizes are metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segmenter.data.scenes.shapes import CUSHION, RING, Drawing, Label, Span, thing
from segmenter.data.scenes.textures import (
    ALL,
    ENAMELS,
    MASONRY,
    PAINTS,
    SIDE,
    WOODS,
    Material,
    color,
    flat,
    ramp,
    tinted,
    two_tone,
)

GLASS = np.array((46, 56, 68), np.float32)
LEAVES = np.array([(74, 112, 52), (96, 128, 60), (52, 88, 60), (186, 128, 46), (170, 78, 46), (206, 150, 160)], float)
LEAF_ODDS = (0.16, 0.13, 0.13, 0.21, 0.2, 0.17)


def fitted(material: Material, tile: tuple[float, float], corner: tuple[float, float]) -> Material:
    """The material with tiles of the given metres, the first one starting at a corner (along, height below the eye)."""
    return replace(material, scale=(SIDE / tile[0], SIDE / tile[1]), origin=corner)


# ---- the street


@thing
def house(drawing: Drawing, rng: np.random.Generator, x: Span, z: Span, height: float) -> None:
    """A building with whole storeys and bays, a cornice, and a roof or a flat top."""
    wall, bay = color(rng, 0.75, 1.1, MASONRY if rng.random() < 0.6 else ALL), rng.uniform(2.4, 3.6)
    trim = color(rng, 0.9, 1.4)
    lit = np.array((236, 196, 120)) * rng.uniform(0.6, 1.0)
    pane = lit if rng.random() < 0.15 else GLASS * rng.uniform(0.5, 1.5) + rng.uniform(0, 26, 3)
    texture = ("windows", "pairs", "ribbons")[int(rng.integers(3))]
    body = Material(texture, ramp([0, 80, 130, 160, 255], [pane * 0.7, pane * 1.3, trim, wall * 0.86, wall * 1.1]))
    storey = height / max(1, round(height / 3.1))
    above = drawing.camera.height - height
    across = (x[1] - x[0]) / max(1, round((x[1] - x[0]) / bay))
    along = (z[1] - z[0]) / max(1, round((z[1] - z[0]) / bay))
    lighter = rng.uniform(0.7, 1.15)
    roof = two_tone(rng, "bricks", wall * 0.4, color(rng, 0.6, 1.0), 2.5)
    if rng.random() < 0.45:
        ridge, inset = height + rng.uniform(1.2, 2.6), min(2.0, (x[1] - x[0]) / 3)
        corners = [
            (x[0] - 0.2, height, z[0]),
            (x[1] + 0.2, height, z[0]),
            (x[1] - inset, ridge, z[0]),
            (x[0] + inset, ridge, z[0]),
        ]
        drawing.add(Label.BUILDING, "front", z[0], corners, roof, (0.0, -0.1))
    drawing.box(
        Label.BUILDING,
        x,
        (0.0, height),
        z,
        fitted(body, (across, storey), (x[0], above)),
        tinted(fitted(body, (along, storey), (z[0], above)), lighter),
        roof,
    )
    cornice = flat(np.clip(trim * 0.9, 20, 235))
    drawing.box(
        Label.BUILDING,
        (x[0] - 0.15, x[1] + 0.15),
        (height - 0.3, height),
        (z[0] - 0.1, z[1]),
        cornice,
        tinted(cornice, lighter),
        roof,
    )


@thing
def tree(drawing: Drawing, rng: np.random.Generator, x: float, z: float) -> None:
    """A trunk and a crown of leaf clumps, the lower ones in the shade."""
    height, radius = rng.uniform(4.2, 6.0), rng.uniform(1.7, 2.5)
    leaf = LEAVES[int(rng.choice(len(LEAVES), p=LEAF_ODDS))] * rng.uniform(0.7, 1.25) + rng.uniform(-12, 12, 3)
    bark = flat(np.array((84, 64, 50)) * rng.uniform(0.6, 1.3))
    foliage = Material(
        "foliage",
        ramp([0, 110, 255], [leaf * 0.35, leaf, leaf * 1.45 + 12]),
        (SIDE / 3.0,) * 2,
        tuple(rng.uniform(0, 3, 2)),
    )
    angles, spread = rng.uniform(0, 2 * math.pi, 11), rng.uniform(0.3, 0.75, 11)
    sizes = rng.uniform(0.4, 0.62, 11)
    drawing.shadow((x - 0.6 * radius, x + 0.6 * radius), (z - 0.6 * radius, z + 0.6 * radius), height * 0.5, 0.62)
    w = rng.uniform(0.13, 0.2) * radius
    trunk = [
        (x - 1.5 * w, 0, z),
        (x + 1.5 * w, 0, z),
        (x + w, height - radius, z),
        (x - w, height - radius, z),
    ]
    drawing.add(Label.TREE, "front", z, trunk, bark, (0.5 * -drawing.sun, 0.0))
    clumps = [
        (x + radius * s * math.cos(a), height - radius + radius * s * math.sin(a), radius * r)
        for a, s, r in zip(angles, spread, sizes, strict=True)
    ]
    drawing.discs(Label.TREE, [(x, height - radius, radius * 0.75), *clumps], z, tinted(foliage, 0.68), (0, -0.2))
    lifted = [(cx - 0.12 * radius * drawing.sun, cy + 0.1 * radius, r * 0.78) for cx, cy, r in clumps]
    drawing.discs(Label.TREE, lifted[::2], z, tinted(foliage, 0.95), (0, -0.2))
    drawing.discs(Label.TREE, lifted[1::3], z, tinted(foliage, 1.2))


@thing
def car_along(drawing: Drawing, rng: np.random.Generator, x: float, z: float) -> None:
    """A car driving into or out of the picture, its near end at z."""
    paint, rear = color(rng, 0.85, 1.1, ENAMELS if rng.random() < 0.5 else PAINTS), rng.random() < 0.6
    half, length, roof = rng.uniform(0.82, 0.95), rng.uniform(3.8, 4.6), rng.uniform(1.4, 1.75)
    belt, low, pane = roof * 0.58, 0.26, GLASS * rng.uniform(0.6, 1.5)
    metal, glass = flat(paint), flat(pane)
    nose, tail = (0.25, 0.6) if rear else (1.1, 0.5)
    c0, c1 = z + nose, z + length - 0.9  # the cabin's ends at the belt
    t0, t1 = c0 + tail, c1 - 0.6  # and at the roof
    left, right = x - half, x + half
    drawing.shadow((left, right), (z, z + length), 0.9, 0.3)
    face = left if left > 0 else right if right < 0 else None
    if face is not None:
        inner = face + math.copysign(0.14, face)
        dim = tinted(metal, 0.72)
        drawing.side(Label.CAR, face, (low, belt), (z, z + length), dim, (0.0, -0.2))
        circles = [[(face, 0.32 + 0.32 * s, wz + 0.32 * c) for c, s in RING] for wz in (z + 0.8, z + length - 0.8)]
        for circle in circles:
            drawing.add(Label.CAR, "side", face, circle, flat(np.full(3, 26.0)))
            middle = sum(p[2] for p in circle) / len(circle)
            hub = [(face, 0.32 + (py - 0.32) * 0.5, middle + (pz - middle) * 0.5) for _, py, pz in circle]
            drawing.add(Label.CAR, "side", face, hub, flat(np.full(3, 128.0)))
        drawing.add(
            Label.CAR,
            "side",
            face,
            [(face, belt, c0), (face, belt, c1), (inner, roof, t1), (inner, roof, t0)],
            dim,
        )
        pillar = (t0 + t1) / 2
        for a, b in ((t0 + 0.1, pillar - 0.06), (pillar + 0.06, t1 - 0.05)):
            window = [
                (face, belt + 0.05, a - 0.2 * (a < pillar)),
                (face, belt + 0.05, b + 0.2 * (b > pillar)),
                (inner, roof - 0.1, b),
                (inner, roof - 0.1, a),
            ]
            drawing.add(Label.CAR, "side", face, window, tinted(glass, 0.8))
    if drawing.camera.height > roof:
        drawing.level(Label.CAR, (left + 0.14, right - 0.14), roof, (t0, t1), tinted(metal, 1.12))
    if drawing.camera.height > belt:
        drawing.level(Label.CAR, (left, right), belt, (z, c0 + 0.1), tinted(metal, 1.08))
    cabin = [
        (left + 0.03, belt, c0),
        (right - 0.03, belt, c0),
        (right - 0.16, roof, t0),
        (left + 0.16, roof, t0),
    ]
    drawing.add(Label.CAR, "front", c0, cabin, metal)
    screen = [
        (left + 0.13, belt + 0.06, c0),
        (right - 0.13, belt + 0.06, c0),
        (right - 0.24, roof - 0.08, t0),
        (left + 0.24, roof - 0.08, t0),
    ]
    drawing.add(Label.CAR, "front", c0, screen, glass, (0.0, -0.5))
    for wheel in (left + 0.04, right - 0.3):
        drawing.front(Label.CAR, (wheel, wheel + 0.26), (0.0, 0.4), z, flat(np.full(3, 24.0)))
    drawing.front(Label.CAR, (left, right), (low, belt), z, metal, (0.0, -0.3))
    drawing.front(Label.CAR, (left + 0.04, right - 0.04), (low, low + 0.16), z, flat(paint * 0.35))
    lamps = flat(np.array((176, 28, 24)) if rear else np.array((244, 238, 214)))
    for lamp in (left + 0.06, right - 0.36):
        drawing.front(Label.CAR, (lamp, lamp + 0.3), (belt - 0.28, belt - 0.1), z, lamps)
    drawing.front(Label.CAR, (x - 0.26, x + 0.26), (belt - 0.34, belt - 0.2), z, flat(np.full(3, 212.0)))


@thing
def car_across(drawing: Drawing, rng: np.random.Generator, x: float, z: float) -> None:
    """A car seen from its side, its middle at x."""
    paint, forward = color(rng, 0.85, 1.1, ENAMELS if rng.random() < 0.5 else PAINTS), 1 if rng.random() < 0.5 else -1
    half, roof = rng.uniform(1.9, 2.3), rng.uniform(1.4, 1.7)
    belt, glass, metal = roof * 0.6, flat(GLASS * rng.uniform(0.6, 1.5)), flat(paint)

    def outline(points: Sequence[tuple[float, float]]) -> list[tuple[float, float, float]]:
        return [(x + forward * along * half, up, z) for along, up in points]

    drawing.shadow((x - half, x + half), (z, z + 1.8), 0.9, 0.3)
    body = [
        (-1, 0.3),
        (-1, belt - 0.06),
        (-0.86, belt + 0.03),
        (0.4, belt + 0.02),
        (0.92, belt - 0.16),
        (1, belt - 0.3),
        (1, 0.3),
    ]
    cabin = [(-0.86, belt), (-0.62, roof - 0.03), (-0.5, roof), (0.08, roof), (0.2, roof - 0.04), (0.5, belt)]
    drawing.add(Label.CAR, "front", z, outline(cabin), tinted(metal, 1.1))
    drawing.add(Label.CAR, "front", z, outline(body), metal, (0.0, -0.4))
    for pane in (
        [(-0.72, belt + 0.04), (-0.56, roof - 0.1), (-0.24, roof - 0.1), (-0.24, belt + 0.04)],
        [(-0.17, belt + 0.04), (-0.17, roof - 0.1), (0.1, roof - 0.1), (0.38, belt + 0.04)],
    ):
        drawing.add(Label.CAR, "front", z, outline(pane), glass, (0.3, -0.3))
    drawing.add(Label.CAR, "front", z, outline([(-1, 0.3), (1, 0.3), (0.98, 0.44), (-0.98, 0.44)]), tinted(metal, 0.5))
    drawing.add(
        Label.CAR,
        "front",
        z,
        outline([(0.88, belt - 0.3), (0.99, belt - 0.34), (0.97, belt - 0.2)]),
        flat(np.array((246, 240, 215))),
    )
    wheels = [(x - 0.62 * half, 0.34, 0.34), (x + 0.62 * half, 0.34, 0.34)]
    drawing.discs(Label.CAR, wheels, z, flat(np.full(3, 26.0)))
    drawing.discs(Label.CAR, [(wx, wy, 0.18) for wx, wy, _ in wheels], z, flat(np.full(3, 140.0)))


# ---- the room


@thing
def cabinet(drawing: Drawing, rng: np.random.Generator, x: Span, z: Span, height: float, along: bool) -> None:
    """A chest, cupboard or bookcase; along: its doors face the middle of the room, not the camera."""
    wood, dark = color(rng, 0.7, 1.05, WOODS), rng.uniform(0.3, 0.6)
    body = two_tone(rng, "plaster", wood * 0.7, wood, 1.0)
    if rng.random() < 0.4:
        spines = [color(rng, 0.7, 1.3) for _ in range(6)]
        face = Material(
            "books", ramp([0, 40, 70, 110, 140, 170, 200, 230, 255], [wood * 0.25, wood * 0.3, *spines, wood])
        )
        tile = (0.9, 0.4)
    else:
        face = Material("doors", ramp([0, 60, 190, 255], [wood * 0.2, wood * dark, wood, wood * 1.1]))
        tile = (rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.9))
    width = z if along else x
    columns, rows = max(1, round((width[1] - width[0]) / tile[0])), max(1, round(height / tile[1]))
    face = fitted(face, ((width[1] - width[0]) / columns, height / rows), (width[0], drawing.camera.height - height))
    front, side = (tinted(body, 0.95), tinted(face, 0.8)) if along else (face, tinted(body, 0.72))
    drawing.shadow(x, z, 0.3, 0.4)
    drawing.box(Label.FURNITURE, x, (0.0, height), z, front, side, tinted(body, 1.15))


@thing
def sofa(drawing: Drawing, rng: np.random.Generator, x: Span, z: float) -> None:
    """A sofa or armchair that faces the camera, its front edge at z."""
    cloth = color(rng, 0.85, 1.2, PAINTS)
    cover = two_tone(rng, "stripes", cloth * rng.uniform(0.5, 0.7), cloth, rng.uniform(0.45, 0.6))  # corduroy
    seat, back, arm = rng.uniform(0.4, 0.48), rng.uniform(0.8, 1.0), rng.uniform(0.18, 0.26)
    cushions = max(1, round((x[1] - x[0] - 2 * arm) / 0.75))
    accent = flat(color(rng))
    drawing.shadow(x, (z, z + 0.9), 0.3, 0.35)
    drawing.box(
        Label.FURNITURE,
        x,
        (0.1, back),
        (z + 0.65, z + 0.9),
        tinted(cover, 0.9),
        tinted(cover, 0.65),
        tinted(cover, 1.1),
    )
    left, right = x[0] + arm, x[1] - arm
    each = (right - left) / cushions
    for i in range(cushions):
        span = (left + i * each + 0.025, left + (i + 1) * each - 0.025)
        drawing.front(Label.FURNITURE, span, (seat, back - 0.04), z + 0.6, tinted(cover, 1.02), (0.0, -0.35))
    if right - left > 0.7 and rng.random() < 0.6:
        spot = rng.uniform(left + 0.25, right - 0.25)
        pillow = [(spot + 0.2 * c, seat + 0.17 + 0.18 * s, z + 0.5) for c, s in CUSHION]
        drawing.add(Label.FURNITURE, "front", z + 0.5, pillow, accent, (0.0, -0.3))
    drawing.level(Label.FURNITURE, (left, right), seat, (z, z + 0.6), tinted(cover, 1.15))
    drawing.front(Label.FURNITURE, (left, right), (0.06, seat), z + 0.01, tinted(cover, 0.5))
    for i in range(cushions):
        span = (left + i * each + 0.015, left + (i + 1) * each - 0.015)
        drawing.front(Label.FURNITURE, span, (0.26, seat), z, cover, (0.0, -0.25))
    drawing.front(Label.FURNITURE, (left, right), (0.06, 0.26), z + 0.02, tinted(cover, 0.7))
    for span in ((x[0], left), (right, x[1])):
        drawing.box(
            Label.FURNITURE,
            span,
            (0.06, seat + 0.2),
            (z - 0.02, z + 0.88),
            tinted(cover, 0.92),
            tinted(cover, 0.66),
            tinted(cover, 1.18),
        )


def picture(drawing: Drawing, rng: np.random.Generator, centre: Span, size: Span, wall: float, side: bool) -> None:
    """A framed painting on the wall at depth `wall` (side: the side wall at X = wall); centre is (along, height)."""
    frame, mat = flat(color(rng, 0.3, 1.3)), flat(np.array((228, 222, 210)) * rng.uniform(0.85, 1.05))
    paints = [color(rng, 0.5, 1.5) for _ in range(5)]
    canvas = Material(
        "clouds",
        ramp([0, 70, 110, 111, 150, 255], [*paints, paints[0]]),
        (SIDE / (2.2 * size[0]),) * 2,
        tuple(rng.uniform(0, 3, 2)),
    )
    border, inset = rng.uniform(0.06, 0.1), rng.uniform(0.1, 0.16)
    for margin, material in ((0.0, frame), (border, mat), (border + inset * (rng.random() < 0.6), canvas)):
        along = (centre[0] - size[0] / 2 + margin, centre[0] + size[0] / 2 - margin)
        up = (centre[1] - size[1] / 2 + margin, centre[1] + size[1] / 2 - margin)
        if side:
            drawing.side(Label.WALL, wall, up, along, tinted(material, 0.85))
        else:
            drawing.front(Label.WALL, along, up, wall, material)
