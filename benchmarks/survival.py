"""Kills short trainings with SIGKILL at random moments, goes on with them, and compares their ends bit for bit.

A run has workers, accumulation, an average and validations. Each trial is a process forked from this one, which has
imported everything and computes nothing itself. Some trainings write their files slowly, so that the kill meets a
half-written state or model, or the moment between two renames; some are killed as they validate, some in their first
second. Every third is killed once more as it goes on.
"""

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.measuring import RESULTS, markdown, write_between
from segmenter import atomic
from segmenter.config import Augment, Data, Encoder, Inference, MaskTransformer, Recipe, Train
from segmenter.cost.measuring import machine
from segmenter.errors import UserError
from segmenter.model import folder as model_folder
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop
from segmenter.training import run as running

KINDS = {  # moments, and their share of the kills
    "anywhere": 0.3,
    "in the first second": 0.15,
    "as it validates": 0.15,
    "as it writes a state": 0.2,
    "as it writes a model": 0.2,
}
PIECES, PAUSE = 12, 0.004  # in which a slow disk takes a file, and seconds between them
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl


def write_data(root: Path) -> None:
    """Noise with a square, and its mask: nothing to learn, but something to load."""
    generator = np.random.default_rng(0)
    for split, count in {"train": 8, "val": 3}.items():
        for name in ("images", "masks"):
            (root / split / name).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((48, 48), np.uint8)
            row, column = generator.integers(0, 24, 2)
            mask[row : row + 20, column : column + 20] = 1
            image = generator.integers(0, 100, (48, 48, 3), np.uint8) + 100 * mask[..., None]
            Image.fromarray(image.astype(np.uint8)).save(root / split / "images" / f"{split}{i}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{split}{i}.png")
    (root / "classes.yaml").write_text("classes: [ground, square]\n")


def recipe_of(root: Path) -> Recipe:
    """A training of a second that has everything a state must hold, and whose best model is not its first."""
    return Recipe(
        data=Data(root=str(root)),
        augment=Augment(short_side=48, crop=(32, 32), scale=(0.5, 2.0)),
        encoder=Encoder("vit_tiny_patch16_224", patch_size=16, depth=2, width=48, heads=3),
        decoder=MaskTransformer(layers=1, dropout=0.1),
        train=Train(
            steps=14, batch=4, accumulate=2, lr=1e-2, warmup=1, ema=0.3, clip=1.0, weight_decay=0.05,
            validate_every=4, save_every=3, workers=1, threads=1, precision="fp32",
        ),
        inference=Inference(window=(32, 32), stride=(24, 24)),
    )  # fmt: skip


def slowly(told: Callable[[str], None]) -> None:
    """Makes this process's disk slow, and has it tell what it writes, or that it validates, as it begins to."""
    torch_save, replace, totals, write = torch.save, os.replace, running.totals_together, atomic.write

    def trickle(content: bytes, path: Path) -> None:
        size = len(content) // PIECES + 1
        with path.open("wb") as file:
            for i in range(PIECES):
                file.write(content[i * size : (i + 1) * size])
                file.flush()
                time.sleep(PAUSE)

    def save_state(state: dict, path: Path) -> None:
        buffer = io.BytesIO()
        torch_save(state, buffer)
        trickle(buffer.getvalue(), path)

    def save_model(state: dict, path: Path, metadata: dict) -> None:
        trickle(save(state, metadata), path)

    def slow_replace(source: Path, target: Path) -> None:
        time.sleep(PAUSE)
        replace(source, target)
        time.sleep(PAUSE)

    def announced(path: Path, writer: Callable[[Path], object]) -> None:
        kinds = {checkpoint.STATE: "as it writes a state", model_folder.WEIGHTS: "as it writes a model"}
        told(kinds.get(path.name, ""))
        write(path, writer)
        told("")

    def validating(*arguments, **options):
        told("as it validates")
        try:
            return totals(*arguments, **options)
        finally:
            told("")

    checkpoint.torch.save, model_folder.save_file, atomic.os.replace = save_state, save_model, slow_replace
    atomic.write, running.totals_together = announced, validating


class Child:
    """A training in a process of its own: forked, told of through a pipe, killed alone as a machine would kill it."""

    def __init__(self, work: Callable[[], object], slow: bool, quiet: bool = True):
        reading, writing = os.pipe()
        self.process = os.fork()
        if not self.process:
            status = 1
            try:
                os.setpgid(0, 0)
                os.close(reading)
                if quiet:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                running.LOG_EVERY = 1
                if slow:
                    slowly(lambda what: os.write(writing, f"{what}\n".encode()))
                work()
                status = 0
            except UserError as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(status)
        os.close(writing)
        self.told = os.fdopen(reading, "r")

    def await_word(self, wanted: str, which: int) -> bool:
        """Waits until it says for the `which`-th time that it does something; False: it came to its end."""
        for line in self.told:
            if line.rstrip("\n") == wanted:
                which -= 1
                if not which:
                    return True
        return False

    def ended(self) -> int:
        """Its exit status, -9 where it was killed; and waits for those it started, which end with it."""
        _, status = os.waitpid(self.process, 0)
        self.told.close()
        until = time.monotonic() + 10
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < until:  # its workers are this process's now
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.002)
            raise SystemExit("processes that load images outlived the training by 10 s")
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> bool:
        """SIGKILL; whether it was still alive."""
        os.kill(self.process, signal.SIGKILL)
        return self.ended() == -signal.SIGKILL


