"""Counts of (true class, predicted class) over pixels, straight from grid logits."""

import torch
from torch import Tensor

from segmenter.upsample.argmax import label_bands
from segmenter.upsample.cells import check
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact


@torch.no_grad()
@exact
def confusion(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int = 255) -> Tensor:
    """Logits (B*windows K h w) and true labels (B H W) to counts (K K int64): row true, column predicted.

    No label map is made of the prediction.
    """
    check(logits, geometry)
    classes = logits.shape[1]
    _same_shape((len(logits) // geometry.window_count, *geometry.size), labels.shape)
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=logits.device)
    for images, rows, predicted in label_bands(logits, geometry):
        counts += count(predicted, labels[images, rows], classes, ignore)
    return counts


def count(predicted: Tensor, labels: Tensor, classes: int, ignore: int = 255) -> Tensor:
    """Predicted and true labels of one shape to counts (K K int64): row true, column predicted."""
    _same_shape(predicted.shape, labels.shape)
    pairs = labels.long() * classes + predicted
    pairs[labels == ignore] = classes**2
    return torch.bincount(pairs.flatten(), minlength=classes**2 + 1)[:-1].reshape(classes, classes)


def _same_shape(predicted: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if tuple(predicted) != tuple(labels):
        raise ValueError(f"predicted labels of shape {tuple(predicted)} against labels {tuple(labels)}")
