"""What a page shows of a model of labels: photo, truth, prediction, error, and its classes' colours."""

from collections.abc import Mapping

import numpy as np

from segmenter.data.classes import Classes
from segmenter.inference.labels import Result
from segmenter.views.report.layers import (
    color_layer,
    drawn_size,
    marked_layer,
    photo_at,
    photo_layer,
    sampled,
    shade_layer,
)
from segmenter.views.report.page import Chip, Layer, Picture

UNSCORED = (70, 70, 70)  # pixels whose truth is to be ignored
WRONG = (230, 30, 30)
SHADES = "viridis"  # of confidence: dark where it is low
LEGEND = 10  # classes, the largest first


def label_picture(
    name: str, image: np.ndarray, truth: np.ndarray, results: Mapping[str, Result], facts: str = "", light: bool = False
) -> Picture:
    """A photo (H W 3 uint8) with its labels (H W) and the results of one model, or of several by name.

    The confidence of one model is shown too, unless the page is to be `light`.
    """
    size = drawn_size(image.shape[:2])
    classes = next(iter(results.values())).classes
    photo, true = photo_at(image, size), sampled(truth, size)
    scored = true != classes.ignore
    layers = [photo_layer("photo", photo), colored("truth", true, classes)]
    seen = [true[scored]]
    for model, result in results.items():
        labels = sampled(result.labels, size)
        of = f" of {model}" if len(results) > 1 else ""
        layers.append(colored(f"prediction{of}", labels, classes))
        layers.append(marked_layer(f"errors{of}", photo, scored & (labels != true), WRONG))
        if len(results) == 1 and not light:
            layers.append(shade_layer("confidence", sampled(result.confidence(), size), SHADES))
        seen.append(labels.reshape(-1))
    return Picture(name, layers, size, facts, legend(np.concatenate(seen), classes))


def colored(title: str, labels: np.ndarray, classes: Classes) -> Layer:
    """Labels (h w) in the colours of their classes, ignored ones dark grey."""
    return color_layer(title, class_colors(labels, classes))


def class_colors(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """Labels (h w) to colours (h w 3 uint8), ignored ones dark grey."""
    return np.array([*classes.colors, UNSCORED], np.uint8)[np.minimum(labels, len(classes))]


def legend(labels: np.ndarray, classes: Classes) -> list[Chip]:
    """The classes among labels (N), the largest first."""
    counts = np.bincount(labels, minlength=len(classes))[: len(classes)]
    present = [int(i) for i in np.argsort(-counts, kind="stable")[:LEGEND] if counts[i]]
    return [Chip(classes.names[i], classes.colors[i]) for i in present]
