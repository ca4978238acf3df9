"""What a page shows of a model of depth: photo, measured and predicted depth, and where they disagree."""

from collections.abc import Mapping

import numpy as np

from segmenter.inference.depth import DepthResult
from segmenter.views.depth import ENDS
from segmenter.views.report.layers import drawn_size, photo_at, photo_layer, sampled, shade_layer
from segmenter.views.report.page import Layer, Picture

COLORS = "inferno"


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
    layers = [photo_layer("photo", photo_at(image, size)), near_bright("measured", sampled(truth, size))]
    for model, result in results.items():
        of = f" of {model}" if len(results) > 1 else ""
        depth = sampled(result.depth, size)
        layers.append(near_bright(f"predicted{of}", 1 / depth if result.metric else depth))
    return Picture(name, layers, size, facts)


def near_bright(title: str, inverse: np.ndarray) -> Layer:
    """Inverse depth (h w) in colours, near ones bright, from its own lowest to its highest."""
    known = inverse[np.isfinite(inverse)]
    low, high = np.quantile(known, ENDS) if len(known) else (0.0, 1.0)
    return shade_layer(title, (inverse - low) / max(high - low, 1e-12), COLORS)
