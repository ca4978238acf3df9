"""The temperature at which some labelled pixels are likeliest: of each image as many, drawn with a seed.

The negative log-likelihood is convex in 1 / T, so that its one minimum is found by Newton's method, kept between the
ends of an interval that shrinks.
"""

import logging
import math

import numpy as np
import torch
from torch import Tensor

from segmenter import upsample
from segmenter.upsample.probabilities import Passes

KEPT = 2**25  # logarithms of probabilities, 128 MB ...
PIXELS = 2**18  # ... and at most so many pixels
SEED = 0
MOST = 20.0  # the temperature; the least is its inverse
TOGETHER = 2**20  # of these logarithms, in float64
STEPS = 60
TINY = torch.finfo(torch.float32).tiny

logger = logging.getLogger(__name__)


class SomePixels:
    """Logarithms of the class probabilities of some pixels, with their true classes."""

    def __init__(self, classes: int, images: int, ignore: int):
        """Makes room for as many pixels of each of the images as memory is meant for."""
        self.each, self.ignore = max(1, min(PIXELS, KEPT // classes) // max(images, 1)), ignore
        self._images: dict[int, tuple[Tensor, Tensor, float]] = {}

    @property
    def count(self) -> int:
        """Pixels so far."""
        return sum(len(truth) for _, truth, _ in self._images.values())

    def add(self, number: int, passes: Passes, truth: Tensor) -> None:
        """Takes some labelled pixels of one image, the same ones for the same number; truth (H W)."""
        known = (truth != self.ignore).flatten().nonzero()[:, 0].cpu().numpy()
        chosen = min(self.each, len(known))
        if not chosen:
            return
        places = np.sort(np.random.default_rng((SEED, number)).choice(known, chosen, replace=False))
        rows, columns = np.divmod(places, truth.shape[1])
        parts = []
        for band, chances in upsample.mean_probabilities(passes):
            first, last = np.searchsorted(rows, (band.start, band.stop))
            here = (torch.from_numpy(part[first:last]).to(chances.device) for part in (rows - band.start, columns))
            parts.append(chances[:, *here].T.clamp(min=TINY).log().cpu())  # n K
        true = truth.flatten()[torch.from_numpy(places).to(truth.device)].long().cpu()
        self._images[number] = torch.cat(parts), true, len(known) / chosen

    def temperature(self) -> float:
        """The temperature, to six digits; between 1 / MOST and MOST."""
        low, high, inverse = 1 / MOST, MOST, 1.0
        for _ in range(STEPS):
            slope, curvature = self._slopes(inverse)
            low, high = (low, inverse) if slope > 0 else (inverse, high)
            following = inverse - slope / curvature if curvature > 0 else math.nan
            if not low < following < high:
                following = math.sqrt(low * high)
            done = abs(following - inverse) < 1e-9 * inverse
            inverse = following
            if done:
                break
        if not 1.01 / MOST < inverse < MOST / 1.01:
            logger.warning("no temperature fits the masks: the model is right, or wrong, whatever its confidence is")
        return float(f"{1 / inverse:.6g}")

    def _slopes(self, inverse: float) -> tuple[float, float]:
        """First and second derivative of the negative log-likelihood at an inverse temperature, a labelled pixel."""
        slope = curvature = total = 0.0
        for _, (logs, true, weight) in sorted(self._images.items()):
            for part, labels in zip(*(x.split(max(1, TOGETHER // logs.shape[1])) for x in (logs, true)), strict=True):
                values = part.double()
                chances = (values * inverse).softmax(1)
                mean = (chances * values).sum(1)
                slope += weight * float((mean - values.gather(1, labels[:, None])[:, 0]).sum())
                curvature += weight * float(((chances * values.square()).sum(1) - mean.square()).sum())
            total += weight * len(true)
        return slope / total, curvature / total
