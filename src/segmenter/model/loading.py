"""Reads a model folder that `saving` wrote (a run folder of training is one too), or a published checkpoint.

Published layouts are recognised by the keys of their weights. Nothing in a file is executed.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from segmenter import recipes
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model.published import backbones, openmmlab, original
from segmenter.model.published.keys import Report, few
from segmenter.model.published.reading import SUFFIXES, read
from segmenter.model.saving import FORMAT
from segmenter.model.segmenter import Segmenter

LAYOUTS = (original, openmmlab)
OURS = ("model.safetensors", "config.json")

logger = logging.getLogger(__name__)


def load(path: str | Path) -> Segmenter:
    """Reads a model in evaluation mode: a folder that `save` wrote, or a published checkpoint or its folder.

    What a published file does not say and was assumed is logged as a warning, what it holds without need as info.

    Raises:
        UserError: a file is missing or unreadable, does not fit the other, or is of no known layout.
    """
    path = Path(path)
    if path.is_file() and path.name == OURS[0] and (path.parent / OURS[1]).is_file():
        path = path.parent
    if file := _published_file(path):
        model, report = load_published(file)
        for text in report.lines():
            logger.log(logging.WARNING if text.startswith("assumed") else logging.INFO, "%s: %s", file, text)
        return model
    return _load_folder(path)


def load_published(path: str | Path) -> tuple[Segmenter, Report]:
    """The network of a published checkpoint, and what was used, left out and assumed.

    Raises:
        UserError: as `load`.
    """
    checkpoint = read(path)
    names = checkpoint.state.keys()
    for layout in LAYOUTS:
        if layout.recognise(names):
            return layout.model(checkpoint)
    if backbones.is_google(names) or backbones.is_timm(names):
        raise UserError(
            f"{path} holds an encoder without a decoder, which cannot segment; train one from it: "
            f"--encoder.pretrained {path}, with the encoder.name it belongs to"
        )
    if any(name.startswith("encoder.vit.") for name in names):
        raise UserError(f"{path} holds the weights of a model folder; {OURS[1]} must lie beside it as {OURS[0]}")
    known = "; ".join(layout.NAME for layout in LAYOUTS)
    raise UserError(f"{path} is of no layout that is known here ({known}): it has tensors such as {few(names)}")


def _published_file(path: Path) -> Path | None:
    """The checkpoint that is meant, unless it is a folder of our own or none at all."""
    if path.is_file():
        return path
    if not path.is_dir() or any((path / name).exists() for name in OURS):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if (path / original.CHECKPOINT) in files:
        return path / original.CHECKPOINT
    return files[0] if len(files) == 1 else None


def _load_folder(folder: Path) -> Segmenter:
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}")
    weights, about_file = (folder / name for name in OURS)
    for path in (weights, about_file):
        if not path.is_file():
            raise UserError(f"{folder} is no model folder: {path.name} is missing; `segmenter train` writes one")
    try:
        about = json.loads(about_file.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise UserError(f"{about_file} has format {about['format']}, this version reads {FORMAT}; update it")
        classes = Classes.from_dict(about["classes"])
        recipe = recipes.from_dict(about["recipe"], about_file)
        mean, std = (tuple(float(value) for value in about[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError("mean and std must hold 3 numbers each")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:  # what is no JSON or no text in UTF-8 is a ValueError too
        raise UserError(f"{about_file} is damaged ({error!r}); restore it from where the model was trained") from error
    # The weights come from the file, not from where the encoder's first ones came from.
    model = Segmenter(replace(recipe, encoder=replace(recipe.encoder, pretrained="")), classes)
    model.recipe = recipe
    model.mean, model.std = mean, std
    read_weights(model, weights)
    return model.eval()


def read_weights(model: Segmenter, path: Path) -> None:
    """Loads a .safetensors file into the model, every key accounted for."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
    wanted = model.state_dict()
    missing, unused = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unused:
        raise UserError(
            f"{path} does not fit its config.json: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unused)} are unknown {unused[:3]}; both files must come from one model"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path} does not fit its config.json: {name} is {tuple(tensor.shape)}, "
                f"the model has {tuple(wanted[name].shape)}; both files must come from one model"
            )
    model.load_state_dict(state)
