"""What test_processes.py runs in each of two processes: `of_two_processes.py FOLDER JOB...`, with the jobs below.

One pair does many jobs, since starting it takes longer than all of them. What a test looks at is in FOLDER.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from segmenter import cli, recipes
from segmenter.data.layouts import open_labels
from segmenter.evaluation import evaluate
from segmenter.published.loading import load
from segmenter.training import loop, sharding
from segmenter.training import run as running

FOLDER, RANK = Path(sys.argv[1]), os.environ["RANK"]
HALF = 3
UPDATE = loop.Run._update


class Cut(Exception):
    """Stands for the end of all processes at once."""


def train(recipe: str, out: str) -> None:
    loop.train(recipes.read(str(FOLDER / f"{recipe}.yaml")), FOLDER / out, "cpu")


def train_half(recipe: str, out: str) -> None:
    """Until the state after `HALF` steps is saved."""

    def cut(run: loop.Run, batch: dict) -> tuple[float, float]:
        if run.step == HALF:
            raise Cut
        return UPDATE(run, batch)

    loop.Run._update = cut
    try:
        train(recipe, out)
    except Cut:
        loop.Run._update = UPDATE


def train_and_measure(recipe: str, out: str) -> None:
    """Writes how many numbers this process keeps of each kind, and how many there are."""

    def measured(run: loop.Run, batch: dict) -> tuple[float, float]:
        result = UPDATE(run, batch)
        state = [value for kept in run.optimizers[0].state.values() for value in kept.values()]
        kinds = {"weights": run.parameters, "optimiser": state, "average": list(run.averaged.parameters())}
        found = {kind: [numbers(map(sharding.local, kept)), numbers(kept)] for kind, kept in kinds.items()}
        (FOLDER / f"parts{RANK}.json").write_text(json.dumps(found))
        return result

    loop.Run._update = measured
    train(recipe, out)
    loop.Run._update = UPDATE


def numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def resume(run: str) -> None:
    loop.resume(FOLDER / run, "cpu")


def score(model: str, data: str, split: str) -> None:
    """Writes the counts that this process has."""
    samples = open_labels(recipes.read(str(FOLDER / f"{data}.yaml")).data).split(split)
    scores = evaluate.evaluate(load(FOLDER / model), samples, together=True)
    (FOLDER / f"counts_{split}{RANK}.json").write_text(json.dumps(scores.confusion.tolist()))


def keep(model: str, data: str, split: str) -> None:
    """Writes what is kept of the images that the processes share."""
    samples = open_labels(recipes.read(str(FOLDER / f"{data}.yaml")).data).split(split)
    scores = evaluate.evaluate(load(FOLDER / model), samples, together=True, out=FOLDER / f"kept_{split}", show=False)
    (FOLDER / f"kept_counts_{split}{RANK}.json").write_text(json.dumps(scores.confusion.tolist()))


def command(*arguments: str) -> None:
    """Adds the status of a command to those before."""
    status = cli.main(list(arguments))
    with (FOLDER / f"statuses{RANK}.txt").open("a") as file:
        file.write(f"{status} ")


def first_dies_validating(*arguments: str) -> None:
    """A command in which the first process is killed while the second waits for its counts."""
    totals = evaluate.totals

    def killed(*given, **options) -> Tensor:
        if RANK == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return totals(*given, **options)

    evaluate.totals = killed
    command(*arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    running.LOG_EVERY = 1
    for job in json.loads(sys.argv[2]):
        globals()[job[0]](*job[1:])
