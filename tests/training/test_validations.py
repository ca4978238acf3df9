"""Proves when a run is validated, saved and ended, and which of its weights become the model."""

import itertools
import json

import pytest
import torch

from segmenter.errors import UserError
from segmenter.published.loading import load
from segmenter.training import loop, optim
from segmenter.training import run as running

pytestmark = pytest.mark.usefixtures("one_thread")


def log(run) -> list[dict]:
    """The lines of validations."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "val_mean_iou" in line]


@pytest.fixture
def scored(monkeypatch):
    """Has validations find these scores, one a model that is looked at; gives the weights that they saw."""

    def use(*scores: float) -> list[dict]:
        left, seen = iter(scores), []

        def found(_, model):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            return {"mean_iou": next(left), "pixel_accuracy": 0.5}

        monkeypatch.setattr(running.Run, "_scores", found)
        return seen

    return use


def same(model, weights: dict) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_the_better_of_average_and_weights_is_the_model_and_is_named(tmp_path, discs, tiny_recipe, scored, capfd):
    seen = scored(0.3, 0.4, 0.6, 0.5)  # average, weights; average, weights
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, steps=4, ema=0.9, lr=1e-2, validate_every=2)
    assert loop.train(recipe, tmp_path / "run") == 0.6
    first, second = log(tmp_path / "run")
    assert (first["model"], first["val_mean_iou"], first["average_mean_iou"]) == ("weights", 0.4, 0.3)
    assert (second["model"], second["val_mean_iou"], second["weights_mean_iou"]) == ("average", 0.6, 0.5)
    assert same(load(tmp_path / "run"), seen[2])
    told = capfd.readouterr().err
    assert "step 2: val mean iou 0.4000, pixel accuracy 0.5000 (weights; average 0.3000)" in told


def test_an_average_of_few_steps_loses_nothing(tmp_path, discs, tiny_recipe):
    """With the usual decay, 24 updates are hardly more than the first weights unless the average warms up."""
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, steps=24, batch=6, lr=1e-2, ema=0.999, validate_every=24)
    best = loop.train(recipe, tmp_path / "run")
    (line,) = log(tmp_path / "run")
    assert best == line["val_mean_iou"] >= max(line.get("weights_mean_iou", 0), line.get("average_mean_iou", 0))
    average = line["val_mean_iou"] if line["model"] == "average" else line["average_mean_iou"]
    assert average > 0.8


def test_patience_ends_a_run_and_resume_leaves_it_so(tmp_path, discs, tiny_recipe, scored, capfd):
    scored(0.5, 0.6, 0.6, 0.4)
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, steps=20, validate_every=2, patience=2)
    assert loop.train(recipe, tmp_path / "run") == 0.6
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 4, 6, 8]
    assert "ended after step 8: no better score in 2 validations (train.patience)" in capfd.readouterr().err
    assert loop.resume(tmp_path / "run") == 0.6
    assert len(log(tmp_path / "run")) == 4


def test_patience_counts_over_an_interruption(tmp_path, discs, tiny_recipe, scored, monkeypatch):
    scored(0.5, 0.4, 0.3)
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, steps=20, validate_every=2, save_every=2, patience=2)
    update = running.Run._update

    def stopping(run, batch):
        if run.step == 4 and not run.stopping.is_set():
            run.stopping.set()
        return update(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(running.Run, "_update", stopping)
        with pytest.raises(UserError, match="stopped after step 5"):
            loop.train(recipe, tmp_path / "run")
    assert loop.resume(tmp_path / "run") == 0.5
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 4, 6]


def test_minutes_validate_and_save_too(tmp_path, discs, tiny_recipe, scored, monkeypatch):
    clock, saved = itertools.count(step=20), []  # seconds: each look at the clock finds a third of a minute gone
    monkeypatch.setattr(running.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(running.Run, "_save_state", lambda run: saved.append(run.step))
    scored(*[0.5] * 20)
    settings = {"validate_every": 100, "save_every": 100, "validate_minutes": 2.0, "save_minutes": 0.5}
    loop.train(tiny_recipe(discs, decoder={"name": "linear"}, steps=9, **settings), tmp_path / "run")
    steps = [line["step"] for line in log(tmp_path / "run")]
    assert steps[-1] == 9
    assert 1 < len(steps) < 9
    assert len(saved) > len(steps)


def test_warm_up_as_a_share_follows_the_length(tiny_recipe):
    whole, share = (tiny_recipe("", steps=200, warmup=value).train for value in (20, 0.1))
    assert [optim.learning_rate(whole, i) for i in range(200)] == [optim.learning_rate(share, i) for i in range(200)]


def test_half_an_update_of_warm_up_is_refused(tmp_path, discs, tiny_recipe):
    with pytest.raises(UserError, match=r"train.warmup is 2.5; write a number of updates, or a share of train.steps"):
        loop.train(tiny_recipe(discs, warmup=2.5), tmp_path / "run")
