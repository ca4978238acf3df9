"""Proves that several processes train as one does, and that accelerate's own settings change nothing about it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segmenter import recipes
from segmenter.config import Recipe
from segmenter.errors import UserError
from segmenter.model import processes

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
LAUNCH += ["--main_process_port", "0"]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in line]


@pytest.fixture(scope="module")
def recipe(discs, tiny_recipe) -> Recipe:
    """Of a run that two processes can share."""
    recipe = tiny_recipe(discs, steps=10, batch=4, class_weights="median_frequency")
    return replace(recipe, train=replace(recipe.train, lr=1e-2, validate_every=5))


@pytest.fixture(scope="module")
def trained(recipe, environment, tmp_path_factory):
    """Trains the recipe with a command before `-m segmenter`, and more variables; returns run folder and stderr."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.yaml").write_text(recipes.to_yaml(recipe))

    def train(name: str, start: list[str], **variables: str) -> tuple[Path, str]:
        words = ["-m", "segmenter", "train", "--config", str(folder / "recipe.yaml"), "--out", str(folder / name)]
        done = subprocess.run(
            [*start, *words], env=environment | variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return folder / name, done.stderr

    return train


@pytest.fixture(scope="module")
def one(trained) -> Path:
    """The run of one process."""
    return trained("one", [sys.executable])[0]


def test_two_processes_train_as_one(one, trained, recipe):
    two, told = trained("two", LAUNCH)
    assert "not used" not in told  # what `accelerate launch` says of its own accord changes nothing
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert (two / "model.safetensors").is_file()
    assert recipes.read(str(two / "recipe.yaml")) == recipe


def test_the_recipe_decides_not_accelerates_configuration(one, trained):
    """As `accelerate config` leaves them, and other launchers inherit them."""
    foreign = {"MIXED_PRECISION": "bf16", "GRADIENT_ACCUMULATION_STEPS": "4", "DYNAMO_BACKEND": "eager"}
    run, told = trained("foreign", [sys.executable], **{f"ACCELERATE_{name}": foreign[name] for name in foreign})
    assert losses(run) == losses(one)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())
    for name, decides in zip(foreign, ("precision", "accumulate", "compile"), strict=True):
        assert f"ACCELERATE_{name} is {foreign[name]}, which is not used: train.{decides} decides" in told


@pytest.mark.parametrize(("name", "engine"), [("USE_FSDP", "FSDP"), ("USE_DEEPSPEED", "DeepSpeed")])
def test_engines_that_shard_the_model_are_refused(monkeypatch, name, engine):
    monkeypatch.setenv(f"ACCELERATE_{name}", "true")
    with pytest.raises(UserError) as error:
        processes.device_here("cpu")
    assert str(error.value) == (
        f"accelerate is set to use {engine} (ACCELERATE_{name}), which is not used here; start it without (accelerate "
        "launch --multi_gpu), and write --train.shard true for weights that do not fit one device"
    )


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
