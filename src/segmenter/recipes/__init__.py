"""Recipes: YAML files with the settings that differ from the defaults of `config`, read with every key checked."""

import difflib
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path

import yaml

from segmenter.config import Recipe
from segmenter.errors import UserError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Recipe:
    """The recipe of a name in the package, or of a YAML file.

    Raises:
        UserError: no such recipe, or a key or value in it that is wrong.
    """
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"perhaps {near[0]}" if near else f"the recipes of the package are {', '.join(names())}"
        raise UserError(f"there is no recipe {name}; {hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    return from_dict(content, path)


def from_dict(content: object, source: Path) -> Recipe:
    """Nested mappings to a Recipe; what is missing takes its default.

    Raises:
        UserError: an unknown key or a value of the wrong type, with its place in `source`.
    """
    from pydantic import ValidationError

    if not isinstance(content, dict):
        raise UserError(f"{source} holds no settings; write groups such as `train:` with `lr: 0.001` below")
    _refuse_unknown(content, Recipe, source, "")
    try:
        return _adapter().validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: {place} is {first['input']!r}: {first['msg'].lower()}") from error


def to_yaml(recipe: Recipe) -> str:
    """The recipe as a file that `read` takes, every setting written out."""
    plain = {group: {k: _plain(v) for k, v in values.items()} for group, values in asdict(recipe).items()}
    return yaml.safe_dump(plain, sort_keys=False)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@cache
def _adapter():
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def _refuse_unknown(content: dict, kind: type, source: Path, place: str) -> None:
    known = {field.name: field.type for field in fields(kind)}
    for key, value in content.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {place}{near[0]}?" if near else f"known here: {', '.join(known)}"
            raise UserError(f"{source}: unknown setting {place}{key}; {hint}")
        if is_dataclass(known[key]):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {place}{key} holds no settings; write them below it, indented")
            _refuse_unknown(value, known[key], source, f"{place}{key}.")
