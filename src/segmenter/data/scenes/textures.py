"""Materials of the drawn scenes: tileable grey textures, and ramps that colour them.

A texture is drawn once, by a fixed generator, and holds a position on a colour ramp (0 to 255) instead of a
colour: the scene draws the colours, so the same bricks are red in one scene and grey in the next. The families of
colours overlap, because colour must tell little about the class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SIDE = 256  # texels, a power of two so that coordinates wrap with a bit mask
STEPS = np.arange(256)
LEVELS = 8  # halvings of a texture, 256 to 2 texels

# Overlapping families: a colour narrows the class down, but does not give it away.
STONES = np.array([(92, 92, 96), (112, 110, 108), (132, 130, 128), (78, 82, 90), (122, 112, 104)], np.float32)
MASONRY = np.array(
    [
        (150, 84, 66),
        (176, 108, 80),
        (196, 180, 160),
        (214, 186, 138),
        (160, 132, 108),
        (126, 124, 122),
        (120, 66, 54),
    ],
    np.float32,
)
WOODS = np.array([(160, 114, 76), (112, 78, 54), (198, 150, 104), (142, 92, 62), (96, 72, 60)], np.float32)
PAINTS = np.array(
    [
        (196, 190, 180), (226, 220, 208), (62, 64, 70), (206, 162, 84), (188, 72, 60), (142, 52, 62), (96, 116, 136),
        (62, 84, 118), (128, 156, 176), (74, 118, 126), (112, 146, 132), (176, 134, 142), (124, 98, 128), (86, 72, 98),
        (92, 124, 62), (66, 98, 58), (150, 158, 88), (186, 128, 52), (172, 204, 226), (104, 146, 196),
    ],
    np.float32,
)  # fmt: skip
ENAMELS = np.array(
    [(232, 234, 238), (40, 92, 196), (198, 36, 40), (196, 200, 206), (52, 168, 176), (242, 196, 40)], np.float32
)
ALL = np.concatenate([STONES, MASONRY, WOODS, PAINTS])


@dataclass(frozen=True)
class Material:
    """A texture name (None: flat), its ramp of colours (256 3; flat: 1 3), texels a metre (u, v), origin in metres."""

    texture: str | None
    ramp: np.ndarray
    scale: tuple[float, float] = (128.0, 128.0)
    origin: tuple[float, float] = (0.0, 0.0)


def color(rng: np.random.Generator, low: float = 0.75, high: float = 1.2, family: np.ndarray = ALL) -> np.ndarray:
    """A colour (3,) of a family with jittered hue and a brightness factor between low and high."""
    base = family[int(rng.integers(len(family)))]
    return base * rng.uniform(low, high) + rng.uniform(-10, 10, 3)


def ramp(positions: Sequence[float], colors: Sequence[np.ndarray]) -> np.ndarray:
    """Piecewise linear colours (256 3) through the given ones at positions in 0 to 255."""
    stops = np.array(colors)
    return np.array([np.interp(STEPS, positions, channel) for channel in stops.T]).T


def flat(paint: np.ndarray) -> Material:
    """One colour (3,) without texture."""
    return Material(None, np.asarray(paint)[None])


def two_tone(rng: np.random.Generator, texture: str, dark: np.ndarray, light: np.ndarray, metres: float) -> Material:
    """A texture from the colour of its joints to that of its body, one tile every `metres`, at a random phase."""
    origin = tuple(rng.uniform(0, metres, 2))
    return Material(texture, ramp([0, 120, 255], [dark, light * 0.88, light * 1.08]), (SIDE / metres,) * 2, origin)


def tinted(material: Material, factor: float) -> Material:
    """The same material on a face that gets more (above 1) or less light."""
    return Material(material.texture, material.ramp * factor, material.scale, material.origin)


@functools.cache
def pyramid(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All levels of a texture in one flat uint8 array, and where each level starts (LEVELS,)."""
    level = TEXTURES[name](np.random.default_rng(list(name.encode()))).astype(np.float32)
    levels, starts, start = [], [], 0
    for _ in range(LEVELS):
        levels.append(np.clip(level, 0, 255).astype(np.uint8).ravel())
        starts.append(start)
        start += level.size
        half = len(level) // 2
        level = level.reshape(half, 2, half, 2).mean((1, 3))
    return np.concatenate(levels), np.array(starts, np.int32)


@functools.cache
def grain() -> np.ndarray:
    """Sensor noise (SIDE, SIDE, 3), standard deviation 1, luminance more than colour."""
    rng = np.random.default_rng(7)
    luminance = rng.standard_normal((SIDE, SIDE, 1))
    return (0.8 * luminance + 0.6 * rng.standard_normal((SIDE, SIDE, 3))).astype(np.float32)


# ---- the textures: each returns (SIDE, SIDE), 0 the joints or the dark colour, 255 the light colour


