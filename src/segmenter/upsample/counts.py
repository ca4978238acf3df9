"""Counts of (true class, predicted class) over pixels, straight from grid logits."""

import threading

import torch
from torch import Tensor

from segmenter.upsample.argmax import with_labels
from segmenter.upsample.cells import check
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact


@torch.no_grad()
@exact
def confusion(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int = 255) -> Tensor:
    """Logits (B*windows K h w) and true labels (B H W) to counts (K K int64): row true, column predicted.

    No label map of the prediction is built.

    Raises:
        ValueError: logits or labels do not fit the geometry, or a true label is not a class.
    """
    check(logits, geometry)
    classes = logits.shape[1]
    _same_shape((len(logits) // geometry.window_count, *geometry.size), labels.shape)
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=logits.device)
    adding = threading.Lock()

    def add(images: slice, rows: slice, predicted: Tensor) -> None:
        some = count(predicted, labels[images, rows], classes, ignore)
        with adding:  # whole numbers: their order changes nothing
            counts.add_(some)

    with_labels(logits, geometry, add)
    return counts


def count(predicted: Tensor, labels: Tensor, classes: int, ignore: int = 255) -> Tensor:
    """Predicted and true labels of one shape to counts (K K int64): row true, column predicted.

    Raises:
        ValueError: the shapes differ, or a true label is not a class.
    """
    _same_shape(predicted.shape, labels.shape)
    ignored = labels == ignore
    highest = int(labels.masked_fill(ignored, 0).max())
    if highest >= classes:
        raise ValueError(f"the labels hold {highest}, but there are {classes} classes, and {ignore} is ignored")
    pairs = labels.long() * classes + predicted
    pairs.masked_fill_(ignored, classes**2)
    return torch.bincount(pairs.flatten(), minlength=classes**2 + 1)[:-1].reshape(classes, classes)


def _same_shape(predicted: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(labels):
        raise ValueError(f"predicted labels of shape {tuple(predicted)} against labels {tuple(labels)}")
