"""Recipes: YAML files with the settings that differ from the defaults of `config`, read with every key checked.

A recipe may be built on others: `base: NAME` or `base: [NAME, NAME]`, each a recipe of the package or a file beside it,
whose settings hold where the recipe itself (or a later base) says nothing.
"""

import difflib
import operator
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path

import yaml

from segmenter import config, ranges
from segmenter.config import DECODERS, Recipe
from segmenter.config_decoders import refuse_unread
from segmenter.documents import BadDocument, read_yaml
from segmenter.errors import UserError, brief, cleaned, shown
from segmenter.recipes import earlier

FOLDER = Path(__file__).parent
DEEPEST = 32  # recipes that are built one on the other


def names() -> list[str]:
    """Recipes that come with the package, folder by folder, without the partial ones in parts/."""
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
    if not os.path.isfile(path):  # False too where no file can have the name
        raise UserError(f"there is no recipe {name}; {_nearest(name, names())}")
    return from_dict(_content(path), path)


def _packaged() -> dict[str, Path]:
    """Files of the package by name."""
    return {path.stem: path for path in FOLDER.rglob("*.yaml")}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"perhaps {near[0]}" if near else "`segmenter models` lists those of the package"


def _content(path: Path, way: tuple[Path, ...] = (), known: dict[Path, dict] | None = None) -> dict:
    """The settings of a file and, below them, of what it is built on; each file is read once and checked for itself."""
    known = {} if known is None else known
    if path.resolve() in way:
        raise UserError(f"{way[-1]}: base leads back to {path}; a recipe cannot be built on itself")
    if path.resolve() in known:
        return known[path.resolve()]
    if len(way) >= DEEPEST:
        raise UserError(f"{way[-1]} is built on more than {DEEPEST} recipes, one on the other; put them together")
    way = (*way, path.resolve())
    try:
        content = read_yaml(path) or {}
    except (BadDocument, OSError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    content = earlier.upgraded(content, path)
    bases = content.pop("base", []) if isinstance(content, dict) else []
    merged: dict = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = _merged(merged, _content(_base(base, path), way, known))
    if isinstance(content, dict) and isinstance(content.get("decoder"), dict) and "decoder" in merged:
        content["decoder"] = {"name": merged["decoder"].get("name", "mask_transformer")} | content["decoder"]
    from_dict(content, path)
    known[path.resolve()] = _merged(merged, content)
    return known[path.resolve()]


def _base(name: object, recipe: Path) -> Path:
    """The file that `recipe` names as its base."""
    if not isinstance(name, str):
        raise UserError(f"{recipe}: base is {shown(name)}; write the name of a recipe, or a list of names")
    path = _packaged().get(name, recipe.parent / name)
    if not os.path.isfile(path):
        text = f"{recipe}: there is no recipe {cleaned(name, 200)} to build on"
        raise UserError(f"{text}; {_nearest(name, list(_packaged()))}")
    return path


def _merged(below: dict, above: dict) -> dict:
    """Settings of both; those of `above` prevail. Another decoder takes over what it reads of the one before."""
    if "decoder" in above and "decoder" in below:
        kind = DECODERS[above["decoder"].get("name", "mask_transformer")]
        read = {field.name for field in fields(kind)}
        below = below | {"decoder": {key: value for key, value in below["decoder"].items() if key in read}}
    groups = {key: below.get(key, {}) | value for key, value in above.items()}
    return below | groups


def with_decoder(recipe: Recipe, name: str) -> Recipe:
    """The recipe with the decoder of another name, which takes over what both read and was not left at its default.

    Raises:
        UserError: there is no such decoder.
    """
    if name == recipe.decoder.name:
        return recipe
    new = {field.name for field in fields(config.decoder(name))} - {"name"}
    shared = {field.name: field.default for field in fields(recipe.decoder) if field.name in new}
    kept = {key: value for key, default in shared.items() if (value := getattr(recipe.decoder, key)) != default}
    return replace(recipe, decoder=config.decoder(name, **kept))


def from_dict(content: object, source: Path | str) -> Recipe:
    """Nested mappings to a Recipe; what is missing takes its default.

    Raises:
        UserError: an unknown key, one that the decoder does not read, or a value of the wrong type or out of its range,
            with its place in `source` (empty: none is named).
    """
    if not isinstance(content, dict):
        raise UserError(f"{source} holds no settings; write groups such as `train:` with `lr: 0.001` below")
    kinds = {field.name: field.type for field in fields(Recipe)}
    settings = {}
    for name, group in content.items():
        if name not in kinds:
            raise UserError(f"{_prefix(source)}unknown setting {brief(name)}; {_hint(name, kinds, '')}")
        if not isinstance(group, dict):
            raise UserError(f"{_prefix(source)}{name} holds no settings; write them below it, indented")
        kind = _decoder_kind(group, source) if name == "decoder" else kinds[name]
        settings[name] = _group(kind, group, source, name)
    return Recipe(**settings)


def understood(content: object) -> Recipe:
    """What of nested mappings, of another release perhaps, is a setting of this one with a value that it may have."""
    groups: dict[str, dict] = {}
    for name, settings in content.items() if isinstance(content, dict) else ():
        if name in (field.name for field in fields(Recipe)) and name != "decoder" and isinstance(settings, dict):
            groups[name] = {key: value for key, value in settings.items() if _is_setting(name, key, value)}
    return from_dict(groups, "")


def _is_setting(group: str, key: str, value: object) -> bool:
    try:
        from_dict({group: {key: value}}, "")
    except UserError:
        return False
    return True


def _decoder_kind(group: dict, source: Path | str) -> type:
    """The dataclass of the decoder that a group is about."""
    name = group.get("name", "mask_transformer")
    if not isinstance(name, str) or name not in DECODERS:
        raise UserError(f"{_prefix(source)}decoder.name is {shown(name)}; choose {' or '.join(DECODERS)}")
    for setting in group:
        try:
            refuse_unread(name, str(setting))
        except UserError as error:
            raise UserError(f"{_prefix(source)}{error}") from error
    return DECODERS[name]


def _group(kind: type, group: dict, source: Path | str, place: str):
    """A mapping to the dataclass of one group of settings."""
    from pydantic import ValidationError

    known = [field.name for field in fields(kind)]
    for key in group:
        if key not in known:
            text = f"{_prefix(source)}unknown setting {place}.{brief(key)}"
            raise UserError(f"{text}; {_hint(key, known, place + '.')}")
    try:
        return _adapter(kind).validate_python(group)
    except ValidationError as error:
        first = error.errors()[0]
        where, text = first["loc"], first["msg"].lower()
        if first["type"] in _RANGE_ERRORS:
            allowed = ranges.words(ranges.of_field(kind, where[0]))
            value = _words(group[where[0]])
            raise UserError(f"{_prefix(source)}{place}.{where[0]} is {value}; write a value {allowed}") from error
        if first["type"] == "missing":  # keys have defaults, so it is an item of a tuple
            where, text = where[:-1], "too few values"
        where = ".".join(map(str, (place, *where)))
        raise UserError(f"{_prefix(source)}{where} is {shown(first['input'])}: {text}") from error


_RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _prefix(source: Path | str) -> str:
    return f"{source}: " if source else ""


def _hint(key: object, known: Iterable[str], place: str) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    return f"did you mean {place}{near[0]}?" if near else f"known here: {', '.join(known)}"


def refuse_impossible(recipe: Recipe) -> None:
    """Checks that a model can be trained with these numbers.

    Raises:
        UserError: one of them is out of its range, or two of them contradict each other.
    """
    from_dict(asdict(recipe), "")
    train, inference = recipe.train, recipe.inference
    if recipe.augment.scale[0] > recipe.augment.scale[1]:
        raise UserError(f"augment.scale is {_words(recipe.augment.scale)}; write the smaller number first")
    if train.warmup >= 1 and train.warmup != train.warmup_steps:
        raise UserError(f"train.warmup is {train.warmup}; write a number of updates, or a share of train.steps below 1")
    if train.warmup_steps >= train.steps:
        raise UserError(
            f"train.warmup is {train.warmup:g}, but train.steps is {train.steps}; warm up for fewer updates"
        )
    if train.shard and (train.optimizer == "muon" or train.compile):
        other, instead = ("train.compile", "false") if train.compile else ("train.optimizer muon", "adamw")
        raise UserError(
            f"train.shard and {other} do not go together: a process has only a part of each matrix; "
            f"write --{other.split()[0]} {instead}, or leave out train.shard"
        )
    refuse_gaps(inference)
    _refuse_settings_of_another_task(recipe)


def refuse_gaps(inference: config.Inference, source: str = "") -> None:
    """Checks that the windows leave out no pixel.

    Raises:
        UserError: they do.
    """
    if any(map(operator.gt, inference.stride, inference.window)):
        raise UserError(
            f"{_prefix(source)}inference.stride is {_words(inference.stride)}, more than inference.window "
            f"{_words(inference.window)}: pixels between the windows would be left out; write a smaller stride"
        )


def _refuse_settings_of_another_task(recipe: Recipe) -> None:
    train = recipe.train
    of_labels = {"train.class_weights": train.class_weights != "none", "train.label_smoothing": train.label_smoothing}
    of_depth = {"data.depth_scale": recipe.data.depth_scale} | {
        f"depth.{field.name}": getattr(recipe.depth, field.name) != field.default for field in fields(recipe.depth)
    }
    for place, is_set in (of_labels if recipe.task == "depth" else of_depth).items():
        if is_set:
            raise UserError(
                f"{place} is set, but decoder.name is {recipe.decoder.name}, which learns {recipe.task}; leave it out, "
                "or choose another decoder"
            )


def _words(value: object) -> str:
    values = value[:4] if isinstance(value, tuple | list) else [value]
    return " ".join(value if isinstance(value, str) else shown(value) for value in values)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as a file that `read` takes, every setting written out."""
    plain = {group: {k: _plain(v) for k, v in values.items()} for group, values in asdict(recipe).items()}
    return yaml.safe_dump({"format": earlier.FORMAT} | plain, sort_keys=False)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@cache
def _adapter(kind: type):
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
