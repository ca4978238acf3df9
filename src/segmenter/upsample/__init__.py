"""From logits on a decoder's grid to pixels: labels, probabilities, loss and counts.

Nothing here but `logits`, and for now `cross_entropy`, holds a tensor of K x H x W elements.
"""

from segmenter.upsample.argmax import labels
from segmenter.upsample.confusion import confusion, count
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.losses import cross_entropy
from segmenter.upsample.pixels import logits
from segmenter.upsample.probabilities import labels_of_mean, mean_probabilities

__all__ = [
    "Geometry",
    "confusion",
    "count",
    "cross_entropy",
    "labels",
    "labels_of_mean",
    "logits",
    "mean_probabilities",
]
