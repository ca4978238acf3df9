"""The classes of a data set: names, colours, and how the values of a mask file become labels.

A label is the class id (0 to K-1) or the ignore value: 255, or 65535 where there are more than 255 classes.
`classes.yaml` states them; its keys are `ignore`, `masks`, `map` and `classes` (see `Classes.read`).
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from segmenter.data.classes_yaml import (
    LONGEST_NAME,
    MOST_CLASSES,
    Color,
    fill_colors,
    read_color,
    read_entries,
    read_map,
    read_yaml,
    refuse_twins,
)
from segmenter.data.colors import default_colors
from segmenter.errors import UserError, cleaned, shown

__all__ = ["Classes", "Color", "default_colors", "parse_map"]

MAP_PAIR = r"\s*([0-9]{1,19}|#[0-9a-fA-F]{6})\s*:\s*([0-9]{1,19})\s*"
LARGEST_VALUE = 2**31 - 1  # masks are read as int32


@dataclass(frozen=True)
class Classes:
    """Names and colours of K classes, and the way from mask values to labels."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    """RGB, 0 to 255."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Mask value (with `by_color`: 0xRRGGBB) to class id or ignore; other plain values are class ids."""
    by_color: bool = False
    """Masks are RGB pictures in the classes' colours."""

    def __post_init__(self):
        if len(self.names) != len(self.colors):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colours")
        # Names from published files come here as they are; they go to terminals, tables and pictures.
        object.__setattr__(self, "names", tuple(cleaned(name, LONGEST_NAME) for name in self.names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore(self) -> int:
        """Label value that is neither learnt nor scored: the largest of uint8, above 255 classes of uint16."""
        return 255 if len(self) <= 255 else 65535

    def to_dict(self) -> dict:
        """Plain JSON types, as stored beside a model."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore": self.ignore,
            "values": [list(pair) for pair in self.values.items()],  # JSON keys would be text
            "by_color": self.by_color,
        }

    @classmethod
    def from_dict(cls, stored: dict) -> "Classes":
        """The inverse of `to_dict`.

        Raises:
            ValueError: something is not what it must be; KeyError where it is missing.
        """
        names, colors, values, by_color = (stored[key] for key in ("names", "colors", "values", "by_color"))
        if not isinstance(names, list) or not 1 <= len(names) <= MOST_CLASSES:
            raise ValueError(f"the names of the classes are {shown(names)}")
        for name in names:
            if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
                raise ValueError(f"a class has the name {shown(name)}")
        if not isinstance(colors, list) or not all(_is_whole(color, 3, 255) for color in colors):
            raise ValueError(f"the colors of the classes are {shown(colors)}")
        if not isinstance(values, list) or not all(_is_whole(pair, 2, LARGEST_VALUE) for pair in values):
            raise ValueError(f"the values of the classes are {shown(values)}")
        if not isinstance(by_color, bool):
            raise ValueError(f"by_color is {shown(by_color)}")
        found = cls(tuple(names), tuple(map(tuple, colors)), dict(values), by_color)
        if any(target >= len(names) and target != found.ignore for target in found.values.values()):
            raise ValueError(f"the values of the classes are {shown(values)}, but there are {len(names)} classes")
        return found

    @classmethod
    def read(cls, path: str | Path) -> "Classes":
        """Classes of a classes.yaml.

        `classes`: a list of names, or of {name, color, id}; color, [r, g, b] or "#rrggbb", and id are optional.
        `masks`: `values` (the default) or `colors`. `ignore`: one more mask value that means ignore.
        `map`: mask value to class id or ignore value; with `masks: colors` the keys are colours, "#rrggbb".

        Raises:
            UserError: the file is missing, is not YAML, or holds something impossible.
        """
        path = Path(path)
        content = read_yaml(path)
        names, colors = read_entries(content["classes"], path)
        masks = content.get("masks", "values")
        if masks not in ("values", "colors"):
            raise UserError(f"{path}: masks is {shown(masks)}; write `masks: values` or `masks: colors`")
        if masks == "colors":
            if None in colors:
                name = names[colors.index(None)]
                text = f"{path}: class {shown(name)} has no color"
                raise UserError(f"{text}, but with `masks: colors` every class needs one")
            refuse_twins(names, colors, path)
        classes = cls(names, fill_colors(colors), by_color=masks == "colors")
        if classes.by_color:
            classes = replace(classes, values={_pack(color): i for i, color in enumerate(classes.colors)})
        ignore = content.get("ignore", classes.ignore)
        if isinstance(ignore, bool) or not isinstance(ignore, int | str):
            raise UserError(f"{path}: ignore is {shown(ignore)}; write a value of the masks, such as 255")
        if ignore in range(len(classes)) and not classes.by_color:
            raise UserError(
                f"{path}: ignore is {shown(ignore)}, which is the id of class {shown(names[ignore])}; write a value "
                "that is not a class"
            )
        if ignore != classes.ignore:
            classes = classes._mapped([(ignore, classes.ignore)], f"{path}: ignore")
        return classes._mapped(read_map(content.get("map"), path).items(), f"{path}: map")

    def with_map(self, pairs: Sequence[str]) -> "Classes":
        """These classes with mask values changed, each pair `from:to` (with `by_color`: `#rrggbb:to`).

        Raises:
            UserError: a pair is not of that form, or `to` is neither a class id nor the ignore value.
        """
        return self._mapped(parse_map(pairs), "data.map")

    def _mapped(self, pairs: Iterable[tuple[int | str, int]], where: str) -> "Classes":
        """These classes with (from, to) pairs added to `values`."""
        values = dict(self.values)
        for source, target in pairs:
            color = isinstance(source, str) and source.startswith("#")
            if color != self.by_color:
                example = "'#e0e0c0:255'" if self.by_color else "7:255"
                kind = "colours" if self.by_color else "plain values"
                found = cleaned(source, 60) if color else shown(source)
                raise UserError(f"{where} holds {found}, but the masks hold {kind}; write, for example, {example}")
            if color:
                source = _pack(read_color(source, where))
            if type(source) is not int or type(target) is not int:
                raise UserError(f"{where} holds {shown(source)}: {shown(target)}; write whole numbers, as in 7: 255")
            if not 0 <= source <= LARGEST_VALUE:
                raise UserError(f"{where} holds {shown(source)}; masks hold values from 0 to {LARGEST_VALUE}")
            if target != self.ignore and not 0 <= target < len(self):
                raise UserError(
                    f"{where} sends {_shown(source, self.by_color)} to {shown(target)}, which is neither a class "
                    f"(0 to {len(self) - 1}) nor the ignore value {self.ignore}"
                )
            values[source] = target
        return replace(self, values=values)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted mask values that have a meaning, and their labels."""
        meaning = dict(self.values)
        if not self.by_color:
            plain = {i: i for i in range(len(self))} | {self.ignore: self.ignore}
            meaning = plain | meaning
        known = np.array(sorted(meaning), dtype=np.int64)
        labels = np.array([meaning[value] for value in known.tolist()])
        return known, labels.astype(np.uint8 if self.ignore == 255 else np.uint16)

    @cached_property
    def _bytes(self) -> tuple[np.ndarray, np.ndarray]:
        """Label of every 8-bit mask value, and whether it has one."""
        known, labels = self._table
        table, valid = np.zeros(256, labels.dtype), np.zeros(256, bool)
        inside = (known >= 0) & (known < 256)
        table[known[inside]], valid[known[inside]] = labels[inside], True
        return table, valid

    def lookup(self, mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Labels (H W) of a mask (H W, or H W 3 with `by_color`), and its values without class, as text."""
        if self.by_color:
            mask = mask.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)  # H W of 0xRRGGBB
        if mask.dtype == np.uint8:
            table, valid = self._bytes
            labels = table[mask]
            unknown = np.flatnonzero((np.bincount(mask.ravel(), minlength=256) > 0) & ~valid)
        else:
            known, meaning = self._table
            found, inverse = np.unique(mask, return_inverse=True)
            place = np.searchsorted(known, found).clip(max=len(known) - 1)
            labels = meaning[place][inverse].reshape(mask.shape)
            unknown = found[known[place] != found]
        return labels, [_shown(value, self.by_color) for value in unknown.tolist()]

    def decode(self, mask: np.ndarray, file: str | Path) -> np.ndarray:
        """Labels (H W, uint8, or uint16 above 255 classes) of a mask as `files.read_values` returns it.

        Raises:
            UserError: the mask holds a value that is not a class, not ignored and not mapped.
        """
        labels, unknown = self.lookup(mask)
        if unknown:
            raise UserError(f"{file} holds {self.unknown_text(unknown[0])}")
        return labels

    def unknown_text(self, value: str) -> str:
        """What to do about a mask value (or colour) without class: the second half of a sentence."""
        if self.by_color:
            return (
                f"the colour {value}, but none of the {len(self)} classes has it; add the class to "
                f"classes.yaml or map it: --data.map '{value}:{self.ignore}'"
            )
        return (
            f"the value {value}, but there are {len(self)} classes (0 to {len(self) - 1}); add the class to "
            f"classes.yaml or map it: --data.map {value}:{self.ignore}"
        )

    def palette(self) -> list[int]:
        """768 integers, the palette of a PNG of labels; values without class are black.

        Raises:
            ValueError: there are more than 255 classes, which a palette cannot show.
        """
        if len(self) > 255:
            raise ValueError(f"a palette has 256 entries, but there are {len(self)} classes")
        flat = list(itertools.chain.from_iterable(self.colors))
        return flat + [0] * (768 - len(flat))


def parse_map(pairs: Sequence[str]) -> list[tuple[int | str, int]]:
    """(from, to) of each `from:to`; `from` stays text where it is a colour, `#rrggbb`.

    Raises:
        UserError: a pair is not of that form.
    """
    parsed = []
    for pair in pairs:
        match = re.fullmatch(MAP_PAIR, pair)
        if match is None:
            raise UserError(f"data.map holds {shown(pair)}; write `from:to` with two values, for example 7:255")
        source, target = match.groups()
        parsed.append((source if source.startswith("#") else int(source), int(target)))
    return parsed


def _is_whole(value: object, count: int, largest: int) -> bool:
    whole = isinstance(value, list) and len(value) == count and all(type(part) is int for part in value)
    return whole and all(0 <= part <= largest for part in value)


def _pack(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _shown(value: int, by_color: bool) -> str:
    return f"#{value:06x}" if by_color else str(value)
