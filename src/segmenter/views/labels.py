"""Labels as pictures: in the classes' colours with borders and legend, and as PNG of class ids or of a server's."""

import copy
import math
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from segmenter import atomic
from segmenter.data.classes import Classes
from segmenter.inference.labels import Result
from segmenter.views.results import Write
from segmenter.views.server_formats import Format, server_picture

LEAST_ROWS = 12  # of the legend, beside however low a photo
LONGEST_NAME = 40


def label_colors(result: Result) -> Image.Image:
    """Every pixel in the colour of its class."""
    return Image.fromarray(np.array(result.classes.colors, dtype=np.uint8)[result.labels])


def label_overlay(photo: Image.Image, result: Result, opacity: float) -> Image.Image:
    """The colours over the photo, and opaque where two classes meet."""
    colors = label_colors(result)
    picture = Image.blend(photo, colors, opacity)
    picture.paste(colors, mask=Image.fromarray(_borders(result.labels)))
    return picture


def sampled_labels(result: Result, rows: np.ndarray, columns: np.ndarray) -> Result:
    """The result with labels (h w) at some of its rows and columns."""
    found = copy.copy(result)
    found.labels = result.labels[np.ix_(rows, columns)]
    return found


def write_labels(result: Result, path: Path, format: Format, write: Write = atomic.write) -> dict[str, str | float]:
    """Writes the PNG at `path`, of class ids or of a server's values; returns it."""
    plain = format == "labels"
    picture = label_picture(result.labels, result.classes) if plain else server_picture(result.labels, format)
    write(path, lambda beside: picture.save(beside, format="PNG"))
    return {"labels": str(path)}


def label_picture(labels: np.ndarray, classes: Classes) -> Image.Image:
    """Labels (H W) as a palette PNG whose values are the class ids; 16-bit grey above 255 classes."""
    if labels.dtype == np.uint16:
        return Image.fromarray(labels)
    picture = Image.fromarray(labels.astype(np.uint8, copy=False), mode="P")
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


def class_legend(labels: np.ndarray, classes: Classes) -> Image.Image:
    """White columns with every class in the picture, the largest first; higher than the picture only if that is low."""
    height, width = labels.shape
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    texts = [f"{short_name(classes.names[i])}  {_share(counts[i] / labels.size)}" for i in present]
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


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A class's name, its middle left out where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest // 2) :]}"


def _share(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
