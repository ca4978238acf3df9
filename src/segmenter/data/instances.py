"""Instance maps, where a data set has them."""

import numpy as np

from segmenter.data.samples import Sample


def instance_map(sample: Sample) -> np.ndarray | None:
    """The instances (H W), above 0 where one is known; None where the data set has no map of them."""
    return None
