"""Photos to a model's labels or depth, at each photo's own size."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image, ImageOps

from segmenter import config
from segmenter.data.files import GREY_16, read_image
from segmenter.errors import UserError
from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inference.mode import in_evaluation_mode
from segmenter.inference.passes import effective_settings
from segmenter.inference.tasks import TASKS, refuse_multiscale
from segmenter.model.segmenter import Segmenter
from segmenter.ranges import checked

Photo = str | Path | Image.Image | np.ndarray


def as_pixels(image: Photo) -> np.ndarray:
    """A path, a picture, or an array (H W 3 uint8) to an array (H W 3 uint8); files and pictures become upright.

    Raises:
        UserError: the file is not an image, or its channels are not those of a colour picture.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _picture_pixels(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(f"the array is {image.dtype} of shape {image.shape}; give uint8 of shape (height, width, 3)")
    return image


def _picture_pixels(picture: Image.Image) -> np.ndarray:
    """The pixels of a picture, as `read_image` reads them from a file."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in GREY_16:
        grey = (np.asarray(upright).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)  # H W 3
    if upright.mode in ("I", "F", "LAB", "HSV"):
        raise UserError(f"the picture has pixels of the kind {upright.mode!r}; give grey (8 or 16 bits) or RGB")
    return np.array(upright.convert("RGB"))


@overload
def predict(
    model: Segmenter,
    image: Photo,
    multiscale: bool = False,
    native: bool = False,
    inference: config.Inference | None = None,
) -> Result | DepthResult: ...


@overload
def predict(
    model: Segmenter,
    image: Iterable[Photo],
    multiscale: bool = False,
    native: bool = False,
    inference: config.Inference | None = None,
) -> Iterator[Result | DepthResult]: ...


@checked
def predict(
    model: Segmenter,
    image: Photo | Iterable[Photo],
    multiscale: bool = False,
    native: bool = False,
    inference: config.Inference | None = None,
) -> Result | DepthResult | Iterator[Result | DepthResult]:
    """Predicts the labels of one image, or of several one after another, at its own size; or the depth of its pixels.

    >>> model = segmenter.load("runs/first")
    >>> segmenter.predict(model, "photos/test/images/test0.png").labels.shape
    (64, 64)
    >>> for result in segmenter.predict(model, sorted(Path("photos/test/images").iterdir())):
    ...     print(result.labels.dtype)
    uint8
    uint8

    Args:
        model: in any mode; predictions are made in evaluation mode.
        image: path, picture, or array (H W 3 uint8); or an iterable of them, which is consumed as results are
            requested. Windows of several images share passes through the network.
        multiscale: average six scales and their mirror images: better, and more than twelve times slower.
        native: keep the photo's scale instead of bringing it to the training scale, even if the settings do not say so.
        inference: windows and scale; None: those of the model's recipe. `segmenter.inference.presets.settings` gives
            those of the published commands.

    Returns:
        A result with `labels` (H W, uint8, or uint16 above 255 classes), or for a depth model with `depth` (H W
        float32); for an iterable, an iterator over the results, in order.

    Raises:
        UserError: multiscale is set for a depth model; or a file is not an image, or does not have 1, 3 or 4 channels:
            for an iterable, raised after the results of the images before it.
    """
    refuse_multiscale(model, multiscale)
    alone = isinstance(image, Photo)
    failed: list[UserError] = []
    photos = _read([image] if alone else image, failed)
    settings = effective_settings(model, inference, native)
    results = in_evaluation_mode(model, TASKS[model.recipe.task].results(model, photos, settings, multiscale))
    return next(_with_error(results, failed)) if alone else _with_error(results, failed)


def _read(photos: Iterable[Photo], failed: list[UserError]) -> Iterator[np.ndarray]:
    """The pixels of the photos up to the first that cannot be read; its error is added to `failed`."""
    for photo in photos:
        try:
            yield as_pixels(photo)
        except UserError as error:
            failed.append(error)
            return


def _with_error(results: Iterator[Result | DepthResult], failed: list[UserError]) -> Iterator[Result | DepthResult]:
    """The results, followed by the error that ended them, if any."""
    yield from results
    if failed:
        raise failed[0]
