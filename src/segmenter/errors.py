"""The exceptions for what a user can mend: their text is shown without a traceback, and is fit for a terminal.

What files hold stands in these texts. So every sentence is bounded and has no control character, whatever was read, and
`shown` writes values down without ever building more than it needs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

LONGEST = 600  # characters of one sentence
LISTED = 20  # lines of one list
TAIL = 240  # characters kept at a sentence's end, where it says what to write instead
DEEPEST, ITEMS, VALUE = 3, 6, 100  # levels, items of each level, and characters of a value that is quoted
BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}"}


class UserError(ValueError):
    """Wrong input or settings: one sentence with what was found, where, and what to do (exit status 1)."""

    def __init__(self, text: object = "", lines: Sequence[str] = ()):
        """A sentence, and the lines of a list below it."""
        super().__init__(cleaned(str(text)), tuple(listed(lines, "- ")))

    def __str__(self) -> str:
        return "\n".join((self.args[0], *self.args[1]))


class WrongUse(UserError):
    """A command line that cannot be understood (exit status 2)."""


class Said(UserError):
    """What one of several processes has printed already; the others need not."""


def listed(lines: Sequence[str], mark: str = "") -> list[str]:
    """The first lines of a list, each cleaned, and after `mark` how many more there are."""
    more = [f"{mark}and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return [*map(cleaned, lines[:LISTED]), *more]


def cleaned(text: str, most: int = LONGEST) -> str:
    """A text of at most `most` characters on one line; what cannot be printed is escaped, as in \\x1b."""
    text = _cut(text, most)
    return _cut("".join(c if c.isprintable() else repr(c)[1:-1] for c in text), most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = min(TAIL, most // 3)
    return f"{text[: most - tail - 5]} ... {text[-tail:]}"


def brief(name: object, most: int = 30) -> str:
    """The beginning of a name that a file gives: it may be any line of a file that is not ours."""
    text = str(name) if not isinstance(name, tuple | list | dict) else shown(name)
    return cleaned(text[:most], 2 * most) + "..." * (len(text) > most)


def shown(value: object, most: int = VALUE) -> str:
    """A value of a file for a sentence, as Python writes it; it is cut while it is written, not afterwards."""
    found, length = [], 0
    for piece in _pieces(value, most, DEEPEST):
        found.append(piece)
        length += len(piece)
        if length > most:
            break
    text = "".join(found)
    return cleaned(text if len(text) <= most else text[: most - 3] + "...", most)


def _pieces(value: object, most: int, levels: int) -> Iterator[str]:
    if isinstance(value, str | bytes):
        yield repr(value[:most]) + "..." * (len(value) > most)
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        yield f"a number of {value.bit_length()} bits"
    elif value is None or isinstance(value, bool | int | float | complex):
        yield repr(value)
    elif isinstance(value, dict):
        yield "{"
        for position, key in enumerate(islice(value, ITEMS if levels else 0)):
            yield ", " * (position > 0)
            yield from _pieces(key, most, levels - 1)
            yield ": "
            yield from _pieces(value[key], most, levels - 1)
        yield _rest(value, levels) + "}"
    elif type(value) in BRACKETS:
        yield BRACKETS[type(value)][0]
        for position, item in enumerate(islice(value, ITEMS if levels else 0)):
            yield ", " * (position > 0)
            yield from _pieces(item, most, levels - 1)
        yield _rest(value, levels) + "," * (type(value) is tuple and len(value) == 1) + BRACKETS[type(value)][1]
    else:
        yield f"a {type(value).__name__}"


def _rest(value: Iterable, levels: int) -> str:
    return "" if len(value) <= (ITEMS if levels else 0) else (", ..." if levels else "...")
