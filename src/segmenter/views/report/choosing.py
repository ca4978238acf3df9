"""Which images of an evaluation are worth a look: worst, best, least sure, and where two models differ most."""

from dataclasses import dataclass

import numpy as np

EACH = 6  # images of a kind


@dataclass(frozen=True)
class Choice:
    """Images of one kind, by their places, and what to tell of each."""

    title: str
    note: str
    images: list[int]


def first(values: np.ndarray, most: int = EACH) -> list[int]:
    """Places of the smallest values (N), smallest first; nan are none."""
    order = np.argsort(values, kind="stable")
    return [int(place) for place in order[:most] if not np.isnan(values[place])]


def choices(score: np.ndarray, confidence: np.ndarray, what: str) -> list[Choice]:
    """Worst, best and least sure images by score and mean confidence (N each, nan unknown); no image comes twice."""
    count = len(score)
    each = min(EACH, max(1, count // 3))
    worst = first(score, each)
    best = [place for place in first(-score, each + len(worst)) if place not in worst][:each]
    taken = {*worst, *best}
    unsure = [place for place in first(confidence, each + len(taken)) if place not in taken][:each]
    found = [
        Choice("Worst", f"The lowest {what} of an image by itself.", worst),
        Choice("Least sure", "The lowest mean confidence, besides the worst ones.", unsure),
        Choice("Best", f"The highest {what}.", best),
    ]
    return [choice for choice in found if choice.images]
