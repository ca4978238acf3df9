"""Maps of patches as heat over a photo: what gets more than its even share glows, the rest stays a dim photo.

Values are shown as multiples of the even share, 1 / patches. Attention spans three orders of magnitude between heads,
so its scale is logarithmic and shared by all maps of a sheet: one head can be compared with another.
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageOps

from segmenter.inspection.places import Box, Window
from segmenter.views.lettering import font

COLORS = colormaps["inferno"]
DIM, DARKEST_GREY, LIGHTENED = 115, 12, 0.65  # of the photo under the heat: range, least, exponent of its brightness
DARKEST = 0.25  # of the colours: black glows nowhere
STRONGEST = 0.92  # opacity of the heat
AGAINST = (70, 110, 255)  # what spoke against an answer
MARK = (64, 224, 255)  # the asked patch; no colour of the heat is like it


@dataclass(frozen=True)
class Scale:
    """From multiples of the even share to 0 (the dim photo) and 1 (the brightest)."""

    low: float
    high: float
    logarithmic: bool = True

    def shades(self, values: np.ndarray) -> np.ndarray:
        """Values to 0 to 1."""
        low, high, values = self._in_its_units(self.low, self.high, values)
        return np.clip((values - low) / max(high - low, 1e-9), 0, 1)

    def ticks(self) -> list[float]:
        """Round values from `low` to `high` to write beside the colours."""
        if not self.logarithmic:
            return [self.low, (self.low + self.high) / 2, self.high]
        steps = (1, 1.2, 1.5, 2, 3, 5) if self.high < 10 * self.low else (1, 3) if self.high < 1000 * self.low else (1,)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        rounded = [step * 10.0**power for power in powers for step in steps]
        return [value for value in rounded if self.low * 0.99 <= value <= self.high * 1.01]

    def _in_its_units(self, *values: float | np.ndarray) -> list[np.ndarray]:
        found = [np.asarray(value, np.float64) for value in values]
        return [np.log(np.maximum(value, 1e-12)) for value in found] if self.logarithmic else found


def shared_scale(values: np.ndarray) -> Scale:
    """The scale of attention (any shape, as multiples of the even share): from the even share to nearly the largest."""
    return Scale(1.0, max(1.5, float(np.quantile(values, 0.9995))))


def own_scale(values: np.ndarray) -> Scale:
    """The scale of one map; its largest hundredth is alike, as a single patch must not darken all others."""
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    return Scale(low, max(high, low + 1e-6), logarithmic=False)


def dimmed(photo: Image.Image) -> np.ndarray:
    """A photo as dim grey (H W 3) under the heat, its shadows lightened: dark photos would show nothing."""
    grey = np.asarray(ImageOps.autocontrast(photo.convert("L"), cutoff=1), np.float32) / 255
    return np.repeat((DARKEST_GREY + DIM * grey**LIGHTENED)[..., None], 3, axis=2)


def glowing(shades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shades (H W, 0 to 1) to colours (H W 3, 0 to 255) and their opacity (H W 1)."""
    colors = COLORS(DARKEST + (1 - DARKEST) * shades)[..., :3] * 255
    return colors, (STRONGEST * shades**0.6)[..., None]


def heat(photo: Image.Image, values: np.ndarray, window: Window, scale: Scale) -> Image.Image:
    """A map (h w) of a window's patches over the picture of that window, each patch at its place."""
    colors, opacity = glowing(_on_pixels(scale.shades(values), photo.size, window))
    base = dimmed(photo)
    return Image.fromarray((base + (colors - base) * opacity).astype(np.uint8))


def spoken(photo: Image.Image, values: np.ndarray, window: Window) -> Image.Image:
    """What spoke for an answer (h w, positive) glows over the picture of a window, what spoke against it is blue."""
    high = max(float(np.quantile(np.abs(values), 0.99)), 1e-12)
    shades = _on_pixels(np.clip(values / high, -1, 1), photo.size, window)
    colors, opacity = glowing(np.abs(shades))
    colors = np.where(shades[..., None] < 0, np.array(AGAINST, np.float32), colors)
    base = dimmed(photo)
    return Image.fromarray((base + (colors - base) * opacity).astype(np.uint8))


def tinted(photo: Image.Image, shares: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
    """A class's probability (H W, 0 to 1) at every pixel of a dim photo, in the class's colour."""
    base = dimmed(photo)
    bright = np.array(color, np.float32) * (200 / max(*color, 100))
    return Image.fromarray((base + (bright - base) * (0.85 * shares[..., None])).astype(np.uint8))


def _on_pixels(values: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """Values of a window's patches (h w) at every pixel of its picture of a size (width, height)."""
    rows, columns = (
        (np.arange(side) + 0.5) * length / side / window.patch_size
        for side, length in zip(size[::-1], window.pixels.shape[1:], strict=True)
    )
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def mark(picture: Image.Image, box: Box, window: Box) -> None:
    """Draws a patch's outline, at its place in the picture of a window."""
    scale = picture.width / (window.right - window.left), picture.height / (window.bottom - window.top)
    left, right = ((x - window.left) * scale[0] for x in (box.left, box.right))
    top, bottom = ((y - window.top) * scale[1] for y in (box.top, box.bottom))
    draw = ImageDraw.Draw(picture)
    line = max(1, picture.width // 150)
    for width, color, grown in ((line, "black", 2 * line), (line, MARK, line)):
        draw.rectangle([left - grown, top - grown, right + grown - 1, bottom + grown - 1], outline=color, width=width)


def times(value: float) -> str:
    """A multiple of the even share in a few letters."""
    return f"{value:.2g}\N{MULTIPLICATION SIGN}" if value < 10 else f"{value:.0f}\N{MULTIPLICATION SIGN}"


def color_bar(scale: Scale, width: int, size: int) -> Image.Image:
    """The colours of a scale over the grey of a photo, with values below: "3x" is three times the even share."""
    letters = font(size)
    shades = np.linspace(0, 1, width)[None].repeat(size, 0)
    colors, opacity = glowing(shades)
    base = np.full((size, width, 3), DARKEST_GREY + DIM / 2, np.float32)
    bar = Image.new("RGB", (width + 4 * size, 2 * size + size // 2), "white")
    bar.paste(Image.fromarray((base + (colors - base) * opacity).astype(np.uint8)), (2 * size, 0))
    draw = ImageDraw.Draw(bar)
    for value in scale.ticks():
        left = 2 * size + float(scale.shades(np.array(value))) * (width - 1)
        draw.line([left, size, left, size + size // 4], fill="black")
        draw.text((left, size + size // 4), times(value), fill="black", font=letters, anchor="mt")
    return bar
