"""Proves that several processes train and score as one does, and end together when one of them does.

Accelerate's own settings change nothing about it. Pairs of processes take seconds to start: of_two_processes.py does
most of the work in one.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from segmenter import recipes
from segmenter.data.dataset import EndlessSampler
from segmenter.data.layouts import open_labels
from segmenter.errors import UserError
from segmenter.evaluation import kept_folder
from segmenter.evaluation.evaluate import evaluate
from segmenter.model import processes
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
JOBS = Path(__file__).with_name("of_two_processes.py")
PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
FOREIGN = {"MIXED_PRECISION": "bf16", "GRADIENT_ACCUMULATION_STEPS": "4", "DYNAMO_BACKEND": "eager"}
FOREIGN = {f"ACCELERATE_{name}": value for name, value in FOREIGN.items()}
LOST = "segmenter: another process of this training has ended: it was killed, ran out of memory, or says itself what is"


def logged(run: Path, name: str) -> list[float]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_recipe, write_data, on_one_thread) -> Path:
    """Data with five images in val and one in test, spoilt copies, recipes, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("processes")
    data = write_data(folder / "discs", val=5, test=1)
    settings = {"steps": 6, "batch": 4, "validate_every": 3, "save_every": 3, "ema": 0.9, "clip": 1.0}
    settings |= {"layer_decay": 0.8, "weight_decay": 0.05, "class_weights": "median_frequency"}
    recipe = tiny_recipe(data, decoder={"dropout": 0.0, "drop_path": 0.0}, **settings)
    (folder / "plain.yaml").write_text(recipes.to_yaml(recipe))
    (folder / "shard.yaml").write_text(recipes.to_yaml(replace(recipe, train=replace(recipe.train, shard=True))))
    settings |= {"optimizer": "sgd", "accumulate": 2, "ema": 0.0, "steps": 2, "shard": True}
    encoder = {"freeze": 1, "checkpointing": True}
    sgd = tiny_recipe(data, decoder={"dropout": 0.0, "drop_path": 0.0}, encoder=encoder, **settings)
    (folder / "sgd.yaml").write_text(recipes.to_yaml(sgd))
    setr = {"name": "setr_naive", "width": 16, "taps": (0, 0, 1, 1)}
    (folder / "setr.yaml").write_text(recipes.to_yaml(tiny_recipe(data, decoder=setr, steps=1)))
    # The second process has the second half of the first batch, and every second image of val.
    third = [index for index, _ in islice(EndlessSampler(6, recipe.train.seed), 4)][2]
    for name, image in (("unread", f"train/images/train{third}.png"), ("unscored", "val/images/val1.png")):
        path = shutil.copytree(data, folder / name) / image
        path.write_bytes(path.read_bytes()[:-30])
    with on_one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmenter.training.run.LOG_EVERY", 1)
        loop.train(recipe, folder / "one", "cpu")
        loop.train(sgd, folder / "one_sgd", "cpu")
        update = loop.Run._update

        def cut(run, batch):
            if run.step == 3:
                raise InterruptedError
            return update(run, batch)

        patch.setattr(loop.Run, "_update", cut)
        with pytest.raises(InterruptedError):
            loop.train(recipe, folder / "one_half", "cpu")
    shutil.copytree(folder / "one", folder / "runs" / "two")  # as the page calls it
    (folder / "photos").symlink_to(folder / "discs")
    sharing = shutil.copytree(folder / "one_half", folder / "one_half_shard")
    shutil.copy(folder / "shard.yaml", sharing / "recipe.yaml")
    return folder


def same_losses(run: Path, other: Path, bound: float) -> None:
    """Scores are compared more loosely: rounding may turn the label of a pixel."""
    assert logged(run, "step") == logged(other, "step")
    for name, error in (("loss", {"rel": bound}), ("gradient_norm", {"rel": 1e-4}), ("val_mean_iou", {"abs": 1e-2})):
        assert logged(run, name) == pytest.approx(logged(other, name), **error), name


