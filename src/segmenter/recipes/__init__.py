"""Recipes: YAML files with the settings that differ from the defaults of `config`, read with every key checked."""

import difflib
import math
import operator
from collections.abc import Callable
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
        place, text = first["loc"], first["msg"].lower()
        if first["type"] == "missing":  # keys have defaults, so it is an item of a tuple
            place, text = place[:-1], "too few values"
        place = ".".join(map(str, place))
        raise UserError(f"{source}: {place} is {first['input']!r}: {text}") from error


def refuse_impossible(recipe: Recipe) -> None:
    """Does nothing if a model can be trained with these numbers.

    Raises:
        UserError: one of them is out of its range, or two of them contradict each other.
    """
    values = {f"{group}.{key}": v for group, settings in asdict(recipe).items() for key, v in settings.items()}
    for words, (fits, places) in _RANGES.items():
        for place in places:
            value = values[place]
            if not all(map(fits, value if isinstance(value, tuple) else (value,))):
                raise UserError(f"{place} is {_words(value)}; write a value {words}")
    train, inference = recipe.train, recipe.inference
    if recipe.augment.scale[0] > recipe.augment.scale[1]:
        raise UserError(f"augment.scale is {_words(recipe.augment.scale)}; write the smaller number first")
    if train.warmup >= train.steps:
        raise UserError(f"train.warmup is {train.warmup}, but train.steps is {train.steps}; warm up for fewer updates")
    if any(map(operator.gt, inference.stride, inference.window)):
        raise UserError(
            f"inference.stride is {_words(inference.stride)}, more than inference.window {_words(inference.window)}: "
            "pixels between the windows would be left out; write a smaller stride"
        )


# nan is in none of the ranges.
_RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "of at least 1": (
        lambda value: 1 <= value < math.inf,
        ("augment.short_side", "augment.max_ratio", "augment.crop", "train.steps", "train.batch", "train.accumulate",
         "train.validate_every", "train.save_every", "inference.window", "inference.stride", "inference.batch"),
    ),
    "of 0 or more": (
        lambda value: 0 <= value < math.inf,
        ("decoder.layers", "train.min_lr", "train.power", "train.warmup", "train.weight_decay", "train.clip",
         "train.workers", "train.threads"),
    ),
    # The optimisers multiply the rate by up to ten, and float32 ends at 3e38.
    "above 0 and at most 1e37": (
        lambda value: 0 < value <= 1e37, ("augment.scale", "augment.max_class_share", "train.lr")
    ),
    "from 0 to 1": (lambda value: 0 <= value <= 1, ("augment.flip",)),
    "above 0 and at most 1": (lambda value: 0 < value <= 1, ("train.layer_decay",)),
    "from 0 to less than 1": (
        lambda value: 0 <= value < 1,
        ("encoder.drop_path", "encoder.dropout", "decoder.drop_path", "decoder.dropout", "train.momentum", "train.ema",
         "train.label_smoothing"),
    ),
}  # fmt: skip


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
