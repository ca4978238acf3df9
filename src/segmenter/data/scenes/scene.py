"""Drawn street and indoor scenes with perfect labels and depth: an endless, licence-free data set in a few kilobytes.

A scene is composed from seeded random numbers independently of its size (composition), then drawn: polygons with
surface numbers at twice the resolution, textures in perspective, shadows, haze, light and noise. Colours say little
about the classes, shapes and textures much, so a network must use context; tests/data/test_scenes.py checks that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from segmenter.data.scenes.composition import compose
from segmenter.data.scenes.shapes import FAR, Drawing, Label, Polygon, Surface
from segmenter.data.scenes.textures import LEVELS, SIDE, grain, pyramid

NAMES: tuple[str, ...] = tuple(label.name.lower() for label in Label)
COLORS: tuple[tuple[int, int, int], ...] = (
    (135, 196, 235), (178, 92, 76), (92, 92, 104), (72, 146, 84), (38, 84, 168),
    (240, 214, 150), (160, 122, 50), (122, 66, 138),
)  # fmt: skip

OVERSAMPLE = 2
Shown = tuple[Surface, tuple[slice, slice], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A picture (H W 3, uint8), its class ids (H W, uint8), its depth in metres (H W, float32) and its things.

    `things` (H W, uint16) number the houses, trees, cars and pieces of furniture from 1; everything else is 0.
    """

    image: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    things: np.ndarray


def render(seed: int, index: int, size: tuple[int, int]) -> Scene:
    """Draws scene `index` of the set `seed` at size (height, width); even ones are streets, odd ones rooms.

    The composition is 4:3; other proportions show its middle. Raises ValueError below 32 pixels.
    """
    if min(size) < 32:
        raise ValueError(f"a scene of {size[0]} x {size[1]} pixels is too small to draw; the least is 32 x 32")
    drawing = compose(np.random.default_rng([seed, index]), indoors=index % 2 == 1)
    fine, coarse = Grid(drawing, size, OVERSAMPLE), Grid(drawing, size, 1)
    surfaces = fine.surfaces()
    ids = np.ascontiguousarray(surfaces[1::OVERSAMPLE, 1::OVERSAMPLE])
    shown = np.flatnonzero(np.bincount(ids.ravel(), minlength=len(drawing.surfaces))[: len(drawing.surfaces)])
    labels = np.array([s.label for s in drawing.surfaces] + [Label.SKY], np.uint8)[ids]
    depth = coarse.depth(ids, shown)
    things = np.array([s.thing for s in drawing.surfaces] + [0], np.uint16)[ids]
    return Scene(coarse.light(fine.paint(surfaces, shown), ids, shown, depth), labels, depth, things)


