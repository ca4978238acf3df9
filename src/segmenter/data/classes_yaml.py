"""The parts of a classes.yaml, checked one by one: every mistake is named with its place and its cure."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from segmenter.data.colors import default_colors
from segmenter.documents import BadDocument
from segmenter.documents import read_yaml as document
from segmenter.errors import UserError, brief, shown

Color = tuple[int, int, int]
LONGEST_NAME = 100  # characters; names stand in tables and legends
MOST_CLASSES = 65535  # what uint16 holds beside the ignore value


def read_yaml(path: Path) -> dict:
    """The file's content, with known keys and a list `classes`.

    A bare list, as Segmenter's authors published their classes, counts as `classes`.
    """
    try:
        content = document(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; data.classes is the path of a classes.yaml") from None
    except (OSError, BadDocument) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from None
    if isinstance(content, list):
        content = {"classes": content}
    if isinstance(content, dict):
        refuse_unknown(content, ("classes", "masks", "ignore", "map"), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list) or not content["classes"]:
        raise UserError(f"{path} has no list `classes:`; write one line a class below it, such as `  - road`")
    if len(content["classes"]) > MOST_CLASSES:
        raise UserError(f"{path} lists {len(content['classes'])} classes; there can be {MOST_CLASSES}")
    return content


def read_entries(entries: list, path: Path) -> tuple[tuple[str, ...], list[Color | None]]:
    """Names and colours (None where not given) in the order of the ids."""
    found: dict[int, tuple[str, Color | None]] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        where = f"{path}: class {position}"
        entry = {"name": entry} if not isinstance(entry, dict) else entry
        # `isthing` is in the files of Segmenter's authors; things and stuff are treated alike here.
        refuse_unknown({key: entry[key] for key in entry if key != "isthing"}, ("name", "color", "id"), where)
        name, number = entry.get("name"), entry.get("id", position)
        if not isinstance(name, str) or not name.strip():
            raise UserError(f'{where} has the name {shown(name)}; names are text: put it in quotes, "{shown(name)}"')
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise UserError(
                f"{where} has the name {shown(name)}; names have at most {LONGEST_NAME} characters, which "
                "can all be printed"
            )
        if not isinstance(number, int) or isinstance(number, bool):
            raise UserError(f"{where} ({name}) has the id {shown(number)}; ids are whole numbers from 0")
        if number in found:
            twins = f"{shown(found[number][0])} and {shown(name)}"
            raise UserError(f"{path}: {twins} have the same id {number}; renumber one")
        if name in names:
            raise UserError(f"{path}: two classes have the name {shown(name)}; rename one")
        names.add(name)
        color = read_color(entry["color"], f"{where} ({name})") if entry.get("color") is not None else None
        found[number] = (name, color)
    missing = sorted(set(range(len(found))) - set(found))
    if missing:
        raise UserError(
            f"{path}: no class has the id {missing[0]}, but {len(found)} classes need the ids 0 to "
            f"{len(found) - 1}; leave the ids out and write `map: {{1: 0, 2: 1}}` for mask values that differ"
        )
    ordered = [found[number] for number in range(len(found))]
    return tuple(name for name, _ in ordered), [color for _, color in ordered]


def refuse_twins(names: Sequence[str], colors: Sequence[Color], path: Path):
    """Raise UserError where two classes have one colour, which masks in these colours could not tell apart."""
    seen: dict[Color, str] = {}
    for name, color in zip(names, colors, strict=True):
        if color in seen:
            twins = f"{shown(seen[color])} and {shown(name)}"
            raise UserError(f"{path}: {twins} have the same color {list(color)}; change one")
        seen[color] = name


def read_color(value: object, where: str) -> Color:
    """A colour from [r, g, b] or "#rrggbb"."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    whole = isinstance(value, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in value)
    if whole and len(value) == 3 and all(0 <= c <= 255 for c in value):
        return tuple(value)
    raise UserError(f'{where} has the color {shown(value)}; write [red, green, blue] from 0 to 255, or "#rrggbb"')


def fill_colors(colors: Sequence[Color | None]) -> tuple[Color, ...]:
    """The colours with default ones, none used twice, where none is given."""
    fresh = iter([color for color in default_colors(2 * len(colors)) if color not in colors])
    return tuple(next(fresh) if color is None else color for color in colors)


def read_map(value: object, path: Path) -> dict:
    """The `map` of a classes.yaml, empty if it has none; its entries are not checked here."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: map is {shown(value)}; write mask values and class ids, as in `map: {{7: 255}}`")
    return value


def refuse_unknown(entry: dict, known: Sequence[str], where: str):
    """Raise UserError for a key that means nothing, with the one that was probably meant."""
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"the keys are {', '.join(known)}"
            raise UserError(f"{where} has the unknown key `{brief(key)}`; {hint}")
