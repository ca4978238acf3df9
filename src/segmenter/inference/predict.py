"""A photo to labels at the photo's own size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from segmenter import upsample
from segmenter.data.classes import Classes
from segmenter.data.files import GREY_16, read_image
from segmenter.errors import UserError
from segmenter.inference.depth import DepthResult, predict_depth, refuse_multiscale
from segmenter.inference.passes import many_passes, one_pass, scaled
from segmenter.model.segmenter import Segmenter

Photo = str | Path | Image.Image | np.ndarray


def as_pixels(image: Photo) -> np.ndarray:
    """A path, a picture, or an array (H W 3 uint8) to an array (H W 3 uint8); files and pictures become upright.

    Raises:
        UserError: the file is no image, or it has channels that are not a colour picture's.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _picture_pixels(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(f"the array is {image.dtype} of shape {image.shape}; give uint8 of shape (height, width, 3)")
    return image


def _picture_pixels(picture: Image.Image) -> np.ndarray:
    """As `read_image` does with the picture's file."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in GREY_16:
        grey = (np.asarray(upright).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)  # H W 3
    if upright.mode in ("I", "F", "LAB", "HSV"):
        raise UserError(f"the picture has pixels of the kind {upright.mode!r}; give grey (8 or 16 bits) or RGB")
    return np.array(upright.convert("RGB"))


class Result:
    """Labels (H W, uint8, or uint16 above 255 classes) of one image, and what it takes to say more about them."""

    def __init__(self, passes: list, classes: Classes):
        self.classes = classes
        self._passes = passes
        dtype, narrow = (np.uint8, torch.uint8) if len(classes) <= 255 else (np.uint16, torch.int32)
        labels = upsample.labels(*passes[0], narrow)[0] if len(passes) == 1 else upsample.labels_of_mean(passes, narrow)
        self.labels: np.ndarray = labels.cpu().numpy().astype(dtype, copy=False)

    def probabilities(self) -> np.ndarray:
        """Class probabilities (K H W float32) at every pixel; large: K x 4 bytes a pixel."""
        return np.concatenate([part.cpu().numpy() for _, part in upsample.mean_probabilities(self._passes)], 1)

    def probability_bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The same in bands of rows, each (rows, K r W float32), for images too large to hold it at once."""
        for rows, part in upsample.mean_probabilities(self._passes):
            yield rows, part.cpu().numpy()


@torch.inference_mode()
def predict(
    model: Segmenter,
    image: Photo,
    multiscale: bool = False,
    native: bool = False,
) -> Result | DepthResult:
    """Segments one image at its own size; with a model of depth, says the depth of its pixels.

    Args:
        model: in evaluation mode, as `segmenter.load` gives it.
        image: path, picture, or array (H W 3 uint8).
        multiscale: mean of six scales and their mirror images: better, and more than twelve times slower.
        native: keep the photo's scale instead of bringing it to the one the model was trained at, even where the
            model's recipe (`inference.native`) does not say so.

    Raises:
        UserError: the file is no image, or has other than 1, 3 or 4 channels.
    """
    pixels = as_pixels(image)
    native = native or model.recipe.inference.native
    if model.recipe.task == "depth":
        refuse_multiscale(multiscale)
        return predict_depth(model, pixels, native)
    if multiscale:
        return Result(many_passes(model, pixels, native), model.classes)
    return Result([one_pass(model, scaled(pixels, model.recipe.augment, native), pixels.shape[:2])], model.classes)
