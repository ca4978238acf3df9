"""Recipes: YAML files with the settings that differ from the defaults of `config`, read with every key checked.

A recipe may be built on others: `base: NAME` or `base: [NAME, NAME]`, each a recipe of the package or a file beside it,
whose settings hold where the recipe itself (or a later base) says nothing.
"""

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
    """Recipes that come with the package, folder by folder; what they are built on, in parts/, is none."""
    found = sorted((path.parent, name) for name, path in _packaged().items())
    return [name for folder, name in found if folder.name != "parts"]


def summary(name: str) -> str:
    """First line of the comment that a recipe of the package begins with."""
    return _packaged()[name].read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def read(name: str) -> Recipe:
    """The recipe of a name in the package, or of a YAML file.

    Raises:
        UserError: no such recipe or base, bases that go round, or a key or value that is wrong.
    """
    path = _packaged().get(name, Path(name))
    if not path.is_file():
        raise UserError(f"there is no recipe {name}; {_nearest(name, names())}")
    return from_dict(_content(path), path)


def _packaged() -> dict[str, Path]:
    """Files of the package by name."""
    return {path.stem: path for path in FOLDER.rglob("*.yaml")}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"perhaps {near[0]}" if near else "`segmenter models` lists those of the package"


def _content(path: Path, way: tuple[Path, ...] = ()) -> dict:
    """The settings of a file and, below them, of what it is built on; each file is checked for itself."""
    if path.resolve() in way:
        raise UserError(f"{way[-1]}: base leads back to {path}; a recipe cannot be built on itself")
    way = (*way, path.resolve())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    bases = content.pop("base", []) if isinstance(content, dict) else []
    from_dict(content, path)
    merged: dict = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = _merged(merged, _content(_base(base, path), way))
    return _merged(merged, content)


def _base(name: object, recipe: Path) -> Path:
    """The file that `recipe` names as its base."""
    if not isinstance(name, str):
        raise UserError(f"{recipe}: base is {name!r}; write the name of a recipe, or a list of names")
    path = _packaged().get(name, recipe.parent / name)
    if not path.is_file():
        raise UserError(f"{recipe}: there is no recipe {name} to build on; {_nearest(name, list(_packaged()))}")
    return path


def _merged(below: dict, above: dict) -> dict:
    """Settings of both; those of `above` prevail."""
    groups = {key: below.get(key, {}) | value for key, value in above.items()}
    return below | groups


def from_dict(content: object, source: Path | str) -> Recipe:
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
    _refuse_settings_of_another_task(recipe)


def _refuse_settings_of_another_task(recipe: Recipe) -> None:
    train = recipe.train
    of_labels = {"train.class_weights": train.class_weights != "none", "train.label_smoothing": train.label_smoothing}
    foreign = of_labels if recipe.task == "depth" else {"data.depth_scale": recipe.data.depth_scale}
    for place, is_set in foreign.items():
        if is_set:
            raise UserError(
                f"{place} is set, but decoder.name is {recipe.decoder.name}, which learns {recipe.task}; leave it out, "
                "or choose another decoder"
            )


# nan is in none of the ranges.
_RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "of at least 1": (
        lambda value: 1 <= value < math.inf,
        ("augment.short_side", "augment.max_ratio", "augment.crop", "train.steps", "train.batch", "train.accumulate",
         "train.validate_every", "train.save_every", "inference.window", "inference.stride", "inference.batch",
         "decoder.width", "decoder.auxiliary_layers"),
    ),
    "of 0 or more": (
        lambda value: 0 <= value < math.inf,
        ("decoder.layers", "decoder.auxiliary", "train.min_lr", "train.power", "train.warmup", "train.weight_decay",
         "train.clip", "train.workers", "train.threads", "data.depth_scale", "depth.gradient_weight", "depth.shift"),
    ),
    # The optimisers multiply the rate by up to ten, and float32 ends at 3e38.
    "above 0 and at most 1e37": (
        lambda value: 0 < value <= 1e37,
        ("augment.scale", "augment.max_class_share", "depth.max_depth", "depth.scale", "train.lr",
         "train.decoder_scale"),
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


def _refuse_unknown(content: dict, kind: type, source: Path | str, place: str) -> None:
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
