"""Scores of depth, as is usual: for every image over its measured pixels, then the mean over images.

Sources: Eigen et al., arXiv 1406.2283, section 4 (thresholds, relative and RMS errors); KITTI's depth benchmark (SILog,
in percent); alignment of relative predictions as in MiDaS, arXiv 1907.01341, section 6.
"""

from dataclasses import dataclass

import numpy as np

from segmenter.config import Alignment

METRICS = ("delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10")
MEANING = {
    "delta1": "share of pixels within a factor of 1.25",
    "delta2": "within 1.25^2",
    "delta3": "within 1.25^3",
    "abs_rel": "mean |error| / depth",
    "sq_rel": "mean error^2 / depth",
    "rmse": "metres",
    "rmse_log": "of the natural logarithm",
    "silog": "scale-invariant error of the logarithm, percent",
    "log10": "mean |error| of log10",
}


def align(predicted: np.ndarray, truth: np.ndarray, how: Alignment) -> np.ndarray:
    """Inverse depth of pixels (N) aligned to the true one (N, above 0): not at all, by medians, or by scale and shift.

    `least_squares` takes the scale, not below 0, and shift with the smallest squared difference of inverse depth; where
    the prediction is constant or inverted, near for far, the result is the mean of the truth.
    """
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    if how == "none":
        return predicted
    if how == "median":
        middle = np.median(predicted)
        return predicted * (np.median(truth) / middle) if middle > 0 else predicted
    spread = predicted - predicted.mean()
    square = np.square(spread).sum()
    scale = max((spread * (truth - truth.mean())).sum() / square, 0.0) if square > 0 else 0.0
    return scale * spread + truth.mean()


def errors(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """METRICS of one image from predicted and true depth (N each, metres, above 0)."""
    difference, log = depth - truth, np.log(depth / truth)
    ratio = np.exp(np.abs(log))
    return np.array([
        *((ratio < 1.25**power).mean() for power in (1, 2, 3)),
        (np.abs(difference) / truth).mean(),
        (np.square(difference) / truth).mean(),
        np.sqrt(np.square(difference).mean()),
        np.sqrt(np.square(log).mean()),
        100 * log.std(),
        np.abs(log).mean() / np.log(10),
    ])  # fmt: skip


def aligned_depth(
    predicted: np.ndarray, truth: np.ndarray, how: Alignment, max_depth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true depth (N each, metres) of the pixels that can be scored, from inverse depth (H W each).

    Pixels whose truth is NaN or farther than `max_depth` metres are not scored; predictions are clipped to `max_depth`.
    """
    scored = truth >= 1 / np.float32(max_depth)  # NaN is not
    if not scored.any():
        return np.empty(0), np.empty(0)
    inverse, true = align(predicted[scored], truth[scored], how), truth[scored].astype(np.float64)
    return 1 / np.maximum(inverse, 1 / max_depth), 1 / true


def image_sums(predicted: np.ndarray, truth: np.ndarray, how: Alignment, max_depth: float) -> np.ndarray:
    """One image's contribution to the sums of `DepthScores`: 1 and METRICS, or zeros where nothing can be scored.

    Both maps (H W) hold inverse depth; which pixels are scored, `aligned_depth` says.
    """
    depth, true = aligned_depth(predicted, truth, how, max_depth)
    return np.concatenate([[1.0], errors(depth, true)]) if len(true) else np.zeros(1 + len(METRICS))


@dataclass(frozen=True)
class DepthScores:
    """Means of METRICS over images, from sums that add up over processes."""

    sums: np.ndarray
    """1 + METRICS: images, then the sum of each metric over them."""
    alignment: Alignment

    @property
    def images(self) -> int:
        """Images that were scored."""
        return round(float(self.sums[0]))

    @property
    def delta1(self) -> float:
        """Share of pixels whose depth is within a factor of 1.25 of the true one."""
        return self.to_dict()["delta1"]

    @property
    def abs_rel(self) -> float:
        """Mean |error| / depth."""
        return self.to_dict()["abs_rel"]

    def to_dict(self) -> dict:
        """Plain numbers for JSON; all metrics are 0 if no image was scored."""
        means = (np.asarray(self.sums[1:], np.float64) / max(self.images, 1)).tolist()
        return dict(zip(METRICS, means, strict=True)) | {"alignment": self.alignment, "images": self.images}

    def table(self) -> str:
        """The scores as a table for people."""
        scores = self.to_dict()
        lines = [f"{name:9}  {scores[name]:8.4f}  {MEANING[name]}" for name in METRICS]
        return "\n".join([*lines, f"means over {self.images} images; alignment {self.alignment.replace('_', ' ')}"])
