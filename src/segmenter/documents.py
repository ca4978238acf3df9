"""Reads YAML and JSON of plain values from files that nobody vouches for: recipes, classes.yaml, config.json.

What would be taken in silence is refused (a key twice, values that no setting has), and so is what costs more than any
such file does: aliases that multiply, levels without end, great sizes, pipes and devices.
"""

import json
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import yaml

LARGEST = 4 * 2**20  # bytes of a file
NODES = 80_000  # values in a file of YAML, aliases written out; 3000 classes with colours are 33 000
DEEPEST = 64  # levels
LONGEST_NUMBER = 64  # characters
INTEGERS = range(-(2**63), 2**64)
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C where PyYAML was built with it


class BadDocument(ValueError):
    """A file that cannot be read as what it should be; the text says why, without the path."""


def read_text(path: Path, most: int = LARGEST) -> str:
    """The text of a file in UTF-8.

    Raises:
        BadDocument: it is no regular file (a pipe would block), too large, or not in UTF-8.
        OSError: it cannot be opened; FileNotFoundError where there is none.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise BadDocument("it is no regular file")
    with path.open("rb") as file:
        content = file.read(min(about.st_size, most) + 1)  # so much memory is taken at once
    if len(content) > most or about.st_size > most:
        raise BadDocument(f"it has more than {most / 2**20:g} MB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDocument(f"byte {error.start} is not UTF-8") from None


def read_yaml(path: Path, tuples: bool = False) -> object:
    """The content of a YAML file: numbers, texts, truth values, nulls, lists and mappings; dates stay text.

    With `tuples` the tag `!!python/tuple` is read too.

    Raises:
        BadDocument: as the module says; the line is named.
        OSError: it cannot be opened.
    """
    text = read_text(path)
    try:
        _refuse_runaways(text)
        return yaml.load(text, _WithTuples if tuples else _Plain)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = ", ".join(filter(None, (error.context, error.problem)))
        raise BadDocument(f"{_line(mark)}{text[:200]}") from None
    except yaml.YAMLError as error:
        raise BadDocument(" ".join(str(error)[:500].split())) from None
    except RecursionError:
        raise BadDocument(f"it has more than {DEEPEST} levels") from None


def _line(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "


def _refuse_runaways(text: str) -> None:
    """Counts levels and values, each alias as all that it stands for, before anything is built."""
    count, anchors = 0, {}
    within: list[tuple[str | None, int]] = []  # anchor of every open list or mapping, and the count before it
    for event in yaml.parse(text, Loader=SafeLoader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in within):
                raise BadDocument(f"{line}the alias *{event.anchor} stands inside of what it stands for")
            count += anchors.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            if anchor is not None:
                anchors[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                anchors[event.anchor] = 1
        if count > NODES:
            raise BadDocument(f"{line}it holds more than {NODES} values, aliases written out")
        if len(within) > DEEPEST:
            raise BadDocument(f"{line}it has more than {DEEPEST} levels")


class _Plain(SafeLoader):
    """Plain values alone, no key twice, no number that no setting has."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses a key twice before the keys that `<<` brings are put before a mapping's own."""
        if id(node) not in self.checked:
            self.checked.add(id(node))
            seen: set = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                try:
                    twice = key in seen
                    seen.add(key)
                except TypeError:
                    raise _wrong(key_node, "a key is a list or a mapping; write a text") from None
                if twice:
                    raise _wrong(key_node, f"the key {str(key)[:60]} stands there twice; keep one of them")
        super().flatten_mapping(node)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """A whole number of at most 64 bits, or a float."""
        text = self.construct_scalar(node)
        read = self.construct_yaml_int if node.tag.endswith("int") else self.construct_yaml_float
        try:
            if len(text) > LONGEST_NUMBER:
                raise ValueError
            value = read(node)
        except (ValueError, ArithmeticError, IndexError, KeyError):
            raise _wrong(node, f"{text[:60]!r} is no number; put texts in quotes") from None
        if isinstance(value, int) and value not in INTEGERS:
            raise _wrong(node, f"the number {text} has more than 64 bits")
        return value

    def truth(self, node: yaml.ScalarNode) -> bool:
        """True or false."""
        text = self.construct_scalar(node)
        if text.lower() not in self.bool_values:
            raise _wrong(node, f"{text[:60]!r} is neither true nor false")
        return self.bool_values[text.lower()]


def _wrong(node: yaml.Node, text: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(problem=text, problem_mark=node.start_mark)


_Plain.yaml_constructors = (
    {tag: read for tag, read in SafeLoader.yaml_constructors.items() if tag is None or tag.rpartition(":")[2] in PLAIN}
    | {f"tag:yaml.org,2002:{name}": _Plain.number for name in ("int", "float")}
    | {"tag:yaml.org,2002:bool": _Plain.truth}
)
_Plain.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if not tag.endswith(":timestamp")]
    for first, known in SafeLoader.yaml_implicit_resolvers.items()
}


class _WithTuples(_Plain):
    """The tag that the original Segmenter's files hold beside plain values."""


_WithTuples.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


def read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        BadDocument: as the module says.
        OSError: it cannot be opened.
    """
    return parsed_json(read_text(path))


def parsed_json(text: str) -> object:
    """The content of a text of JSON.

    Raises:
        BadDocument: as the module says.
    """

    def mapping(pairs: Iterable[tuple[str, object]]) -> dict:
        found: dict = {}
        for key, value in pairs:
            if key in found:
                places = re.finditer(rf"{re.escape(json.dumps(key))}\s*:", text)
                lines = [text.count("\n", 0, place.start()) + 1 for place, _ in zip(places, range(5), strict=False)]
                where = f" (lines {', '.join(map(str, lines))})" if lines else ""
                raise BadDocument(f"the key {key[:60]!r} stands there twice{where}; keep one of them")
            found[key] = value
        return found

    try:
        content = json.loads(text, object_pairs_hook=mapping, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise BadDocument(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise BadDocument(f"it has more than {DEEPEST} levels") from None
    level = [content]
    for _ in range(DEEPEST + 1):  # lists of numbers are long: only what holds something is kept
        level = [value for node in level for value in _children(node) if isinstance(value, dict | list)]
        if not level:
            return content
    raise BadDocument(f"it has more than {DEEPEST} levels")


def _children(node: object) -> Iterable:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER or int(text) not in INTEGERS:
        raise BadDocument(f"the number {text[:60]} has more than 64 bits")
    return int(text)
