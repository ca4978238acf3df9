"""How far scores would move with other images of the same kind: bootstrap over images, of one evaluation or of two.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 (percentile intervals) and 16. Two
models that saw the same images are compared on the same draws, which removes what all models find hard or easy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segmenter.errors import UserError, brief

DRAWS = 1000
LEVEL = 0.95
HELD = 2**22  # numbers held at once, 32 MB


class Kept(Protocol):
    """What is kept of images: sums that add up, and measures that follow from them."""

    task: str
    names: tuple[str, ...]
    columns: int
    definitions: str
    """What measures depend on besides the pixels, in words."""

    def sums(self, first: int, last: int) -> np.ndarray:
        """Those of images (n F)."""

    def measures(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """From sums (... F), each (...) or with more axes behind."""

    def same_truth(self, other: "Kept") -> np.ndarray:
        """Of every image (N bool)."""

    def select(self, images: Sequence[int]) -> "Kept":
        """The same of these images, in this order."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Interval:
    """A measure of all images, and where it would lie with other images; all of the measure's own shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Difference(Interval):
    """A measure of the second evaluation less that of the first."""

    p: np.ndarray
    """Two-sided: how often chance alone would bring a difference this far from zero; small: the models differ."""


def total(kept: Kept) -> np.ndarray:
    """The sums over all images (F)."""
    return sum((kept.sums(*part).sum(0) for part in _parts(kept, len(kept))), np.zeros(kept.columns))


def intervals(kept: Kept, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> dict[str, Interval]:
    """Every measure with its interval, from draws of as many images as there are, with replacement.

    Where a measure does not exist in a draw (a class did not occur), the draw does not count.

    Raises:
        UserError: there are no images.
    """
    if not len(kept):
        raise UserError("there are no images to draw from; choose some")
    values = kept.measures(total(kept))
    drawn = [kept.measures(sums) for (sums,) in _drawn([kept], draws, seed)]
    return {
        name: Interval(value, *_ends(np.concatenate([part[name] for part in drawn]), level))
        for name, value in values.items()
    }


def differences(
    first: Kept, second: Kept, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> dict[str, Difference]:
    """Every measure of `second` less that of `first`, which saw the same images (paired bootstrap).

    Raises:
        UserError: they did not.
    """
    second = paired(first, second)
    one, other = first.measures(total(first)), second.measures(total(second))
    drawn = []
    for sums, others in _drawn([first, second], draws, seed):
        before, after = first.measures(sums), second.measures(others)
        drawn.append({name: after[name] - before[name] for name in before})
    found = {}
    for name in one:
        moved = np.concatenate([part[name] for part in drawn])
        known = (~np.isnan(moved)).sum(0)
        beyond = np.minimum((moved <= 0).sum(0), (moved >= 0).sum(0))
        # One is added to both: no number of draws shows that something never happens.
        p = np.where(known > 0, np.minimum(2 * (beyond + 1) / (known + 1), 1), np.nan)
        found[name] = Difference(other[name] - one[name], *_ends(moved, level), p)
    return found


def paired(first: Kept, second: Kept) -> Kept:
    """The second evaluation with its images in the order of the first's.

    Raises:
        UserError: the two are of other tasks, classes or images, or of other truth about them.
    """
    if first.task != second.task:
        raise UserError(f"one evaluation is of {first.task}, the other of {second.task}; compare those of one task")
    classes = [getattr(kept, "classes", ()) for kept in (first, second)]
    if classes[0] != classes[1]:
        texts = [f"{len(names)} ({', '.join(map(brief, names[:3]))} ...)" for names in classes]
        raise UserError(
            f"one evaluation has the classes {texts[0]}, the other {texts[1]}; evaluate both models on the same data"
        )
    if first.definitions != second.definitions:
        raise UserError(
            f"one evaluation has {first.definitions}, the other {second.definitions}; evaluate both models in one way"
        )
    missing = set(first.names) ^ set(second.names)
    if missing:
        raise UserError(
            f"{brief(min(missing))} and {len(missing) - 1} others of the images are in one of the evaluations alone; "
            "evaluate both models on the same images"
        )
    if first.names != second.names:
        if len(set(first.names)) < len(first.names):
            raise UserError("images have names twice and come in another order; evaluate both models on the same data")
        place = {name: i for i, name in enumerate(second.names)}
        second = second.select([place[name] for name in first.names])
    differ = np.flatnonzero(~first.same_truth(second))
    if len(differ):
        raise UserError(
            f"the truth of {brief(first.names[differ[0]])} and {len(differ) - 1} other images is not the same in both "
            "evaluations (other labels, or other sizes); evaluate both models on the same data"
        )
    return second


def _drawn(kept: list[Kept], draws: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Sums (d F) of draws, some at a time, of every evaluation with the same images."""
    random, images = np.random.default_rng(seed), len(kept[0])
    together = max(1, HELD // max(kept[0].columns, images))
    for first in range(0, draws, together):
        count = min(together, draws - first)
        chosen = random.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)
        yield [sum(weights[:, slice(*part)] @ one.sums(*part) for part in _parts(one, images)) for one in kept]


def _parts(kept: Kept, images: int) -> list[tuple[int, int]]:
    together = max(1, HELD // kept.columns)
    return [(first, min(first + together, images)) for first in range(0, images, together)]


def _ends(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The percentiles (each of the measure's shape) of drawn values (draws ...), without nan."""
    values = np.sort(values, 0)  # nan last
    known = (~np.isnan(values)).sum(0)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = np.maximum(known - 1, 0) * share
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        low, high = (np.take_along_axis(values, at[None], 0)[0] for at in (below, above))
        ends.append(low + (high - low) * (place - below))
    return ends[0], ends[1]
