"""The temperature at which confidence comes nearest to being right: the least Brier score of some labelled pixels.

The score is the mean of (confidence - 1 where the label is right, 0 where it is wrong)^2, which is least, of all that
could be said of a pixel, for the share of such pixels that are right. We differ from arXiv 1706.04599, section 4.2,
which takes the likelihood of the true labels: without a bound, it is ruled by pixels that are sure and wrong, and in
masks these lie at borders, where annotators are wrong as well. docs/confidence.md has figures of both.
"""

import logging
import math

import numpy as np
import torch
from torch import Tensor

from segmenter import upsample
from segmenter.upsample.probabilities import Passes

KEPT = 2**25  # probabilities, 128 MB ...
PIXELS = 2**18  # ... and at most so many pixels
SEED = 0
TOGETHER = 2**20  # of these probabilities
MOST = 20.0  # the temperature; the least is its inverse
TRIED = 25  # temperatures between them, before the interval around the best is narrowed down
CLOSE = 1e-4  # of its logarithm
TINY = torch.finfo(torch.float32).tiny
GOLDEN = (math.sqrt(5) - 1) / 2

logger = logging.getLogger(__name__)


class SomePixels:
    """Class probabilities of some labelled pixels, of each image as many, and whether their labels are right."""

    def __init__(self, classes: int, images: int, ignore: int):
        """Shares what memory is meant for among so many images."""
        self.each, self.ignore = max(1, min(PIXELS, KEPT // classes) // max(images, 1)), ignore
        self._images: dict[int, tuple[Tensor, Tensor, float]] = {}

    @property
    def count(self) -> int:
        """Pixels so far."""
        return sum(len(right) for _, right, _ in self._images.values())

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
            parts.append(chances[:, *here].T.cpu())  # n K
        best, winner = torch.cat(parts).max(1)
        logs = (torch.cat(parts) / best[:, None]).clamp_(min=TINY).log_()  # of the largest one 0
        right = winner == truth.flatten()[torch.from_numpy(places).to(truth.device)].cpu()
        self._images[number] = logs, right, len(known) / chosen

    def temperature(self) -> float:
        """The temperature, to four digits; between 1 / MOST and MOST."""
        tried = np.linspace(-math.log(MOST), math.log(MOST), TRIED)
        best = int(np.argmin([self._score(math.exp(value)) for value in tried]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, TRIED - 1)]
        while high - low > CLOSE:  # golden section; a score is taken again where it is known, which is simple
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            low, high = (low, right) if self._score(math.exp(left)) < self._score(math.exp(right)) else (left, high)
        found = math.exp((low + high) / 2)
        if not 1.01 / MOST < found < MOST / 1.01:
            logger.warning("no temperature fits the masks: the model is right, or wrong, however sure it is")
        return float(f"{found:.4g}")

    def _score(self, temperature: float) -> float:
        """The sum over pixels of (confidence - right)^2."""
        total = 0.0
        for _, (logs, right, weight) in sorted(self._images.items()):
            for part, hits in zip(*(x.split(max(1, TOGETHER // logs.shape[1])) for x in (logs, right)), strict=True):
                confidence = 1 / (part / temperature).exp_().sum(1)
                total += weight * float((confidence - hits.float()).double().square().sum())
        return total