def smooth_noise(rng: np.random.Generator, cells: float, stretch: float = 1.0) -> np.ndarray:
    """Tileable noise (SIDE, SIDE), mean 0, deviation 1, about `cells` blobs a side; stretch > 1: longer along u."""
    fv, fu = np.meshgrid(np.fft.fftfreq(SIDE) * SIDE, np.fft.fftfreq(SIDE) * SIDE, indexing="ij")
    power = np.exp(-((fu * stretch) ** 2 + fv**2) / (2 * cells**2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * power).real
    return (noise - noise.mean()) / noise.std()


def blocks(rng: np.random.Generator, rows: int, columns: int, joint: int, shift: bool) -> np.ndarray:
    """Rows of blocks with joints, each block a little lighter or darker; shift: every second row by half a block."""
    v, u = np.mgrid[:SIDE, :SIDE]
    row = v * rows // SIDE
    u = u + (row % 2) * (SIDE // columns // 2) * shift
    tone = rng.uniform(150, 245, (rows, columns))[row, u * columns // SIDE % columns]
    edge = (v % (SIDE // rows) < joint) | (u % (SIDE // columns) < joint)
    return np.where(edge, 10, tone + 9 * smooth_noise(rng, 40))


def speckle(rng: np.random.Generator) -> np.ndarray:
    return 150 + 34 * smooth_noise(rng, 42) + 18 * smooth_noise(rng, 100)


def plaster(rng: np.random.Generator) -> np.ndarray:
    return 190 + 12 * smooth_noise(rng, 5) + 8 * smooth_noise(rng, 60)


def bricks(rng: np.random.Generator) -> np.ndarray:
    return blocks(rng, 8, 4, 4, shift=True)


def slabs(rng: np.random.Generator) -> np.ndarray:
    return blocks(rng, 4, 4, 6, shift=True)


def tiles(rng: np.random.Generator) -> np.ndarray:
    return blocks(rng, 4, 4, 5, shift=False)


def planks(rng: np.random.Generator) -> np.ndarray:
    """Boards along v (into the picture when it lies on the floor)."""
    v, u = np.mgrid[:SIDE, :SIDE]
    board = u * 8 // SIDE
    start = rng.integers(0, SIDE, 8)[board]
    edge = (u % (SIDE // 8) < 3) | ((v + start) % SIDE < 3)
    tone = rng.uniform(140, 235, 8)[board]
    return np.where(edge, 10, tone + 14 * smooth_noise(rng, 50, 0.15))


def stripes(rng: np.random.Generator) -> np.ndarray:
    u = np.arange(SIDE) * 6 // SIDE % 2
    return np.where(u, 235, 30)[None] + 8 * smooth_noise(rng, 40)


def fabric(rng: np.random.Generator) -> np.ndarray:
    v, u = np.mgrid[:SIDE, :SIDE]
    return 180 + 22 * np.sin(u * np.pi / 4) * np.sin(v * np.pi / 4) + 14 * smooth_noise(rng, 6)


def foliage(rng: np.random.Generator) -> np.ndarray:
    return 120 + 56 * np.tanh(1.5 * smooth_noise(rng, 15)) + 26 * smooth_noise(rng, 45)


def clouds(rng: np.random.Generator) -> np.ndarray:
    return 118 + 34 * smooth_noise(rng, 2, 1.6) + 20 * smooth_noise(rng, 5, 1.6) + 11 * smooth_noise(rng, 14, 1.3)


def facade(rng: np.random.Generator, windows: Sequence[tuple[int, int, int, int]], wall: np.ndarray) -> np.ndarray:
    """One bay of one storey: windows (left, top, right, bottom) with frames and sills in a wall of 150 to 255."""
    picture = wall.copy()
    for left, top, right, bottom in windows:
        picture[top - 10 : bottom + 10, left - 10 : right + 10] = 130
        shine = np.linspace(70, 15, bottom - top)[:, None] + np.linspace(18, -10, right - left)
        picture[top:bottom, left:right] = shine
        picture[top:bottom, (left + right) // 2 - 4 : (left + right) // 2 + 4] = 130
        picture[bottom + 6 : bottom + 18, left - 18 : right + 18] = 245
    return picture


def windows(rng: np.random.Generator) -> np.ndarray:
    return facade(rng, [(70, 50, 186, 200)], 205 + 8 * smooth_noise(rng, 50))


def pairs(rng: np.random.Generator) -> np.ndarray:
    wall = np.clip(blocks(rng, 16, 8, 3, shift=True), 165, 240)
    return facade(rng, [(34, 56, 106, 196), (150, 56, 222, 196)], wall)


def ribbons(rng: np.random.Generator) -> np.ndarray:
    return facade(rng, [(12, 60, 122, 180), (134, 60, 244, 180)], 200 + 8 * smooth_noise(rng, 8))


def doors(rng: np.random.Generator) -> np.ndarray:
    """Cupboard front: one door or drawer a tile, with a bevel and a knob."""
    picture = 205 + 10 * smooth_noise(rng, 40, 0.2)
    for inset, tone in ((0, 15), (8, 205), (40, 110), (48, 185)):
        picture[inset : SIDE - inset, inset : SIDE - inset] = (
            tone + 8 * smooth_noise(rng, 40, 0.2)[inset : SIDE - inset, inset : SIDE - inset]
        )
    picture[108:148, 202:222] = 8
    return picture


def books(rng: np.random.Generator) -> np.ndarray:
    """One board of a bookcase: spines of random tone and height, the board below, darkness above."""
    picture = np.full((SIDE, SIDE), 8.0)
    left = 6
    while left < SIDE - 14:
        width = int(rng.integers(14, 34))
        picture[int(rng.integers(24, 96)) : 232, left : min(left + width, SIDE - 6)] = rng.uniform(70, 215)
        left += width + 2
    picture[232:] = 245
    picture[:, :6] = picture[:, -6:] = 245
    return picture


TEXTURES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    f.__name__: f
    for f in (
        speckle, plaster, bricks, slabs, tiles, planks, stripes, fabric, foliage, clouds,
        windows, pairs, ribbons, doors, books,
    )
}  # fmt: skip
