"""Writes a model as a folder: model.safetensors (weights) and config.json (classes, normalisation, recipe)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from segmenter import atomic

if TYPE_CHECKING:
    from segmenter.model.segmenter import Segmenter

FORMAT = 1


def describe(model: "Segmenter") -> dict:
    """What is known of a model besides its weights, in plain JSON types; `rebuilding` is the way back."""
    about = {
        "classes": model.classes.to_dict(),
        "mean": list(model.mean),
        "std": list(model.std),
        "recipe": asdict(model.recipe),
    }
    return json.loads(json.dumps(about))  # lists for tuples


def save(model: "Segmenter", folder: Path) -> None:
    """Writes the model; where there is no room for it, an older one in the folder survives."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {"format": FORMAT} | describe(model)

    def write(path: Path) -> None:
        save_file(state, path, {"format": "pt"})
        # Before the weights take their place: where there is no room for both, both old files stay.
        atomic.write_text(folder / "config.json", json.dumps(about, indent=1) + "\n")

    atomic.write(folder / "model.safetensors", write)
