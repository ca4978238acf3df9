"""Classes of a folder without classes.yaml, told from the values in its masks.

Only the plain case is taken: values 0 to n-1 without gaps, and the ignore value. Everything else could be
meant in several ways, so the answer is the classes.yaml to write.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segmenter.data.classes import Classes, default_colors, parse_map
from segmenter.data.files import read_palette, read_values
from segmenter.data.likeness import PHOTO, SPOILT, likeness, warning_text
from segmenter.errors import UserError

WRITTEN = 16  # classes that a message writes out


def infer_classes(masks: Sequence[Path], path: Path, pairs: Sequence[str] = ()) -> Classes:
    """Classes "class 0" to "class n-1" for masks that hold 0 to n-1 (and 255, or 65535 above 255 classes).

    Colours are those of the first mask, where it is a palette file with enough different ones. `pairs` (`from:to`)
    count as applied, but the classes do not hold them.

    Raises:
        UserError: the values have gaps, are colours, or are too few; it holds the classes.yaml for `path`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked_at = list(pool.map(_distinct, masks))
    if not looked_at:
        raise UserError(f"there are no masks to tell the classes from; write {path}")
    for kind in (PHOTO, SPOILT):
        if such := [mask for mask, (_, like) in zip(masks, looked_at, strict=True) if like == kind]:
            raise UserError(warning_text(kind, such, len(masks)))
    per_mask = [found for found, _ in looked_at]
    if any(isinstance(values[0], str) for values in per_mask):
        raise _for_colors({v for values in per_mask for v in values if isinstance(v, str)}, path)
    change = dict(parse_map(pairs))
    values = sorted({change.get(value, value) for found in per_mask for value in found})
    ignore = 255 if values[-1] <= 255 else 65535
    ids = [value for value in values if value != ignore]
    if ids != list(range(len(ids))) or len(ids) < 2:
        raise _for_values(values, ids, path)
    colors = read_palette(masks[0])[: len(ids)]
    if len(set(colors)) < len(ids):
        colors = default_colors(len(ids))
    return Classes(tuple(f"class {i}" for i in ids), tuple(colors))


def _distinct(mask: Path) -> tuple[list[int] | list[str], str | None]:
    """The values of a mask, or its colours as "#rrggbb" where it is a colour picture, and what it looks like."""
    try:
        found = read_values(mask)
        return np.unique(found).tolist(), likeness(found)
    except UserError:
        colors = read_values(mask, by_color=True)
        if colors.ndim != 3:
            raise
        codes = np.unique(colors.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32))
        return [f"#{code:06x}" for code in codes.tolist()], None


def _for_colors(colors: set[str], path: Path) -> UserError:
    if len(colors) > 256:
        return UserError(
            f"the masks hold {len(colors)} different colours, but a mask has one colour or one grey value a "
            "class; masks that were saved as JPEG or smoothed by resizing must be exported again, as PNG"
        )
    lines = [f'  - {{name: "class {i}", color: "{color}"}}' for i, color in enumerate(sorted(colors))]
    text = f"the masks are colour pictures with {len(colors)} colours; write {path}, with your names:"
    return UserError(text, ["masks: colors", "classes:", *_first(lines)])


def _for_values(values: Sequence[int], ids: Sequence[int], path: Path) -> UserError:
    if values == [0, 255]:
        text = f"the masks hold only 0 and 255, and 255 means ignore; if 255 is the object, write {path}:"
        return UserError(text, ["classes:", "  - background", "  - object", "map: {255: 1}"])
    if len(ids) < 2:
        return UserError(f"the masks hold only {', '.join(map(str, values))}: a second class is missing")
    if len(ids) > 256 or ids[-1] > 65535:
        return UserError(
            f"the masks hold {len(ids)} values with gaps, {ids[0]} to {ids[-1]}; if these are class ids, "
            f"write {path} with a `map:` that turns each into 0, 1, 2, ..."
        )
    lines = [f'  - {{name: "value {value}"}}' for value in ids]
    pairs = [f"{value}: {i}" for i, value in enumerate(ids) if value != i]
    shown = ", ".join([*map(str, values[:WRITTEN]), *["..."] * (len(values) > WRITTEN)])
    text = f"the masks hold the values {shown}, which leave gaps; write {path}, with your names:"
    ends = ", ..." * (len(pairs) > WRITTEN)
    return UserError(text, ["classes:", *_first(lines), f"map: {{{', '.join(pairs[:WRITTEN])}{ends}}}"])


def _first(lines: list[str]) -> list[str]:
    """The lines of a list, or the first of many and how many follow."""
    if len(lines) <= WRITTEN:
        return lines
    return [*lines[:WRITTEN], f"  # and {len(lines) - WRITTEN} more in the same way"]
