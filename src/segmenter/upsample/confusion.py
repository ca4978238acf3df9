"""Counts of (true class, predicted class) over pixels, straight from grid logits."""

import torch
from torch import Tensor

from segmenter.upsample.argmax import labels as predicted_labels
from segmenter.upsample.geometry import Geometry


def confusion(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int = 255) -> Tensor:
    """Logits (B*windows K h w) and true labels (B H W) to counts (K K int64): row true, column predicted."""
    return count(predicted_labels(logits, geometry), labels, logits.shape[1], ignore)


def count(predicted: Tensor, labels: Tensor, classes: int, ignore: int = 255) -> Tensor:
    """Predicted and true labels of one shape to counts (K K int64): row true, column predicted."""
    if predicted.shape != labels.shape:
        raise ValueError(f"predicted labels of shape {tuple(predicted.shape)} against labels {tuple(labels.shape)}")
    valid = labels != ignore
    pairs = labels[valid].long() * classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
