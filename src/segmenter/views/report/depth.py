"""What a page shows of a model of depth: photo, measured and predicted depth, and by which factor they disagree."""

from collections.abc import Mapping

import numpy as np

from segmenter.evaluation.depth_metrics import align
from segmenter.inference.depth import LEAST, DepthResult
from segmenter.views.depth import ENDS
from segmenter.views.report.layers import drawn_size, photo_at, photo_layer, sampled, shade_layer
from segmenter.views.report.page import Layer, Picture

COLORS, ERRORS = "inferno", "magma"
WRONG = 2.0  # the factor from which an error is brightest


def depth_picture(
    name: str,
    image: np.ndarray,
    truth: np.ndarray,
    results: Mapping[str, DepthResult],
    facts: str = "",
    light: bool = False,
) -> Picture:
    """A photo (H W 3 uint8) with its inverse depth (H W, NaN not measured) and the results of one model or several."""
    size = drawn_size(image.shape[:2])
    true = sampled(truth, size)
    layers = [photo_layer("photo", photo_at(image, size)), near_bright("measured", true)]
    for model, result in results.items():
        of = f" of {model}" if len(results) > 1 else ""
        depth = sampled(result.depth, size)
        inverse = 1 / depth if result.metric else depth
        layers.append(near_bright(f"predicted{of}", inverse))
        layers.append(shade_layer(f"errors{of}", disagreement(inverse, true, result.metric), ERRORS))
    return Picture(name, layers, size, facts)


def disagreement(inverse: np.ndarray, truth: np.ndarray, metric: bool) -> np.ndarray:
    """How far predicted inverse depth is from the true one (h w each): 0 none, 1 a factor of WRONG; nan not measured.

    Relative depth is aligned first, as when it is scored.
    """
    found = np.full(truth.shape, np.nan)
    known = np.isfinite(truth) & (truth > 0)
    if known.any():
        aligned = align(inverse[known], truth[known], "none" if metric else "least_squares")
        factor = np.maximum(aligned, LEAST) / truth[known]
        found[known] = np.minimum(np.abs(np.log(factor)) / np.log(WRONG), 1)
    return found


def near_bright(title: str, inverse: np.ndarray) -> Layer:
    """Inverse depth (h w) in colours, near ones bright, from its own lowest to its highest."""
    known = inverse[np.isfinite(inverse)]
    low, high = np.quantile(known, ENDS) if len(known) else (0.0, 1.0)
    return shade_layer(title, (inverse - low) / max(high - low, 1e-12), COLORS)
