"""Boundary IoU: of the pixels near a contour of the truth or of the prediction, the share that both have.

Source: Cheng et al., arXiv 2103.16562: a class's boundary are its pixels that d erosions by 3 x 3 take away, d being a
share of the image's diagonal; the image's own border counts as a contour. Here all classes are eroded at once: what
stays is where the lowest and the highest label of the square around a pixel are equal. Ignored pixels belong to no
class and bound none, in the truth and the prediction alike. Counts are summed over images before they are divided.
"""

import math

import numpy as np

from segmenter.evaluation.kept_labels import BOUNDARIES


def width_of(size: tuple[int, int], share: float) -> int:
    """Pixels (1 or more) that a boundary is wide in an image of this height and width."""
    return max(1, round(share * math.hypot(*size)))


def count_boundaries(truth: np.ndarray, predicted: np.ndarray, ignore: int, share: float) -> np.ndarray:
    """Counts of an image (BOUNDARIES, image 0, by class) from its true and predicted labels (H W each)."""
    valid, width = truth != ignore, width_of(truth.shape, share)
    near_true = near_contours(truth, valid, width)
    near_predicted = near_contours(predicted, valid, width)
    both = near_true & near_predicted & (truth == predicted)
    most = int(max(truth.max(), predicted.max())) + 1
    counts = [
        np.bincount(labels[near], minlength=most)
        for labels, near in ((truth, near_true), (predicted, near_predicted), (truth, both))
    ]
    classes = np.flatnonzero(np.any(counts, 0))
    table = np.zeros(len(classes), BOUNDARIES)
    table["class"] = classes
    for name, values in zip(("true", "predicted", "hits"), counts, strict=True):
        table[name] = values[classes]
    return table


def near_contours(labels: np.ndarray, valid: np.ndarray, width: int) -> np.ndarray:
    """Valid pixels (H W bool) with a valid pixel of another label, or the image's border, within `width` pixels."""
    near = valid.copy()
    side = 2 * width + 1
    if min(labels.shape) < side:
        return near
    highest = np.where(valid, labels, 0)
    lowest = np.where(valid, labels, np.iinfo(labels.dtype).max)
    one = _over_squares(lowest, side, np.minimum) == _over_squares(highest, side, np.maximum)
    near[width:-width, width:-width] &= ~one
    return near


def _over_squares(values: np.ndarray, side: int, extreme: np.ufunc) -> np.ndarray:
    """Extremes over all squares that lie inside (H W to H-side+1 W-side+1), axis by axis in doubling steps."""
    for _ in range(2):
        values = values.T  # so that rows are combined, which are contiguous after the copy
        length = 1
        while length < side:
            step = min(length, side - length)
            values = extreme(values[:-step], values[step:])
            length += step
    return values
