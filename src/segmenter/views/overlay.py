"""A photo with a model's labels or depth in colour on top, and a legend."""

import math

import numpy as np
from PIL import Image

from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inference.predict import Photo, as_pixels
from segmenter.ranges import Count, Probability, checked
from segmenter.views.tasks import TASKS

LONGEST_SIDE = 2**15  # of a picture that is made smaller; a JPEG's, with its legend, ends at 65500
BAND = 64  # rows of a smaller picture that are made together


@checked
def overlay(
    image: Photo,
    result: Result | DepthResult,
    opacity: Probability | None = None,
    legend: bool = True,
    largest: Count | None = None,
) -> Image.Image:
    """Draws labels or depth over their photo.

    >>> photo = "photos/test/images/test0.png"
    >>> result = segmenter.predict(segmenter.load("runs/first"), photo)
    >>> segmenter.overlay(photo, result, legend=False).size
    (64, 64)

    Args:
        image: the photo that `result` was made from: path, picture, or array (H W 3 uint8).
        result: what `segmenter.predict` gave.
        opacity: of the colours, 0 (photo alone) to 1 (colours alone); borders between classes are always opaque.
            None: 0.55 for labels, 1 for depth, whose shades could not be told through a photo.
        legend: add a column with colour, name and share of every class in the picture, or the colours of depth.
        largest: pixels that the picture has at most, without its legend: a larger photo is drawn smaller, in little
            more memory than the picture takes. None: as large as the photo.

    Raises:
        UserError: a number is outside its range.
        ValueError: photo and labels, or depth, are of different sizes.
    """
    photo, task = as_pixels(image), TASKS[result.task]
    size = task.size(result)
    if photo.shape[:2] != size:
        raise ValueError(f"the photo is {photo.shape[:2]} pixels, the {task.words} {size}")
    picture, smaller = None, drawn_size(size, largest) if largest else size
    if smaller != size:
        picture = shrunk(photo, smaller)
        result = task.sampled(result, *map(middles, size, smaller))
    picture = task.draw(picture or Image.fromarray(photo), result, task.opacity if opacity is None else opacity)
    return beside(picture, task.legend(result)) if legend else picture


def drawn_size(size: tuple[int, int], largest: int) -> tuple[int, int]:
    """Height and width at which `overlay` draws a photo of this size."""
    height, width = size
    scale = min(math.sqrt(largest / (height * width)), LONGEST_SIDE / max(size))
    return size if scale >= 1 else (max(1, int(height * scale)), max(1, int(width * scale)))


def shrunk(photo: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A photo (H W 3 uint8) at a smaller size: by whole steps band by band, as Pillow would copy it, then exactly."""
    down, along = (length // wanted for length, wanted in zip(photo.shape, size, strict=False))
    rows = range(0, len(photo), down * BAND)
    bands = [np.asarray(Image.fromarray(photo[top : top + rows.step]).reduce((along, down))) for top in rows]
    return Image.fromarray(np.concatenate(bands)).resize(size[::-1], Image.Resampling.BOX)


def middles(length: int, count: int) -> np.ndarray:
    """The pixels in the middle of each of the parts that an axis is divided into."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures side by side, on white."""
    picture = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    return picture
