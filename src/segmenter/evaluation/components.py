"""Connected regions of equal values in a map, by runs: NumPy has none, and SciPy is not needed for anything else."""

import numpy as np


def components(values: np.ndarray) -> tuple[np.ndarray, int]:
    """A map (H W, integers of 32 bits) to the number of each pixel's region (H W int32), and how many there are.

    Numbers are from 1 on, in the order of the regions' first pixels, row by row. Pixels of one value that touch, at a
    corner too, are one region; negative values are of none, and have 0.
    """
    height, width = values.shape
    padded = np.full((height, width + 1), -1, np.int32)  # no run goes on in the next row, nor touches it there
    padded[:, :width] = values
    flat = padded.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[flat[0] >= 0], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    starts, ends = (places[flat[starts] >= 0] for places in (starts, ends))
    # A run touches those of the row below that begin no later than one pixel after its end, and end after its start.
    first = np.searchsorted(ends, starts + width + 1)
    last = np.searchsorted(starts, ends + width + 1, side="right")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    alike = flat[starts[upper]] == flat[starts[lower]]
    roots = _joined(len(starts), upper[alike], lower[alike])
    found, numbers = np.unique(roots, return_inverse=True)
    result = np.zeros(flat.size + 1, np.int32)
    np.add.at(result, starts, numbers + 1)
    np.subtract.at(result, ends, numbers + 1)
    result = np.cumsum(result[:-1], out=result[:-1]).reshape(height, width + 1)[:, :width]
    return result, len(found)


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The least member of the group of each of `count` things, of which pairs are joined."""
    roots = np.arange(count)
    while True:
        a, b = roots[one], roots[other]
        apart = a != b
        if not apart.any():
            return roots
        np.minimum.at(roots, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while (above := roots[roots]).tobytes() != roots.tobytes():
            roots = above
