"""Photos as the network sees them when it predicts: at the training scale, in windows, normalised."""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmenter.inference.passes import effective_settings, scaled
from segmenter.inference.predict import Photo, as_pixels
from segmenter.inference.windows import windows_of
from segmenter.model.segmenter import Segmenter


def windows_seen(model: Segmenter, image: Photo, native: bool = False) -> Iterator[Tensor]:
    """A photo to its windows, a few in each pass (B 3 h w, normalised, on the model's device)."""
    settings = effective_settings(model, None, native)
    crops, _ = windows_of(model, scaled(as_pixels(image), model.recipe.augment, settings.native), settings)
    for first in range(0, len(crops), settings.batch):
        yield model.normalize(torch.stack(crops[first : first + settings.batch]))
