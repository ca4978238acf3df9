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
SURE = 2.0
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

    def temperature(self, earlier: float = 1.0) -> float:
        """The temperature, to four digits, between 1 / MOST and MOST; or the earlier one.

        That stays unless the images agree: where the score falls by less than SURE standard errors over them, another
        choice of images could have made it rise.
        """
        tried = np.linspace(-math.log(MOST), math.log(MOST), TRIED)
        best = int(np.argmin([self._scores(math.exp(value)).sum() for value in tried]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, TRIED - 1)]
        while high - low > CLOSE:  # golden section; a score is taken again where it is known, which is simple
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            at_left, at_right = (self._scores(math.exp(value)).sum() for value in (left, right))
            low, high = (low, right) if at_left < at_right else (left, high)
        found = math.exp((low + high) / 2)
        change = self._scores(found) - self._scores(earlier)
        if change.sum() + SURE * self._error(change) >= 0:
            return earlier
        if not 1.01 / MOST < found < MOST / 1.01:
            logger.warning("no temperature fits the masks: the model is right, or wrong, however sure it is")
        return float(f"{found:.4g}")

    def _error(self, change: np.ndarray) -> float:
        """The standard error of the sum of what changed in each image, in proportion to its pixels; 0 for one image."""
        pixels = np.array([weight * len(right) for _, (_, right, weight) in sorted(self._images.items())])
        rest = change - pixels * change.sum() / pixels.sum()
        return math.sqrt(len(rest) / max(len(rest) - 1, 1) * np.square(rest).sum())

    def _scores(self, temperature: float) -> np.ndarray:
        """For each image, the sum over its labelled pixels of (confidence - right)^2."""
        totals = []
        for _, (logs, right, weight) in sorted(self._images.items()):
            parts = zip(*(values.split(max(1, TOGETHER // logs.shape[1])) for values in (logs, right)), strict=True)
            errors = [1 / (part / temperature).exp_().sum(1) - hits.float() for part, hits in parts]
            totals.append(weight * sum(float(error.double().square().sum()) for error in errors))
        return np.array(totals)
