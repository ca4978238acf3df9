"""Pictures inside the page: photos as JPEG, few colours as PNG, none longer than the page shows it."""

import base64
import io

import numpy as np
from PIL import Image

from segmenter.views.report.page import Layer

LONGEST_SIDE = 520  # pixels; a card of a gallery is at most as wide
QUALITY = 80  # of JPEG


def drawn_size(size: tuple[int, int], longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """Height and width at which a picture of this size is shown."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def photo_at(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A photo (H W 3 uint8) at a smaller size (h, w)."""
    height, width = size
    factor = (max(1, image.shape[1] // width), max(1, image.shape[0] // height))
    picture = Image.fromarray(image)  # by whole steps first: a large photo is not filtered pixel by pixel
    picture = picture.reduce(factor) if max(factor) > 1 else picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def sampled(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (H W) in the middles of the parts of a smaller size (h, w); labels cannot be averaged."""
    places = [
        ((np.arange(wanted) + 0.5) * length / wanted).astype(np.int64)
        for length, wanted in zip(array.shape, size, strict=True)
    ]
    return array[np.ix_(*places)]


def photo_layer(title: str, picture: Image.Image) -> Layer:
    """A picture of many shades."""
    return Layer(title, _address(picture, "JPEG", quality=QUALITY, optimize=True))


def marked_layer(title: str, picture: Image.Image, marked: np.ndarray, color: tuple[int, int, int]) -> Layer:
    """A picture in pale grey with some pixels (h w bool) in a colour."""
    grey = np.asarray(picture.convert("L"), np.float32)[..., None] * 0.45 + 110
    tinted = grey * 0.35 + np.array(color, np.float32) * 0.65
    shown = np.where(marked[..., None], tinted, grey).clip(0, 255).astype(np.uint8)
    # No chroma subsampling: it would smear single pixels.
    return Layer(title, _address(Image.fromarray(shown), "JPEG", quality=72, subsampling=0, optimize=True))


def color_layer(title: str, colors: np.ndarray) -> Layer:
    """Few colours (h w 3 uint8), exactly; more than 256 are kept too, in a larger file."""
    picture = Image.fromarray(colors)
    few = picture.getcolors(256) is not None
    return Layer(title, _address(picture.quantize(256, dither=Image.Dither.NONE) if few else picture, "PNG"), True)


def shade_layer(title: str, shades: np.ndarray, colors: str, levels: int = 32) -> Layer:
    """Numbers from 0 to 1 (h w; grey where not finite) in a colour map of matplotlib."""
    from matplotlib import colormaps

    table = colormaps[colors](np.linspace(0, 1, levels), bytes=True)[:, :3]
    known = np.isfinite(shades)
    index = np.where(known, np.clip(np.nan_to_num(shades) * levels, 0, levels - 1), levels).astype(np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette([*table.reshape(-1).tolist(), 128, 128, 128])
    return Layer(title, _address(picture, "PNG"), True)


def _address(picture: Image.Image, kind: str, **options) -> str:
    """A picture as an address that holds it."""
    file = io.BytesIO()
    picture.save(file, format=kind, **({"optimize": True} | options))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