class Grid:
    """The pixels of one drawing at one resolution.

    `ids` (H W) hold the number of the surface seen, which indexes drawing.surfaces; one past the last is the sky.
    `shown` are the numbers that occur.
    """

    def __init__(self, drawing: Drawing, size: tuple[int, int], oversample: int) -> None:
        self.drawing, self.shape = drawing, (size[0] * oversample, size[1] * oversample)
        height, width = self.shape
        self.unit = max(height, width * 0.75)  # pixels a frame unit
        self.corner = (width / 2, (height - self.unit) / 2)
        self.x = ((np.arange(width) + 0.5 - self.corner[0]) / self.unit).astype(np.float32)
        self.y = ((np.arange(height) + 0.5 - self.corner[1]) / self.unit).astype(np.float32)

    def pixels(self, polygon: Polygon) -> np.ndarray:
        """Frame points to pixel indices (N 2), kept within what the drawing library can take."""
        return np.clip(np.array(polygon) * self.unit + self.corner - 0.5, -30000, 30000)

    def surfaces(self) -> np.ndarray:
        """The surface number seen at each pixel (H W, int32)."""
        image = Image.new("I", self.shape[::-1], len(self.drawing.surfaces))
        draw = ImageDraw.Draw(image)
        points = self.pixels([point for s in self.drawing.surfaces for p in s.polygons for point in p]).ravel().tolist()
        start = 0
        for number, surface in enumerate(self.drawing.surfaces):
            for polygon in surface.polygons:
                draw.polygon(points[start : start + 2 * len(polygon)], fill=number)
                start += 2 * len(polygon)
        return np.asarray(image)

    def windows(self, ids: np.ndarray, shown: np.ndarray, wanted: Callable[[Surface], object]) -> Iterator[Shown]:
        """The wanted surfaces among those shown, each with its window of the picture and its mask there."""
        for number in shown:
            surface = self.drawing.surfaces[number]
            if wanted(surface):
                xs, ys = zip(*(point for polygon in surface.polygons for point in polygon), strict=True)
                window = (self.span(ys, self.corner[1], 0), self.span(xs, self.corner[0], 1))
                yield surface, window, ids[window] == number

    def span(self, values: tuple[float, ...], corner: float, axis: int) -> slice:
        """The pixels along one axis that frame coordinates reach, with a margin of one."""
        low, high = min(values) * self.unit + corner, max(values) * self.unit + corner
        limit = self.shape[axis]
        return slice(int(min(max(low - 2, 0), limit)), int(min(max(high + 3, 0), limit)))

    def distance(self, surface: Surface, window: tuple[slice, slice]) -> np.ndarray:
        """Depth in metres over a window of a surface, as (1 1), (h 1) or (1 w)."""
        camera = self.drawing.camera
        if surface.plane == "front":
            return np.full((1, 1), surface.at, np.float32)
        if surface.plane == "level":
            drop = np.maximum(self.y[window[0], None] - camera.horizon, 1e-4)
            return np.clip(camera.focal * (camera.height - surface.at) / drop, *surface.depths)
        aside = np.maximum((self.x[None, window[1]] - camera.vanish) * np.sign(surface.at), 1e-4)
        return np.clip(camera.focal * abs(surface.at) / aside, *surface.depths)

    def depth(self, ids: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Metres at each pixel (H W, float32)."""
        depth = np.array([s.at for s in self.drawing.surfaces] + [FAR], np.float32)[ids]
        for surface, window, mask in self.windows(ids, shown, lambda s: s.plane != "front"):
            np.copyto(depth[window], self.distance(surface, window), where=mask)
        return depth

    def texels(self, surface: Surface, window: tuple[slice, slice]) -> np.ndarray:
        """Ramp positions (h w, uint8) of a surface's texture over a window."""
        camera, material = self.drawing.camera, surface.material
        z = self.distance(surface, window)
        metres = z / camera.focal
        across = (self.x[None, window[1]] - camera.vanish) * metres
        below = (self.y[window[0], None] - camera.horizon) * metres
        along = {"front": (across, below), "level": (across, z), "side": (z, below)}[surface.plane]
        u, v = (((a - o) * s).astype(np.int32) for a, o, s in zip(along, material.origin, material.scale, strict=True))
        # One level for each row (or column): the mean of the two directions' texels a pixel, in octaves.
        flat_step = metres / self.unit
        steep_step = flat_step if surface.plane == "front" else flat_step * z / max(abs(self.offset(surface)), 0.3)
        step = np.sqrt(flat_step * steep_step) * np.sqrt(material.scale[0] * material.scale[1])
        level = np.clip(np.floor(np.log2(np.maximum(step, 1e-3)) + 0.3), 0, LEVELS - 1).astype(np.int32)
        data, starts = pyramid(material.texture)
        side = SIDE >> level
        return data[(((v >> level) & (side - 1)) * side + starts[level]) + ((u >> level) & (side - 1))]

    def offset(self, surface: Surface) -> float:
        """Metres between the eye and a level or side plane."""
        return self.drawing.camera.height - surface.at if surface.plane == "level" else surface.at

    def paint(self, ids: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Colours without light (H W 3, uint8), at the resolution before oversampling."""
        canvas = packed(np.array([s.material.ramp[-1] for s in self.drawing.surfaces] + [np.zeros(3)]))[ids]
        for surface, window, mask in self.windows(ids, shown, lambda s: s.material.texture):
            ramp = packed(surface.material.ramp)
            np.copyto(canvas[window], ramp[self.texels(surface, window)], where=mask)
        open_sky = ids == len(self.drawing.surfaces)
        if open_sky.any():
            np.copyto(canvas, self.sky(), where=open_sky)
        image = Image.frombuffer("RGBX", self.shape[::-1], canvas, "raw", "RGBX", 0, 1)
        return np.asarray(image.reduce(OVERSAMPLE))[..., :3]

    def sky(self) -> np.ndarray:
        """The sky over the whole picture (H W, packed colours); drawn small, since it is smooth."""
        sky, rows, columns = self.drawing.sky, 96, 128
        fall = np.linspace(0, 1 / max(self.drawing.camera.horizon, 0.1), rows, dtype=np.float32)
        small = sky.zenith + (sky.horizon - sky.zenith) * np.minimum(fall, 1)[:, None, None] ** 1.3
        data, starts = pyramid("clouds")
        cloud = data[starts[1] : starts[2]].reshape(columns, columns)
        cloud = np.roll(cloud, sky.phase, (0, 1))[:rows].astype(np.float32)
        cover = np.clip((cloud - 165 + 75 * sky.amount) / 70, 0, 1)[..., None] * 0.85
        small = small * (1 - cover) + sky.cloud * (0.85 + 0.15 * cover) * cover
        image = Image.fromarray(packed(small.reshape(-1, 3)).view(np.uint8).reshape(rows, columns, 4), "RGBX")
        left, top = self.x[0] * 0.75 + 0.5, self.y[0]
        right, bottom = self.x[-1] * 0.75 + 0.5, self.y[-1]
        box = (left * columns, top * rows, right * columns, bottom * rows)
        return np.asarray(image.resize(self.shape[::-1], Image.BILINEAR, box)).view(np.uint32)[..., 0]

    def light(self, colors: np.ndarray, ids: np.ndarray, shown: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The finished picture (H W 3, uint8): gradients, shadows, lamp light, haze, tint, noise."""
        drawing = self.drawing
        light = self.glow()
        for surface, window, mask in self.windows(ids, shown, lambda s: any(s.shade)):
            rows, columns = mask.shape
            slope = 1 + surface.shade[1] * np.linspace(-0.5, 0.5, rows, dtype=np.float32)[:, None]
            slope = slope + surface.shade[0] * np.linspace(-0.5, 0.5, columns, dtype=np.float32)
            np.multiply(light[window], slope, out=light[window], where=mask)
        ground = np.array([s.plane == "level" and s.at == 0 for s in drawing.surfaces] + [False])[ids]
        np.multiply(light, self.shadows(), out=light, where=ground)
        tint = drawing.tint.astype(np.float32)
        if drawing.sky is None:
            picture = colors * light[..., None] * tint
        else:
            clear = np.where(depth < FAR, np.exp(-depth / drawing.haze), 1).astype(np.float32)
            picture = colors * (light * clear)[..., None] * tint + (1 - clear)[..., None] * (drawing.sky.horizon * tint)
        picture += self.noise()
        return np.clip(picture, 0, 255, out=picture).astype(np.uint8)

    def glow(self) -> np.ndarray:
        """Light (H W, float32) that falls off from the middle, and indoors from a lamp."""
        x, y = self.x[None], self.y[:, None]
        light = 1.04 - 0.12 * (x * x + (y - 0.5) ** 2)
        lamp_x, lamp_y, strength = self.drawing.glow
        if strength:
            fall = np.exp(-((x - lamp_x) ** 2) / 0.35) * np.exp(-((y - lamp_y) ** 2) / 0.35)
            light = light * (1 - 0.45 * strength + strength * fall)
        return light

    def shadows(self) -> np.ndarray:
        """The light left on the ground (H W, float32), soft at the edges; overlapping shadows take the darker."""
        image = Image.new("L", self.shape[::-1], 255)
        draw = ImageDraw.Draw(image)
        for polygon, left in sorted(self.drawing.shadows, key=lambda shadow: -shadow[1]):
            draw.polygon(self.pixels(polygon).ravel().tolist(), fill=int(255 * left))
        return np.asarray(image.filter(ImageFilter.BoxBlur(self.unit / 110))).astype(np.float32) / 255

    def noise(self) -> np.ndarray:
        """Sensor noise (H W 3), a tile repeated from a random phase."""
        rows, columns = ((np.arange(n) + p) % SIDE for n, p in zip(self.shape, self.drawing.noise_phase, strict=True))
        return grain()[rows][:, columns] * np.float32(self.drawing.noise)


def packed(colors: np.ndarray) -> np.ndarray:
    """Colours (N 3) in 0 to 255 as one uint32 each (N,), the bytes in the order red, green, blue, unused."""
    padded = np.concatenate([np.clip(colors, 0, 255), np.zeros((len(colors), 1))], 1).astype(np.uint8)
    return np.ascontiguousarray(padded).view(np.uint32)[:, 0]
