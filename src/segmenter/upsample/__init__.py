"""From logits on a decoder's grid to pixels: labels, probabilities, loss and counts.

Nothing here but `logits` holds a tensor of K x H x W elements. torch is imported when a name that needs it is first
used: clients of exported models may have NumPy alone, for `Geometry` and `segmenter.upsample.numpy_labels`.
"""

import importlib
from typing import TYPE_CHECKING

from segmenter.upsample.geometry import Geometry

if TYPE_CHECKING:
    from segmenter.upsample.argmax import labels
    from segmenter.upsample.chances import confidence, probability_of
    from segmenter.upsample.counts import confusion, count
    from segmenter.upsample.losses import cross_entropy, dice
    from segmenter.upsample.pixels import logits
    from segmenter.upsample.probabilities import labels_of_mean, mean_probabilities

_HOMES = {
    "confidence": "chances",
    "confusion": "counts",
    "count": "counts",
    "cross_entropy": "losses",
    "dice": "losses",
    "labels": "argmax",
    "labels_of_mean": "probabilities",
    "logits": "pixels",
    "mean_probabilities": "probabilities",
    "probability_of": "chances",
}

__all__ = [
    "Geometry",
    "confidence",
    "confusion",
    "count",
    "cross_entropy",
    "dice",
    "labels",
    "labels_of_mean",
    "logits",
    "mean_probabilities",
    "probability_of",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
