"""A photo with its labels in colour on top, and a legend of the classes in it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segmenter.data.classes import Classes
from segmenter.inference.predict import Photo, Result, as_pixels


def overlay(
    image: Photo, result: Result, opacity: float = 0.55, legend: bool = True
) -> Image.Image:
    """Draws labels over their photo.

    Args:
        image: the photo that `result` was made from: path, picture, or array (H W 3 uint8).
        result: what `segmenter.predict` gave.
        opacity: of the colours, 0 (photo alone) to 1 (colours alone); borders between classes are always opaque.
        legend: add a column with colour, name and share of every class in the picture.

    Raises:
        ValueError: photo and labels are of different sizes.
    """
    photo = as_pixels(image)
    labels = result.labels
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"the photo is {photo.shape[:2]} pixels, the labels are {labels.shape}")
    palette = np.array(result.classes.colors, dtype=np.float32)
    strength = np.full((*labels.shape, 1), opacity, dtype=np.float32)
    strength[_borders(labels)] = 1.0
    mixed = photo * (1 - strength) + palette[labels] * strength
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    return _beside(picture, _legend(labels, result.classes, picture.height)) if legend else picture


def label_picture(labels: np.ndarray, classes: Classes) -> Image.Image:
    """Labels (H W) as a palette PNG whose values are the class ids; 16-bit grey above 256 classes."""
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


def _legend(labels: np.ndarray, classes: Classes, height: int) -> Image.Image:
    """A white column with the classes in the picture, the largest first; as many as the height has room for."""
    size = min(max(height // 24, 11), 40)
    font = ImageFont.load_default(size)
    line, margin = round(size * 1.5), size // 2
    counts = np.bincount(labels.reshape(-1), minlength=len(classes))
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    texts = [f"{classes.names[i]}  {_share(counts[i] / labels.size)}" for i in present]
    room = max(1, (height - 2 * margin) // line)
    if len(texts) > room:
        hidden = len(texts) - (room - 1)
        texts = [*texts[: room - 1], f"and {hidden} more"]
    width = round(max(font.getlength(text) for text in texts)) + 3 * margin + size
    column = Image.new("RGB", (width, max(height, line + 2 * margin)), "white")
    draw = ImageDraw.Draw(column)
    for row, (index, text) in enumerate(zip(present, texts, strict=False)):
        top = margin + row * line
        if not text.startswith("and "):
            box = [margin, top + (line - size) // 2, margin + size, top + (line + size) // 2]
            draw.rectangle(box, fill=classes.colors[index], outline="black")
        draw.text((2 * margin + size, top + line / 2), text, fill="black", font=font, anchor="lm")
    return column


def _share(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    return picture