def killed(work: Callable[[], object], kind: str, luck: random.Random, long: float) -> str:
    """Begins or goes on with a training and kills it; returns where, "" if it had come to its end before."""
    child = Child(work, slow="writes" in kind or "validates" in kind)
    if kind == "anywhere":
        time.sleep(luck.uniform(0, long))
    elif kind == "in the first second":
        time.sleep(luck.uniform(0, min(1.0, long)))
    else:
        there = child.await_word(kind, luck.randint(1, 3 if "model" in kind else 2))
        if not there:
            child.ended()
            return ""
        time.sleep(luck.uniform(0, 0.03 if "validates" in kind else 1.1 * (PIECES + 4) * PAUSE))
    return kind if child.kill() else ""


def go_on(recipe: Recipe, run: Path) -> Callable[[], object]:
    """What a user does with a run that was killed: resume; where it is no run yet, train."""
    if (run / "recipe.yaml").is_file():
        return lambda: loop.resume(run)
    return lambda: loop.train(recipe, run)


def end_of(run: Path) -> dict:
    """All that a run leaves: files byte for byte, but of the log what no clock says, of the state its values."""
    state = checkpoint.load_state(run)
    assert state is not None
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    models = {
        name: (run / name).read_bytes()
        for folder in ("", "last/")
        for name in (f"{folder}model.safetensors", f"{folder}config.json")
    }
    parts = {"weights": state.pop("model"), "average": state.pop("averaged"), "optimiser": state.pop("optimizers")}
    return parts | {"rest of the state": state, "log": lines, "models": models, "files": names}


def same(one: object, two: object) -> bool:
    """Whether two values are equal in every bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def refuse_broken(run: Path) -> None:
    """Whatever was killed: the model in a folder, if there is one, can be used before anybody goes on."""
    for folder in (run, run / "last"):
        if (folder / model_folder.WEIGHTS).is_file():
            load(folder)


def trial(recipe: Recipe, run: Path, kind: str, again: bool, luck: random.Random, long: float) -> list[str]:
    """One training killed once or twice and brought to its end; returns where it was killed.

    Raises:
        UserError: a model that was left could not be read, or a state.
        SystemExit: going on failed.
    """
    where = []
    for _ in range(1 + again):
        where += [hit] if (hit := killed(go_on(recipe, run), kind, luck, long)) else []
        refuse_broken(run)
    last = Child(go_on(recipe, run), slow=False, quiet=False)
    if status := last.ended():
        raise SystemExit(f"{run}: going on ended with {status}")
    return where


def survive(kills: int, seed: int, folder: Path) -> tuple[list[dict], dict]:
    """Trials until so many trainings were killed; a row for each kind of moment, and what differed.

    Raises:
        SystemExit: going on failed.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1)  # the workers of the killed are waited for here
    write_data(folder / "data")
    recipe, luck = recipe_of(folder / "data"), random.Random(seed)
    since = time.monotonic()
    if Child(lambda: loop.train(recipe, folder / "whole"), slow=False, quiet=False).ended():
        raise SystemExit("the training that nobody kills failed")
    long, whole = time.monotonic() - since, end_of(folder / "whole")
    print(f"a training takes {long:.1f} s", file=sys.stderr)
    rows, done, hits, equal, ends = [], Counter(), Counter(), Counter(), {}
    for kind, share in KINDS.items():
        wanted = max(1, round(share * kills)) if kills >= len(KINDS) else int(len(rows) >= len(KINDS) - kills)
        while done[kind] < wanted:
            run = folder / f"run{len(ends)}"
            where = trial(recipe, run, kind, done[kind] % 3 == 2, luck, long)
            wrong = [name for name, value in end_of(run).items() if not same(value, whole[name])]
            ends[run.name] = wrong
            if where:  # others had come to their end before
                done[kind] += 1
                hits[kind] += len(where)
                equal[kind] += not wrong
            print(f"{kind}: {done[kind]} of {wanted}, differing: {', '.join(wrong) or 'nothing'}", file=sys.stderr)
        rows.append({"moment": kind, "trainings": done[kind], "kills": hits[kind], "equal": equal[kind]})
    return rows, {name: wrong for name, wrong in ends.items() if wrong}


def main() -> int:
    """0: every end is the uninterrupted one's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="trainings that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the table to results/survival.md")
    arguments = parser.parse_args()
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows, differing = survive(arguments.kills, arguments.seed, Path(folder))
    total = {"moment": "all"} | {key: sum(row[key] for row in rows) for key in ("trainings", "kills", "equal")}
    head = ["killed with SIGKILL", "trainings", "kills", "ends equal in every bit"]
    table = markdown(head, [[str(value) for value in row.values()] for row in [*rows, total]])
    command = f"python -m benchmarks.survival --kills {arguments.kills} --seed {arguments.seed}"
    took = f"{(time.monotonic() - since) / 60:.1f} min"
    lines = [f"`{command}`, {machine(torch.device('cpu'))}, {date.today()}, {took}.", "", table]
    lines += ["Compared: " + "weights, average, optimiser, step and best score of the state, log (without images per "
              "second), both models and their config.json, names of the files left.", ""]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_between(RESULTS / "survival.md", text)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
