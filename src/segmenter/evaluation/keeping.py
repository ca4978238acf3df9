"""What a task needs to keep the counts of every image: how images come, and what was asked for."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from segmenter import config
from segmenter.config import Alignment
from segmenter.evaluation.kept_labels import AREAS, BOUNDARY

Counts = dict[str, np.ndarray]
"""All that is kept of one image."""


class Loaded(NamedTuple):
    """An image on its way through the model."""

    place: int
    """Among all the samples."""
    scaled: Tensor | list[Tensor]
    """3 h w uint8, or several of them, one for every scale."""
    target: Tensor
    """H W."""
    instances: np.ndarray | None
    """H W, above 0 where an instance is known; None: the data set has no such map."""


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
