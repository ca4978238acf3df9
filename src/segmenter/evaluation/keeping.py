"""What tasks are told when the counts of every image are kept, and what they answer for each."""

from dataclasses import dataclass

import numpy as np

from segmenter import config
from segmenter.config import Alignment
from segmenter.evaluation.kept_labels import AREAS, BOUNDARY

Counts = dict[str, np.ndarray]
"""All that is kept of one image."""


@dataclass(frozen=True)
class Asked:
    """How images are predicted and counted."""

    settings: config.Inference
    multiscale: bool = False
    alignment: Alignment = "auto"
    areas: tuple[int, int] = AREAS
    """Pixels from which an object is medium, and above which it is large."""
    boundary: float = BOUNDARY
    """Width of the boundary in lengths of the image's diagonal."""
