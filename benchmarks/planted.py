"""Faults that people make in masks, each changing at least LEAST of the image; the same for the same seed."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from segmenter.evaluation.components import components

LEAST = 0.02
SHIFT = 16  # pixels
SHARE = 0.1  # of the images
TRIES = 20  # draws for an image before another one is taken
Fault = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]


def planted(masks: Sequence[np.ndarray], classes: int, ignore: int, seed: int) -> dict[int, tuple[str, np.ndarray]]:
    """Masks (H W each) to faulty ones: place to kind and mask; the kinds take turns."""
    generator = np.random.default_rng(seed)
    wanted, found = round(SHARE * len(masks)), {}
    for place in generator.permutation(len(masks)).tolist():
        if len(found) == wanted:
            break
        kind = list(FAULTS)[len(found) % len(FAULTS)]
        for faulty in _drawn(masks[place], kind, classes, ignore, generator):
            found[place] = kind, faulty
            break
    return found


def _drawn(
    mask: np.ndarray, kind: str, classes: int, ignore: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Faulty masks that differ enough; ignored pixels stay ignored."""
    for _ in range(TRIES):
        faulty = FAULTS[kind](mask, classes, ignore, generator)
        faulty = np.where(mask == ignore, mask, faulty)
        if np.count_nonzero(faulty != mask) >= LEAST * mask.size:
            yield faulty


def relabelled(mask: np.ndarray, classes: int, ignore: int, generator: np.random.Generator) -> np.ndarray:
    """A connected region has another class, any of the data's."""
    region = _region(mask, ignore, generator)
    if region is None:
        return mask
    other = (mask[region][0] + 1 + generator.integers(classes - 1)) % classes
    return np.where(region, other, mask).astype(mask.dtype)


def shifted(mask: np.ndarray, classes: int, ignore: int, generator: np.random.Generator) -> np.ndarray:
    """A connected region lies SHIFT pixels away, in any direction; what it leaves is its neighbours'."""
    region = _region(mask, ignore, generator)
    if region is None:
        return mask
    angle = generator.uniform(0, 2 * math.pi)
    rows, columns = np.nonzero(region)
    rows, columns = rows + round(SHIFT * math.sin(angle)), columns + round(SHIFT * math.cos(angle))
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    faulty = filled(mask, region, ignore)
    faulty[rows[inside], columns[inside]] = mask[region][0]
    return faulty


def swapped(mask: np.ndarray, classes: int, ignore: int, generator: np.random.Generator) -> np.ndarray:
    """Two classes of the image are taken for each other."""
    present = [value for value in np.unique(mask) if value != ignore]
    if len(present) < 2:
        return mask
    one, other = generator.choice(present, 2, replace=False)
    return np.where(mask == one, other, np.where(mask == other, one, mask)).astype(mask.dtype)


def dropped(mask: np.ndarray, classes: int, ignore: int, generator: np.random.Generator) -> np.ndarray:
    """The polygon of a connected region is missing; its place is its neighbours'."""
    region = _region(mask, ignore, generator)
    return mask if region is None else filled(mask, region, ignore)


FAULTS: dict[str, Fault] = {
    "relabelled": relabelled,
    f"shifted by {SHIFT} pixels": shifted,
    "swapped": swapped,
    "dropped": dropped,
}


def filled(mask: np.ndarray, region: np.ndarray, ignore: int) -> np.ndarray:
    """The mask with a region (H W bool) given to the labels around it, each pixel to about the nearest."""
    values = np.where(region | (mask == ignore), -1, mask.astype(np.int64))
    while (values[region] < 0).any():
        before, grown = values, np.pad(values, 1, constant_values=-1)
        for near in (grown[:-2, 1:-1], grown[2:, 1:-1], grown[1:-1, :-2], grown[1:-1, 2:]):
            values = np.where(values < 0, near, values)
        if np.array_equal(before, values):  # nothing lies around it
            return mask.copy()
    return np.where(region, values, mask).astype(mask.dtype)


def _region(mask: np.ndarray, ignore: int, generator: np.random.Generator) -> np.ndarray | None:
    """One of the connected regions (H W bool) that are large enough, each as likely."""
    numbers, _ = components(np.where(mask == ignore, -1, mask.astype(np.int64)))
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= LEAST * mask.size)
    return numbers == generator.choice(large) if len(large) else None
