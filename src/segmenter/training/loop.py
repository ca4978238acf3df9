"""Trainings begun and gone on with: recipe and data in, run folder out, whenever they were interrupted."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import PartialState

from segmenter import recipes
from segmenter.config import Recipe
from segmenter.data.samples import DataSet
from segmenter.data.tasks import TASKS, check
from segmenter.errors import UserError
from segmenter.model import processes
from segmenter.model.segmenter import Segmenter
from segmenter.model.transfer import transfer
from segmenter.published.loading import load
from segmenter.training import checkpoint
from segmenter.training.alone import alone
from segmenter.training.objective import OBJECTIVES, Objective
from segmenter.training.run import Run, say
from segmenter.training.watching import UNWATCHED, Watch


def train(recipe: Recipe, out: Path, device: str = "auto", watch: Watch = UNWATCHED, command: str = "") -> float:
    """Trains a new model into the folder `out`, on a device, and returns its best validation score (0 to 1).

    `command` is kept in the folder, as what made it.

    Raises:
        UserError: wrong data or settings, no such device, a loss that is no longer finite, or it was told to stop.
    """
    recipes.refuse_impossible(recipe)
    recipe = recipes.from_dict(asdict(recipe), "")  # numbers have the types that they are read with on resuming
    here = processes.device_here(device)
    main = PartialState().is_main_process
    with processes.together():
        if main:
            checkpoint.refuse_taken(out)
    run = _begun(recipe, out, here)
    with _alone(out):  # last, so that what is refused leaves no folder behind
        with processes.together():
            if main:
                checkpoint.claim(out, recipe)
        return run.go(watch, command)


def resume(out: Path, device: str = "auto", watch: Watch = UNWATCHED, command: str = "") -> float:
    """Goes on with a run where its state was saved last, on a device, and returns its best validation score.

    Raises:
        UserError: the folder is not a run, its files are damaged, or as `train`.
    """
    if not (out / "recipe.yaml").is_file():
        raise UserError(f"{out} is not a run folder: it has no recipe.yaml; `segmenter train --out {out}` makes one")
    recipe = recipes.read(str(out / "recipe.yaml"))
    here = processes.device_here(device)
    with _alone(out):
        with processes.together():
            state = checkpoint.load_state(out, say)
        if state is None:
            say(f"{out} was ended before its first state was saved: it starts anew from its recipe.yaml")
        run = _begun(recipe, out, here) if state is None else _restored(recipe, out, here, state)
        return run.go(watch, command)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps others from the run, by the process that writes it."""
    with ExitStack() as held:
        with processes.together():
            if PartialState().is_main_process:
                held.enter_context(alone(out, say))
        yield


def _begun(recipe: Recipe, out: Path, here: torch.device) -> Run:
    """A run before its first step."""
    with processes.together():
        kind = OBJECTIVES[recipe.task]
        data = TASKS[recipe.task].open(recipe.data)
        objective = kind(recipe, data)
        _check(data, recipe.data.root, objective)
        torch.manual_seed(recipe.train.seed)
        model = Segmenter(recipe, data.classes)
        if recipe.train.start:
            try:
                new = transfer(load(recipe.train.start), model)
            except UserError as error:
                raise UserError(f"train.start: {str(error).removeprefix('train.start: ')}") from error
            say(f"weights of {recipe.train.start} taken over" + f"; new: {', '.join(new)}" * bool(new))
    return Run(recipe, out, data, model, objective, here)


def _restored(recipe: Recipe, out: Path, here: torch.device, state: dict) -> Run:
    """A run as its state says."""
    kind = OBJECTIVES[recipe.task]
    data = TASKS[recipe.task].open(recipe.data)
    # The weights come from the state, not from where the first ones came from.
    model = Segmenter(replace(recipe, encoder=replace(recipe.encoder, pretrained="")), data.classes)
    model.recipe = recipe
    try:
        run = Run(recipe, out, data, model, kind(recipe, data, state["class_weights"]), here)
        run.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        last = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{out / checkpoint.STATE} does not fit {out / 'recipe.yaml'} and the data of now ({last}); "
            "put back the recipe and the classes that the run began with"
        ) from error
    return run


def _check(data: DataSet, root: str, objective: Objective) -> None:
    """Refuses data that cannot be trained on."""
    for split in ("train", "val"):
        if not data.splits.get(split):
            raise UserError(f"{root} has no images in the split {split!r}; training needs train and val")
    report = check(data)
    report.refuse_errors()
    objective.set_class_weights(report)
    for text in report.warnings:
        say(f"warning: {text}")
