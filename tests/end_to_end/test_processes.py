"""Proves that several processes train as one does: the same batches, the same losses, one run folder."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from segmenter import recipes


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in line]


def test_two_processes_train_as_one(tmp_path, discs, tiny_recipe, recipe_file, environment, monkeypatch):
    recipe = tiny_recipe(discs, steps=10, batch=4, class_weights="median_frequency")
    recipe = replace(recipe, train=replace(recipe.train, lr=1e-2, validate_every=5))
    path = recipe_file(recipe)
    words = ["-m", "segmenter", "train", "--config", str(path), "--out"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--main_process_port", "0"]
    for out, start in (("one", [sys.executable]), ("two", launch)):
        line = [*start, *words, str(tmp_path / out)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert (tmp_path / "two" / "model.safetensors").is_file()
    assert recipes.read(str(tmp_path / "two" / "recipe.yaml")) == recipe
