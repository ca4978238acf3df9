"""A run folder: recipe.yaml, log.jsonl, the best model (model.safetensors, config.json), last/ and state.pt.

state.pt holds what `resume` needs, as tensors and plain containers; it is read without executing anything. The state
before it is kept too, as state.before.pt, for the day when the last one cannot be read.
"""

import errno
import json
import logging
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from segmenter import atomic, recipes
from segmenter.config import Recipe
from segmenter.errors import UserError
from segmenter.training.alone import LOCK

STATE, BEFORE = "state.pt", "state.before.pt"
UNSAVED = ".no-state-yet"  # there until the first state is: a run that was ended before it starts anew
OF_NOW = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)  # failures that are not the file's

logger = logging.getLogger(__name__)


def refuse_taken(folder: Path) -> None:
    """Checks that `folder` can become a run folder.

    Raises:
        UserError: the folder holds another run or other files.
    """
    if (folder / "recipe.yaml").exists():
        raise UserError(f"{folder} holds another run; choose another --out, or go on with: segmenter resume {folder}")
    if folder.exists() and (not folder.is_dir() or any(not _is_left(path) for path in folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; choose another --out")


def _is_left(path: Path) -> bool:
    """Whether a file is of a training that was killed before it had a recipe."""
    return path.name in (LOCK, UNSAVED) or atomic.is_partial(path)


def claim(folder: Path, recipe: Recipe) -> None:
    """Makes a new run of a folder that no other process works on.

    Raises:
        UserError: the folder holds another run or other files, or cannot be written to.
    """
    refuse_taken(folder)
    atomic.write_text(folder / UNSAVED, "No state was saved yet: `segmenter resume` starts this run anew.\n")
    atomic.write_text(folder / "recipe.yaml", recipes.to_yaml(recipe))


def save_state(folder: Path, state: dict) -> None:
    """Writes the state beside the old one, reads it again, then takes its place; the old one is kept as the one before.

    Where there is no room for three, the one before the old one goes first.

    Raises:
        UserError: it cannot be written; the old one is still there.
    """

    def write(path: Path) -> None:
        torch.save(state, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        if damage := _damage(path):
            raise OSError(errno.EIO, f"what was written reads otherwise: {damage}")
        if (folder / STATE).is_file() and not _damage(folder / STATE):
            os.replace(folder / STATE, folder / BEFORE)

    try:
        atomic.write(folder / STATE, write)
    except atomic.NotWritten as error:
        if error.code not in atomic.FULL or not (folder / BEFORE).is_file() or not (folder / STATE).is_file():
            raise
        (folder / BEFORE).unlink()
        atomic.write(folder / STATE, write)
    (folder / UNSAVED).unlink(missing_ok=True)


def load_state(folder: Path, say: Callable[[str], None] = logger.warning) -> dict | None:
    """Reads the state of a run, or the one before where the last is damaged; none: the run was ended before its first.

    Raises:
        UserError: there is no state any more, or all are damaged.
    """
    last, before = folder / STATE, folder / BEFORE
    if not last.is_file() and not before.is_file():
        if (folder / UNSAVED).is_file():
            return None
        raise UserError(f"{folder} has no {STATE} to go on from; is it the --out of a `segmenter train`?")
    damage = "is missing" if not last.is_file() else ""
    try:
        if not damage:
            return _read(last)
    except _Damaged as error:
        damage = f"is damaged ({error})"
    try:
        state = _read(before)
        say(f"{last} {damage}: going on from the state before it, after step {state['step']}")
        return state
    except _Damaged as error:
        and_before = f", and {BEFORE} is damaged ({error})" if before.is_file() else ""
        raise UserError(f"{last} {damage}{and_before}; train again into another folder") from error


class _Damaged(Exception):
    """What is wrong with a state, in a few words."""


def _read(path: Path) -> dict:
    try:
        if damage := _damage(path):
            raise _Damaged(damage)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _Damaged:
        raise
    except OSError as error:
        if error.errno in OF_NOW:
            raise UserError(f"{path} cannot be read ({error.strerror}); try again") from error
        raise _Damaged(_few_words(error)) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _Damaged(_few_words(error)) from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise _Damaged("it holds no step")
    return state


def _damage(path: Path) -> str:
    """What of a file of torch is not as it was written; nothing: every part has its checksum, which torch itself skips.

    The files are zip archives, which hold one of each part.

    Raises:
        OSError: it cannot be read now, which says nothing about the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except Exception as error:  # zipfile raises many kinds too
        if isinstance(error, OSError) and error.errno in OF_NOW:
            raise
        return _few_words(error)
    return f"the checksum of its part {part} is another" if part else ""


def _few_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0][:200]


class Log:
    """log.jsonl: one JSON object a line, in the order of the steps."""

    def __init__(self, folder: Path, step: int, unscored: bool = False):
        """Opens the log of a run that goes on after `step` updates; later lines, of lost work, are dropped.

        With `unscored`, so are the scores after that step, which will come again.
        """
        self.path = folder / "log.jsonl"
        content = self.path.read_bytes() if self.path.exists() else b""
        lines = content.decode(errors="replace").splitlines()
        kept = [line for line in lines if _place(line) <= (step, not unscored)]
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
            raise atomic.NotWritten(self.path, error, error.errno or 0) from error


def _place(line: str) -> tuple[float, bool]:
    """Step of a log line and whether it is of a validation; infinite for one that was cut off as it was written."""
    try:
        entry = json.loads(line)
        return entry["step"] + 0, any(name.startswith("val_") for name in entry)
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf, True
