"""A photo with its labels or its depth in colour on top, and a legend of what is in it."""

import math
from itertools import accumulate

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from segmenter.data.classes import Classes
from segmenter.inference.depth import DepthResult
from segmenter.inference.predict import Photo, Result, as_pixels
from segmenter.views.depth import depth_colors, depth_legend

LEAST_ROWS = 12  # of the legend, beside however low a photo
LONGEST_NAME = 40


def overlay(
    image: Photo, result: Result | DepthResult, opacity: float | None = None, legend: bool = True
) -> Image.Image:
    """Draws labels or depth over their photo.

    Args:
        image: the photo that `result` was made from: path, picture, or array (H W 3 uint8).
        result: what `segmenter.predict` gave.
        opacity: of the colours, 0 (photo alone) to 1 (colours alone); borders between classes are always opaque.
            None: 0.55 for labels, 1 for depth, whose shades could not be told through a photo.
        legend: add a column with colour, name and share of every class in the picture, or the colours of depth.

    Raises:
        ValueError: photo and labels, or depth, are of different sizes.
    """
    photo = as_pixels(image)
    depth = isinstance(result, DepthResult)
    pixels, what, usual = (result.depth, "depth is", 1.0) if depth else (result.labels, "labels are", 0.55)
    if photo.shape[:2] != pixels.shape:
        raise ValueError(f"the photo is {photo.shape[:2]} pixels, the {what} {pixels.shape}")
    colors = depth_colors(result) if depth else Image.fromarray(np.array(result.classes.colors, dtype=np.uint8)[pixels])
    picture = Image.blend(Image.fromarray(photo), colors, usual if opacity is None else opacity)
    if not depth:
        picture.paste(colors, mask=Image.fromarray(_borders(pixels)))
    if not legend:
        return picture
    return _beside(picture, depth_legend(result) if depth else _legend(pixels, result.classes))


def label_picture(labels: np.ndarray, classes: Classes) -> Image.Image:
    """Labels (H W) as a palette PNG whose values are the class ids; 16-bit grey above 255 classes."""
    if labels.dtype == np.uint16:
        return Image.fromarray(labels)
    picture = Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(classes.palette())
    return picture


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels (H W bool) whose right or lower neighbour has another label, thicker on large photos."""
    borders = np.zeros(labels.shape, dtype=bool)
    reach = max(1, min(labels.shape) // 500)
    for shift in range(1, reach + 1):
        borders[:, :-shift] |= labels[:, :-shift] != labels[:, shift:]
        borders[:-shift] |= labels[:-shift] != labels[shift:]
    return borders


def _legend(labels: np.ndarray, classes: Classes) -> Image.Image:
    """White columns with every class in the picture, the largest first; higher than the picture only if that is low."""
    height, width = labels.shape
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    texts = [f"{_short(classes.names[i])}  {_share(counts[i] / labels.size)}" for i in present]
    # The height takes 24 lines, up to 48 where there are many classes; letters below 12 pixels cannot be read.
    size = max(12, round(min(height, 2 * width) / (1.5 * min(max(len(texts), 24), 48) + 1)))
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    line, margin = round(size * 1.5), size // 2
    rows = min(len(texts), max((height - 2 * margin) // line, LEAST_ROWS))
    columns = [range(start, min(start + rows, len(texts))) for start in range(0, len(texts), rows)]
    widths = [math.ceil(max(font.getlength(texts[i]) for i in column)) + 3 * margin + size for column in columns]
    legend = Image.new("RGB", (sum(widths), max(height, rows * line + 2 * margin)), "white")
    draw = ImageDraw.Draw(legend)
    for left, column in zip(accumulate(widths, initial=0), columns, strict=False):
        for row, i in enumerate(column):
            top = margin + row * line
            box = [left + margin, top + (line - size) // 2, left + margin + size, top + (line + size) // 2]
            draw.rectangle(box, fill=classes.colors[present[i]], outline="black")
            draw.text((left + 2 * margin + size, top + line / 2), texts[i], fill="black", font=font, anchor="lm")
    return legend


def _short(name: str) -> str:
    """The name, its middle left out where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2) :]}"


def _share(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    return picture
