"""A run folder: recipe.yaml, log.jsonl, the best model (model.safetensors, config.json), last/ and state.pt.

state.pt holds what `resume` needs, as tensors and plain containers; it is read without executing anything.
"""

import json
import math
from pathlib import Path

import torch

from segmenter import atomic, recipes
from segmenter.config import Recipe
from segmenter.errors import UserError

STATE = "state.pt"


def refuse_taken(folder: Path) -> None:
    """Does nothing if `folder` can become a run folder.

    Raises:
        UserError: the folder holds another run or other files.
    """
    if (folder / "recipe.yaml").exists():
        raise UserError(f"{folder} holds another run; choose another --out, or go on with: segmenter resume {folder}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; choose another --out")


def claim(folder: Path, recipe: Recipe) -> None:
    """Makes a new run folder.

    Raises:
        UserError: the folder holds another run or other files, or cannot be written to.
    """
    refuse_taken(folder)
    atomic.write_text(folder / "recipe.yaml", recipes.to_yaml(recipe))


def save_state(folder: Path, state: dict) -> None:
    """Writes the state beside the old one, then takes its place."""
    atomic.write(folder / STATE, lambda path: torch.save(state, path))


def load_state(folder: Path) -> dict:
    """Reads the state of a run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise UserError(f"{folder} has no {STATE} to go on from; is it the --out of a `segmenter train`?")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"{path} is damaged ({first}); train again into another folder") from error


class Log:
    """log.jsonl: one JSON object a line, in the order of the steps."""

    def __init__(self, folder: Path, step: int):
        """Opens the log of a run that goes on after `step` updates; later lines, of lost work, are dropped."""
        self.path = folder / "log.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step(line) <= step]
        atomic.write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, entry: dict) -> None:
        """Appends a line.

        Raises:
            UserError: the disk is full, or the file may no longer be written to.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise UserError(f"could not write {self.path} ({error}): make room there") from error


def _step(line: str) -> float:
    """Step of a log line; infinite for one that was cut off as it was written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf
