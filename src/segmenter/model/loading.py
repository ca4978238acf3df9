"""Reads a model folder that `saving` wrote; a run folder of training is one too. Nothing in it is executed."""

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from segmenter import recipes
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model.saving import FORMAT
from segmenter.model.segmenter import Segmenter


def load(folder: str | Path) -> Segmenter:
    """Reads a model that `save` wrote, in evaluation mode.

    Raises:
        UserError: a file is missing, unreadable, or does not fit the other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}")
    weights, about_file = folder / "model.safetensors", folder / "config.json"
    for path in (weights, about_file):
        if not path.is_file():
            raise UserError(f"{folder} is no model folder: {path.name} is missing; `segmenter train` writes one")
    try:
        about = json.loads(about_file.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise UserError(f"{about_file} has format {about['format']}, this version reads {FORMAT}; update it")
        classes = Classes.from_dict(about["classes"])
        recipe = recipes.from_dict(about["recipe"], about_file)
        mean, std = tuple(about["mean"]), tuple(about["std"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
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
