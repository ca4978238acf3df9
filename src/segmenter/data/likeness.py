"""Recognises files with very many values that are not masks: photos, or masks spoilt by smoothing or JPEG.

Label masks consist of areas of one value. In a photo few neighbours are equal and most are similar; smoothing and JPEG
leave areas, and along their edges values that are nowhere else.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MANY = 16  # values; masks with fewer are not examined
FEWEST = 1024  # pixels; smaller masks are not examined
SIDE = 1024  # pixels of the side of the middle part that is examined
PHOTO, SPOILT = "a photo", "smoothed or compressed"
THIN = 0.1  # share of a value's pixels that lie inside of an area of it, below which it stands at edges only


def likeness(mask: np.ndarray) -> str | None:
    """PHOTO or SPOILT, or None where a mask (H W integers) looks like one."""
    if mask.ndim != 2 or mask.size < FEWEST or min(mask.shape) < 3:
        return None
    top, left = (max(0, (side - SIDE) // 2) for side in mask.shape)
    values, mask = np.unique(mask[top : top + SIDE, left : left + SIDE], return_inverse=True)
    if len(values) < MANY:
        return None
    height, width = mask.shape
    levels = values.astype(np.int64)[mask]  # H W
    steps = np.concatenate([np.abs(np.diff(levels, axis=axis)).ravel() for axis in (0, 1)])
    apart = np.abs(levels - np.roll(levels, (height // 2, width // 2), (0, 1))).mean()
    if (steps == 0).mean() < 0.5:
        return PHOTO if steps.mean() < apart / 2 else None
    middle = mask[1:-1, 1:-1]
    inside = np.ones(middle.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inside &= mask[rows : rows + height - 2, columns : columns + width - 2] == middle
    all_pixels = np.bincount(middle.ravel(), minlength=len(values))
    inner = np.bincount(middle[inside], minlength=len(values))
    thin = inner < THIN * all_pixels
    few_pixels = all_pixels[thin].sum() < middle.size / 2
    return SPOILT if few_pixels and thin.sum() >= max(MANY // 2, len(values) / 2) else None


def warning_text(kind: str, masks: Sequence[Path], count: int) -> str:
    """The sentence on `masks` of one kind, among `count` that were looked at."""
    first, which = masks[0], f"{len(masks)} of {count} masks"
    if kind == PHOTO:
        return (
            f"{which} look like photos, not like masks ({first}): nearly all neighbouring pixels differ a little; put "
            "the masks there, with one grey value a class"
        )
    return (
        f"{which} look like masks that were smoothed by resizing or saved as JPEG ({first}): at the edges of their "
        "areas lie values that are no class; export them again as PNG, and resize with nearest neighbour"
    )