def page_command(verb: str) -> list[str]:
    """The words after `accelerate launch` of the page's command for CPUs with this verb."""
    page = PAGE.read_text(encoding="utf-8")
    return re.search(rf"^    accelerate launch (.* {verb} .* --device cpu)$", page, re.MULTILINE)[1].split()


def training(data: str, out: str, recipe: str = "plain") -> list[str]:
    return ["train", "--config", f"{recipe}.yaml", "--data.root", data, "--out", out, "--device", "cpu"]


class Two(NamedTuple):
    """What two processes printed, and the statuses they ended with."""

    out: list[str]
    err: str
    ended: list[int]


@pytest.fixture(scope="module")
def two(folder, environment) -> Two:
    """Two processes that do all jobs, started by hand as a cluster does; in the last one, the first is killed.

    What `accelerate config` leaves in the environment is there too.
    """
    jobs = [
        ["train", "plain", "two"],
        ["train_and_measure", "shard", "two_shard"],
        ["train", "sgd", "two_sgd"],
        ["train_half", "plain", "two_half"],
        ["train_half", "shard", "two_half_shard"],
        ["resume", "one_half"],
        ["resume", "one_half_shard"],
        ["score", "one", "plain", "val"],
        ["score", "one", "plain", "test"],
        ["keep", "one", "plain", "val"],
        ["keep", "one", "plain", "test"],
        ["command", *page_command("evaluate")[5:], "--json"],
        ["command", *training("discs", "one", "setr")],
        ["command", *training("discs", "two_setr", "setr")],
        ["command", *training("unread", "unread_run", "shard")],
        ["command", *training("unscored", "unscored_run")],
        ["first_dies_validating", *training("discs", "died")],
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    with (folder / "told").open("w") as told:
        pair = [
            subprocess.Popen(
                [sys.executable, str(JOBS), str(folder), json.dumps(jobs)],
                env=environment | FOREIGN | addresses | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=folder, stdout=subprocess.PIPE, stderr=told, text=True,
            )
            for rank in (0, 1)
        ]  # fmt: skip
    try:
        out = [process.communicate(timeout=240)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()
    err = (folder / "told").read_text()
    assert (folder / "statuses0.txt").is_file(), err[-3000:]
    return Two(out, err, [process.returncode for process in pair])


@pytest.mark.usefixtures("two")
class TestTwo:
    """Two processes with one thread each; the bounds are those of rounding in float32."""

    def test_train_as_one(self, folder):
        same_losses(folder / "two", folder / "one", 1e-5)
        assert recipes.read(str(folder / "two" / "recipe.yaml")) == recipes.read(str(folder / "plain.yaml"))

    def test_train_as_two_when_they_share_out_the_weights(self, folder):
        same_losses(folder / "two_shard", folder / "two", 1e-4)
        ours, theirs = (load_file(folder / run / "model.safetensors") for run in ("two_shard", "two"))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_share_out_what_sgd_learns_with_frozen_blocks_and_recomputed_activations(self, folder):
        same_losses(folder / "two_sgd", folder / "one_sgd", 1e-4)

    def test_keep_half_of_what_they_share_out(self, folder):
        parts = [json.loads((folder / f"parts{rank}.json").read_text()) for rank in (0, 1)]
        for kind in ("weights", "optimiser", "average"):
            (first, whole), (second, _) = (part[kind] for part in parts)
            assert 0.4 * whole < min(first, second), kind  # what has one row, as positions, is not shared out
            assert max(first, second) < 0.6 * whole, kind

    @pytest.mark.parametrize("run", ["one_half", "one_half_shard"])
    def test_go_on_with_a_run_of_one(self, folder, run):
        self.went_on(folder, run)

    @pytest.mark.parametrize("run", ["two_half", "two_half_shard"])
    def test_one_goes_on_with_a_run_of_two(self, folder, run, monkeypatch, one_thread):
        assert checkpoint.load_state(folder / run)["step"] == 3
        monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)
        loop.resume(folder / run, "cpu")
        self.went_on(folder, run)

    def went_on(self, folder: Path, run: str) -> None:
        same_losses(folder / run, folder / "one", 1e-5)
        ours, theirs = (checkpoint.load_state(folder / name) for name in (run, "one"))
        torch.testing.assert_close(ours["averaged"], theirs["averaged"], rtol=1e-4, atol=1e-5)
        (ours,), (theirs,) = ours["optimizers"], theirs["optimizers"]
        torch.testing.assert_close(ours["state"], theirs["state"], rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("split", ["val", "test"])  # five images, and one
    def test_count_as_one_does(self, folder, split, one_thread):
        samples = open_labels(recipes.read(str(folder / "plain.yaml")).data).split(split)
        expected = evaluate(load(folder / "one"), samples, show=False).confusion.tolist()
        assert [json.loads((folder / f"counts_{split}{rank}.json").read_text()) for rank in (0, 1)] == [expected] * 2

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_keep_of_every_image_what_one_does(self, folder, split, tmp_path, one_thread):
        samples = open_labels(recipes.read(str(folder / "plain.yaml")).data).split(split)
        expected = evaluate(load(folder / "one"), samples, show=False, out=tmp_path / "kept").confusion.tolist()
        for rank in (0, 1):
            assert json.loads((folder / f"kept_counts_{split}{rank}.json").read_text()) == expected
        ours, theirs = kept_folder.read(folder / f"kept_{split}"), kept_folder.read(tmp_path / "kept")
        assert ours.names == theirs.names
        for table in ("sizes", "confusions", "objects", "boundaries"):
            assert np.array_equal(getattr(ours, table), getattr(theirs, table))
        # Other images share passes through the network, which then rounds differently.
        np.testing.assert_allclose(ours.calibration, theirs.calibration, rtol=1e-5)

    def test_print_results_once(self, folder, two, one_thread):
        samples = open_labels(recipes.read(str(folder / "plain.yaml")).data).split("val")
        scores, end = json.JSONDecoder().raw_decode(two.out[0])
        assert scores == evaluate(load(folder / "one"), samples, show=False).to_dict()
        assert re.fullmatch(r"\s*best val mIoU .*; the model is two_setr\s*", two.out[0][end:])
        assert two.out[1] == ""

    @pytest.mark.parametrize("image", ["unread/train", "unscored/val"])
    def test_say_once_what_one_of_them_finds(self, folder, two, image):
        said = re.findall(rf"^segmenter: {image}/images/\w+\.png is broken or incomplete.*$", two.err, re.MULTILINE)
        assert len(said) == 1, two.err[-3000:]
        assert (folder / "statuses0.txt").read_text() == "0 1 0 1 1 "
        if image.startswith("unread"):  # which was so before the first step
            assert checkpoint.load_state(folder / "unread_run")["step"] == 0

    def test_refuse_a_folder_that_is_taken_once(self, two):
        assert two.err.count("segmenter: one holds another run; choose another --out") == 1

    def test_warn_once_of_batch_norms_that_each_measures_for_itself(self, two):
        assert two.err.count("warning: on cpu each process measures the decoder's batch norms on its own images") == 1

    def test_the_second_says_that_the_first_has_died(self, folder, two):
        """Without a launcher that would end it, as it waits in a validation; the first has the connections of all."""
        assert two.ended == [-signal.SIGKILL, 0]
        assert (folder / "statuses1.txt").read_text() == "0 1 0 1 1 1 "
        assert two.err.count(f"{LOST} wrong; go on from the last saved state") == 1
        assert two.err.endswith("segmenter resume died\n")

    def test_let_the_recipe_decide_not_accelerates_configuration(self, two):
        for name, decides in (("MIXED_PRECISION", "precision"), ("GRADIENT_ACCUMULATION_STEPS", "accumulate")):
            value = FOREIGN[f"ACCELERATE_{name}"]
            assert f"ACCELERATE_{name} is {value}, which is not used: train.{decides} decides" in two.err
        assert "ACCELERATE_DYNAMO_BACKEND is eager, which is not used: train.compile decides" in two.err


def wait_for(what: Callable[[], object], seconds: float) -> object:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.1)
    return found


def test_the_death_of_one_process_ends_the_training_of_the_page(folder, environment, tmp_path):
    """With loading processes; nothing is left of it, and the state that was saved last is whole."""
    (tmp_path / "photos").symlink_to(folder / "discs")
    words = page_command("train")
    words[words.index("finetune")] = str(folder / "plain.yaml")
    words += ["--train.steps", "100000", "--train.validate-every", "100000", "--train.workers", "1"]
    with (tmp_path / "told").open("w") as told:
        launcher = subprocess.Popen([*LAUNCH, *words], cwd=tmp_path, env=environment, stderr=told)
    try:
        run = tmp_path / "runs" / "two"
        wait_for((run / "state.pt").exists, 120)
        of_run = [p for p in psutil.Process(launcher.pid).children(recursive=True) if p.environ().get("RANK") == "1"]
        everyone = psutil.Process(launcher.pid).children(recursive=True)
        assert len(everyone) == 4
        os.kill(min(of_run, key=lambda process: process.create_time()).pid, signal.SIGKILL)
        assert launcher.wait(30) != 0
        _, left = psutil.wait_procs(everyone, 30)
        assert not left
    finally:
        launcher.kill()
    text = (tmp_path / "told").read_text()
    assert text.count(f"{LOST} wrong; go on from the last saved state") == 1
    assert f"as many processes as you like: segmenter resume {Path('runs/two')}" in text
    assert checkpoint.load_state(run)["step"] >= 3


@pytest.mark.parametrize(("name", "engine"), [("USE_FSDP", "FSDP"), ("USE_DEEPSPEED", "DeepSpeed")])
def test_engines_that_shard_the_model_are_refused(monkeypatch, name, engine):
    monkeypatch.setenv(f"ACCELERATE_{name}", "true")
    with pytest.raises(UserError) as error:
        processes.device_here("cpu")
    assert str(error.value) == (
        f"accelerate is set to use {engine} (ACCELERATE_{name}), which is not used here; start it without (accelerate "
        "launch --multi_gpu), and write --train.shard true for weights that do not fit one device"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "muon"}, "train.shard and train.optimizer muon .* write --train.optimizer adamw, or leave out"),
        ({"compile": True}, "train.shard and train.compile do not go .* write --train.compile false, or leave out"),
    ],
)
def test_what_needs_whole_matrices_is_refused(tiny_recipe, discs, settings, words):
    with pytest.raises(UserError, match=words):
        recipes.refuse_impossible(tiny_recipe(discs, shard=True, **settings))


class FakeState:
    """What accelerate says in the second of two processes with CUDA."""

    num_processes, device = 2, torch.device("cuda:1")

    def __init__(self, cpu: bool):
        if cpu:
            self.device = torch.device("cpu")


def test_each_of_several_processes_has_its_own_device(monkeypatch):
    monkeypatch.setattr(processes, "PartialState", FakeState)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.device_here("auto") == processes.device_here("cuda") == torch.device("cuda:1")
    assert processes.device_here("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="each of 2 processes has a device of its own; write --device cuda instead of"):
        processes.device_here("cuda:0")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # accelerate launch --cpu
    assert processes.device_here("auto") == torch.device("cpu")


def test_several_processes_cannot_share_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "PartialState", lambda cpu: None)
    with pytest.raises(UserError, match="2 processes cannot share the MPS device; start one, or write --device cpu"):
        processes.device_here("auto")
