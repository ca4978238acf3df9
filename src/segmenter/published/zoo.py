"""The list of `segmenter models`: our decoders, the recipes, published models, timm's plain vision transformers."""

import fnmatch
import textwrap
from itertools import zip_longest

from segmenter import recipes
from segmenter.errors import UserError
from segmenter.model.segmenter import DECODERS
from segmenter.model.timm_models import timm
from segmenter.published.catalogue import GONE, PUBLISHED, Published

# timm's files of plain vision transformers.
FILES = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "beit")
COLUMNS = 118


def find(pattern: str = "*") -> dict[str, list]:
    """Decoders, and the recipes, published models and encoders whose names match the pattern, in plain JSON types.

    Raises:
        UserError: no name matches.
    """
    trained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}  # names carry a tag
    encoders = sorted({name for file in FILES for name in timm.list_models(module=file)})
    names = fnmatch.filter(recipes.names(), pattern)
    found = {
        "recipes": [{"name": name, "summary": recipes.summary(name)} for name in names],
        "published": [_entry(model) for model in PUBLISHED if fnmatch.fnmatch(model.name, pattern)],
        "encoders": [{"name": name, "pretrained": name in trained} for name in fnmatch.filter(encoders, pattern)],
    }
    if not any(found.values()):
        raise UserError(
            f"the name of no encoder, recipe or published model matches {pattern!r}; try 'vit_*', '*dino*' or 'seg-*'"
        )
    return {"decoders": list(DECODERS)} | found


def _entry(model: Published) -> dict:
    files = [{"address": model.folder + file.name, "sha256": file.sha256 or None} for file in model.files]
    return model._asdict() | {"files": files}


def listing(found: dict[str, list]) -> str:
    """The same as text of at most 120 columns."""
    parts = [[f"decoders   {', '.join(found['decoders'])}"]]
    if names := found["recipes"]:
        parts.append(["recipes (train --config NAME)", *(_recipe(recipe) for recipe in names)])
    if models := found["published"]:
        parts.append(_published(models))
    if encoders := found["encoders"]:
        heading = f"{len(encoders)} encoders; * has pre-trained weights (encoder.pretrained: hub)"
        parts.append([heading, *(f"  {' *'[encoder['pretrained']]} {encoder['name']}" for encoder in encoders)])
    return "\n\n".join("\n".join(part) for part in parts)


def _recipe(recipe: dict) -> str:
    lines = textwrap.wrap(recipe["summary"], COLUMNS - 40)
    return "\n".join(f"  {name:36}  {line}" for name, line in zip_longest([recipe["name"]], lines, fillvalue=""))


def _published(models: list[dict]) -> list[str]:
    """A table, and below it the addresses, which are too long for it."""
    width = max(len(model["name"]) for model in models)
    names = f"{'name':{width}}  {'data set':14}  crop   mIoU  multi-scale  parameters"
    lines = [
        f"{len(models)} published models: write the name wherever a command takes MODEL; files are downloaded once.",
        "mIoU in percent on the validation set, as published; sha256: first digits, where the publisher states them.",
        f"  {names}  sha256",
    ]
    for model in models:
        hashes = " ".join(file["sha256"] or "" for file in model["files"]).strip()
        lines.append(
            f"  {model['name']:{width}}  {model['data']:14}  {model['crop']:4}  {model['miou']:5}  "
            f"{model['miou_multiscale']:11}  {model['parameters'] / 1e6:8.1f} M  {hashes or 'not stated'}"
        )
    lines.append(f"addresses; {GONE}")
    for model in models:
        files = " and ".join(file["address"].removeprefix(model["folder"]) for file in model["files"])
        lines += [f"  {model['name']}: {files} in", f"    {model['folder']}"]
    return lines
