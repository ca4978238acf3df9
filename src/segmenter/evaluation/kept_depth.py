"""What an evaluation of depth keeps of every image: its errors, and sums of errors by distance."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from segmenter.config import Alignment
from segmenter.evaluation.depth_metrics import METRICS, DepthScores
from segmenter.evaluation.kept_labels import Measures, ratio

DISTANCES = 8  # ranges of true depth
BY_DISTANCE = ("pixels", "abs_rel", "squared", "delta1")  # sums over the pixels of a range


@dataclass(frozen=True)
class KeptDepth:
    """The errors of N images."""

    task = "depth"
    names: tuple[str, ...]
    sizes: np.ndarray
    """N 2 int32: height and width of every image."""
    errors: np.ndarray
    """N 1 + METRICS float64: 1 and the metrics of an image, or zeros where nothing of it could be scored."""
    distances: np.ndarray
    """N DISTANCES 4 float64: BY_DISTANCE, sums over the pixels whose true depth is in a range."""
    edges: tuple[float, ...]
    """DISTANCES + 1: the ranges' ends in metres; a range holds its upper end."""
    alignment: Alignment = "none"
    """Of predictions to the truth, as it was done."""
    about: dict = field(default_factory=dict)
    """What was evaluated: plain values for JSON."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scores(self) -> DepthScores:
        """The scores of all images, as `evaluate` gives them."""
        return DepthScores(sum(self.errors, np.zeros(1 + len(METRICS))), self.alignment)

    @cached_property
    def per_image(self) -> Measures:
        """`measures` of every image by itself, each metric (N); nan where nothing could be scored."""
        return self.measures(self.sums(0, len(self)))

    def select(self, images: Sequence[int] | np.ndarray) -> "KeptDepth":
        """The same of some images alone: places in `names`, in the order wanted."""
        images = np.asarray(images, np.int64)
        return replace(
            self,
            names=tuple(self.names[i] for i in images),
            sizes=self.sizes[images],
            errors=self.errors[images],
            distances=self.distances[images],
        )

    def same_truth(self, other: "KeptDepth") -> np.ndarray:
        """Of every image (N bool), whether another evaluation had the same size, and as many pixels in each range."""
        pixels = (self.distances[..., 0] == other.distances[..., 0]).all(1)
        return pixels & (self.sizes == other.sizes).all(1)

    @property
    def definitions(self) -> str:
        """What measures depend on besides the pixels, in words."""
        return f"depth to {self.edges[-1]:g} m, alignment {self.alignment.replace('_', ' ')}"

    # Sums from which all measures follow, for bootstrap

    @property
    def columns(self) -> int:
        """F, the length of `sums`."""
        return self.errors.shape[1] + DISTANCES * len(BY_DISTANCE)

    def sums(self, first: int, last: int) -> np.ndarray:
        """What `measures` needs of the images from `first` to before `last` (n F float64); they add up over images."""
        return np.concatenate(
            [self.errors[first:last], self.distances[first:last].reshape(last - first, DISTANCES * len(BY_DISTANCE))], 1
        )

    def measures(self, sums: np.ndarray) -> Measures:
        """Measures from sums (... F): METRICS, means over images, and by distance, over pixels (... DISTANCES each).

        nan where nothing could be scored.
        """
        images, *metrics = np.moveaxis(sums[..., : 1 + len(METRICS)], -1, 0)
        by_distance = sums[..., 1 + len(METRICS) :].reshape(*sums.shape[:-1], DISTANCES, len(BY_DISTANCE))
        pixels, relative, squared, within = np.moveaxis(by_distance, -1, 0)
        return {name: ratio(metric, images) for name, metric in zip(METRICS, metrics, strict=True)} | {
            "distance_abs_rel": ratio(relative, pixels),
            "distance_rmse": np.sqrt(ratio(squared, pixels)),
            "distance_delta1": ratio(within, pixels),
        }
