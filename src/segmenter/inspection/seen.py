"""Photos as the network sees them when it predicts: at the training scale, in windows, normalised."""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmenter.inference.predict import Photo, as_pixels
from segmenter.inspection.places import windows_on
from segmenter.model.segmenter import Segmenter


def windows_seen(model: Segmenter, image: Photo, native: bool = False) -> Iterator[Tensor]:
    """A photo to its windows, a few in each pass (B 3 h w, normalised, on the model's device)."""
    windows, batch = windows_on(model, as_pixels(image), native), model.recipe.inference.batch
    for first in range(0, len(windows), batch):
        yield model.normalize(torch.stack([window.pixels for window in windows[first : first + batch]]))
