"""Confidence as files: 16-bit PNG, and a picture that glows where the model doubts, with a scale beside it.

Where the model is sure the photo shows through, grey and dark; the less sure, the brighter. Lightness alone tells the
order, so that it can be read without seeing colours, and in print.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from segmenter import atomic
from segmenter.views.overlay import beside, drawn_size, middles, shrunk
from segmenter.views.results import Write

LARGEST = 65535  # in the PNG: certainty
BAND = 256  # rows that are worked on together
COLORS = colormaps["inferno"](np.linspace(0, 1, 256), bytes=True)[:, :3].astype(np.float32)
DOUBTFUL = 0.7  # 1 - confidence of the brightest colour; of two classes that are as likely it is 0.5
HIDING = 0.15  # 1 - confidence from which on the photo does not show through
DARK, CONTRAST = 30.0, 0.55  # shades of the photo: colours stand out from it, and its shadows from black
TICKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
UNSURE = (0.9, 0.5)  # for the text below the scale


def write_confidence(confidence: np.ndarray, path: Path, write: Write = atomic.write) -> None:
    """Writes confidence (H W, 0 to 1) as a PNG whose values / 65535 it is; the text `scale` in the file says so."""
    values = np.empty(confidence.shape, np.uint16)
    for top in range(0, len(confidence), BAND):
        band = slice(top, top + BAND)
        values[band] = np.rint(np.clip(np.nan_to_num(confidence[band]), 0, 1) * LARGEST)
    about = PngInfo()
    about.add_text("scale", f"{LARGEST}")
    picture = Image.fromarray(values)
    write(path, lambda beside: picture.save(beside, format="PNG", pnginfo=about))


def confidence_picture(photo: np.ndarray, confidence: np.ndarray, largest: int) -> Image.Image:
    """A photo (H W 3 uint8), dark and grey, on which doubt glows (confidence H W), with a scale beside it.

    It has at most `largest` pixels without the scale; that of a larger photo is smaller, as `overlay` draws it.
    """
    size = photo.shape[:2]
    if (smaller := drawn_size(size, largest)) != size:
        drawn = confidence_overlay(shrunk(photo, smaller), confidence[np.ix_(*map(middles, size, smaller))])
    else:
        drawn = confidence_overlay(Image.fromarray(photo), confidence)
    return beside(drawn, confidence_legend(confidence, drawn.height))


def confidence_overlay(photo: Image.Image, confidence: np.ndarray) -> Image.Image:
    """The photo, dark and grey, with doubt (confidence H W) glowing on it."""
    drawn, grey = np.empty((*confidence.shape, 3), np.uint8), np.asarray(photo.convert("L"))
    for top in range(0, len(drawn), BAND):
        band = slice(top, top + BAND)
        drawn[band] = _blended(grey[band], 1 - np.nan_to_num(confidence[band]))
    return Image.fromarray(drawn)


def _blended(grey: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """The photo's shades of grey (0 to 255) and doubt (0 to 1), of one shape, to colours (... 3 uint8)."""
    shade = np.clip(doubt / DOUBTFUL, 0, 1)
    colors = COLORS[np.rint(shade * 255).astype(np.int64)]
    opacity = np.clip(doubt / HIDING, 0, 1)[..., None]
    behind = DARK + CONTRAST * grey[..., None].astype(np.float32)
    return np.rint(opacity * colors + (1 - opacity) * behind).astype(np.uint8)


def confidence_legend(confidence: np.ndarray, height: int) -> Image.Image:
    """A white column, about as high as the picture: the colours from sure to unsure, and how much of it is which."""
    size = max(12, height // 24)
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    margin, line = size // 2, round(1.5 * size)
    shares = [f"below {100 * bound:.0f} %: {_share(confidence, bound)}" for bound in UNSURE]
    texts = ["confidence", *shares]
    ticks = [f"{100 * tick:.0f} %" for tick in TICKS]
    rows = max(height - line * (len(texts) + 1) - 2 * margin, line * len(TICKS))
    width = 2 * margin + round(max(3 * size + max(map(font.getlength, ticks)), *map(font.getlength, texts)))
    legend = Image.new("RGB", (width, max(height, rows + line * (len(texts) + 1) + 2 * margin)), "white")
    draw = ImageDraw.Draw(legend)
    draw.text((margin, margin + line / 2), texts[0], fill="black", font=font, anchor="lm")
    top = margin + round(1.5 * line)
    levels = np.linspace(TICKS[0], TICKS[-1], rows, dtype=np.float32)[:, None].repeat(2 * size, 1)
    legend.paste(Image.fromarray(_blended(np.full(levels.shape, 128), 1 - levels)), (margin, top))
    for tick, text in zip(TICKS, ticks, strict=True):
        at = top + rows * (TICKS[0] - tick) / (TICKS[0] - TICKS[-1])
        draw.line([(margin + 2 * size, at), (margin + 2.4 * size, at)], fill="black", width=max(1, size // 12))
        draw.text((margin + 2.7 * size, at), text, fill="black", font=font, anchor="lm")
    for number, text in enumerate(shares):
        draw.text((margin, top + rows + line * (number + 1)), text, fill="black", font=font, anchor="lm")
    return legend


def _share(confidence: np.ndarray, bound: float) -> str:
    share = float(np.mean(confidence < bound))
    return "0 %" if share == 0 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
