"""Connected regions of equal values in a map, or the objects of an instance map, by runs.

NumPy has none, and SciPy, whose function takes one value at a time, is not needed for anything else. Rows are cut into
runs of one value; runs that touch, at a corner too, are joined by hooking each to the lowest number it meets and
halving the paths (Shiloach and Vishkin, 1982).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regions:
    """Regions of a map of labels or other values; what is ignored makes regions too, with its value as their class."""

    runs: np.ndarray
    """H W int: the run of every pixel, numbered from 0 row by row."""
    of_run: np.ndarray
    """The region of every run; regions are numbered in the order of their first pixels."""
    classes: np.ndarray
    """Label of each region."""
    areas: np.ndarray
    """Pixels of each region."""

    def __len__(self) -> int:
        return len(self.classes)

    def ids(self) -> np.ndarray:
        """The region of every pixel (H W int)."""
        return self.of_run[self.runs]


def regions(labels: np.ndarray, instances: np.ndarray | None = None) -> Regions:
    """The regions of a label map (H W, integers), whose pixels touch by a side or a corner.

    Where an instance map (H W) is above 0, the pixels of one label and one instance are a region, connected or not.
    """
    kinds = labels
    if instances is not None:
        known = instances > 0
        kinds = labels + known * (instances.astype(np.int64) << 16)  # labels have 16 bits
    height, width = labels.shape
    begins = np.ones((height, width), bool)  # of runs
    np.not_equal(kinds[:, 1:], kinds[:, :-1], out=begins[:, 1:])
    runs = np.cumsum(begins.ravel(), dtype=np.int32).reshape(height, width) - np.int32(1)
    firsts = np.flatnonzero(begins)
    pairs = _touching(kinds, begins, runs)
    if instances is not None:
        pairs = np.concatenate([pairs, _of_one_instance(kinds.ravel()[firsts])], 1)
    roots = _joined(pairs, len(firsts))
    numbers = np.cumsum(roots == np.arange(len(roots)), dtype=np.int32) - np.int32(1)
    of_run = numbers[roots]
    lengths = np.diff(firsts, append=height * width)
    count = int(of_run.max(initial=-1)) + 1
    classes = np.empty(count, labels.dtype)
    classes[of_run] = labels.ravel()[firsts]
    areas = np.bincount(of_run, lengths, minlength=count).astype(np.int64)
    return Regions(runs, of_run, classes, areas)


def components(values: np.ndarray) -> tuple[np.ndarray, int]:
    """A map (H W, integers) to the number of each pixel's region (H W int32, from 1, row by row), and their count.

    Pixels of one value that touch, at a corner too, are one region; negative values are of none, and have 0.
    """
    found = regions(values)
    known = found.classes >= 0
    numbers = np.where(known, np.cumsum(known), 0).astype(np.int32)
    return numbers[found.of_run][found.runs], int(known.sum())


def _touching(kinds: np.ndarray, begins: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Pairs (2 E) of runs of one kind in neighbouring rows, every touching pair at least once."""
    above, below = slice(None, -1), slice(1, None)
    straight = (kinds[above] == kinds[below]) & (begins[above] | begins[below])
    # Where one of the two runs goes on beside the corner, they touch straight.
    corner = begins[above, 1:] & begins[below, 1:]
    down = corner & (kinds[above, :-1] == kinds[below, 1:])
    up = corner & (kinds[above, 1:] == kinds[below, :-1])
    upper, lower = runs[above], runs[below]
    return np.stack([
        np.concatenate([upper[straight], upper[:, :-1][down], upper[:, 1:][up]]),
        np.concatenate([lower[straight], lower[:, 1:][down], lower[:, :-1][up]]),
    ])  # fmt: skip


def _of_one_instance(kinds: np.ndarray) -> np.ndarray:
    """Pairs (2 E) of runs that chain all runs of one instance."""
    runs = np.flatnonzero(kinds >= 1 << 16)
    runs = runs[np.argsort(kinds[runs], kind="stable")]
    same = kinds[runs[1:]] == kinds[runs[:-1]]
    return np.stack([runs[:-1][same], runs[1:][same]])


def _joined(pairs: np.ndarray, count: int) -> np.ndarray:
    """The lowest number (count) that each number reaches over pairs (2 E)."""
    roots = np.arange(count)
    while pairs.size:
        ends = np.sort(roots[pairs], 0)
        pairs = ends[:, ends[0] != ends[1]]
        np.minimum.at(roots, pairs[1], pairs[0])
        while (halved := roots[roots]).tobytes() != roots.tobytes():
            roots = halved
    return roots
