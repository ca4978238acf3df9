"""Images to labels at their own size."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.classes import Classes
from segmenter.inference.passes import many_passes, scaled
from segmenter.inference.windows import logits_of_many
from segmenter.model.segmenter import Segmenter

Size = tuple[int, int]


class Result:
    """Labels (H W, uint8, or uint16 above 255 classes) of one image; class probabilities on demand."""

    task = "labels"

    def __init__(self, passes: list, classes: Classes, temperature: float = 1.0):
        self.classes, self.temperature = classes, temperature
        self._passes = passes
        dtype, narrow = (np.uint8, torch.uint8) if len(classes) <= 255 else (np.uint16, torch.int32)
        labels = upsample.labels(*passes[0], narrow)[0] if len(passes) == 1 else upsample.labels_of_mean(passes, narrow)
        self.labels: np.ndarray = labels.cpu().numpy().astype(dtype, copy=False)

    def probabilities(self) -> np.ndarray:
        """Class probabilities (K H W float32, 0 to 1, summing to 1) at every pixel; 4 K bytes per pixel.

        >>> result = segmenter.predict(segmenter.load("runs/first"), "photos/test/images/test0.png")
        >>> result.probabilities().shape
        (3, 64, 64)
        """
        return np.concatenate([part for _, part in self.probability_bands()], 1)

    def confidence(self) -> np.ndarray:
        """Probability of its label at every pixel (H W float32, 0 to 1), the largest of all classes'.

        Of a model that was calibrated (`segmenter calibrate`), it is about the share of such pixels that are right.

        >>> result = segmenter.predict(segmenter.load("runs/first"), "photos/test/images/test0.png")
        >>> doubtful = result.confidence() < 0.5
        >>> doubtful.shape
        (64, 64)
        """
        labels = self.labels if self.labels.dtype == np.uint8 else self.labels.astype(np.int32)
        given = torch.from_numpy(labels).to(self._passes[0][0].device)
        return upsample.probability_of(self._passes, given, self.temperature).cpu().numpy()

    def probability_bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """The same in bands of rows, each (rows, K r W float32), for images too large to hold it all at once.

        >>> result = segmenter.predict(segmenter.load("runs/first"), "photos/test/images/test0.png")
        >>> sums = [part.sum((1, 2)) for rows, part in result.probability_bands()]  # of each class
        >>> len(sums[0])
        3
        """
        for rows, part in upsample.mean_probabilities(self._passes, self.temperature):
            yield rows, part.cpu().numpy()


def label_results(
    model: Segmenter, images: Iterable[np.ndarray], settings: config.Inference, multiscale: bool
) -> Iterator[Result]:
    """Labels of each image (H W 3 uint8), in order; windows of one size share passes, also across images."""
    if multiscale:
        for image in images:
            yield Result(many_passes(model, image, settings), model.classes, model.temperature)
        return

    def placed() -> Iterator[tuple[Tensor, tuple[int, Size]]]:
        for place, image in enumerate(images):
            yield scaled(image, model.recipe.augment, settings.native), (place, image.shape[:2])

    # For images that overtake others only the logits are stored: labels at a photo's own size may be far larger.
    early, turn = {}, 0
    for logits, geometry, (place, size) in logits_of_many(model, placed(), settings):
        early[place] = logits, replace(geometry, final=size)
        while turn in early:
            yield Result([early.pop(turn)], model.classes, model.temperature)
            turn += 1
