"""A photo with a model's labels or depth in colour on top, and a legend."""

from PIL import Image

from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inference.predict import Photo, as_pixels
from segmenter.views.tasks import TASKS


def overlay(
    image: Photo, result: Result | DepthResult, opacity: float | None = None, legend: bool = True
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

    Raises:
        ValueError: photo and labels, or depth, are of different sizes.
    """
    photo, task = as_pixels(image), TASKS[result.task]
    size = task.size(result)
    if photo.shape[:2] != size:
        raise ValueError(f"the photo is {photo.shape[:2]} pixels, the {task.words} {size}")
    picture = task.draw(Image.fromarray(photo), result, task.opacity if opacity is None else opacity)
    return _beside(picture, task.legend(result)) if legend else picture


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    picture = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width, 0))
    return picture
