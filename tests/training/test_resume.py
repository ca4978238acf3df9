"""Proves that a run that is stopped, cut off or refused continues bit for bit as if nothing had happened."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from segmenter import recipes, upsample
from segmenter.data.layouts import open_labels
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import evaluate
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def stop_after(monkeypatch):
    """Ends runs after a step as Ctrl-C in it does; None: no more."""
    update, chosen = loop.Run._update, []

    def stopping(run, batch):
        if chosen and run.step + 1 == chosen[-1]:
            run.stopping.set()
        return update(run, batch)

    monkeypatch.setattr(loop.Run, "_update", stopping)
    return chosen.append


def state(folder: Path) -> dict:
    return checkpoint.load_state(folder)


def log(folder: Path) -> list[dict]:
    """Log lines without what a clock says."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def same(one: object, two: object) -> bool:
    """Whether two states are equal in every bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize(("optimizer", "workers"), [("adamw", 0), ("muon", 1)])
def test_stopped_and_resumed_equals_uninterrupted_in_every_bit(
    tmp_path, discs, tiny_recipe, monkeypatch, stop_after, optimizer, workers
):
    monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)
    recipe = tiny_recipe(
        discs,
        decoder={"dropout": 0.1, "drop_path": 0.1},
        encoder={"dropout": 0.1, "drop_path": 0.2},
        steps=9, batch=4, ema=0.9, clip=1.0, warmup=2, validate_every=4, save_every=3, workers=workers,
        optimizer=optimizer, weight_decay=0.05, layer_decay=0.8, class_weights="median_frequency",
    )  # fmt: skip
    recipe.augment.scale, recipe.augment.distortion = (0.5, 2.0), True
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    best = loop.train(recipe, whole)

    stop_after(2)
    with pytest.raises(UserError, match=f"stopped after step 2; go on with: segmenter resume {parts}"):
        loop.train(recipe, parts)
    assert state(parts)["step"] == 2
    stop_after(7)
    with pytest.raises(UserError, match="stopped after step 7"):
        loop.resume(parts)
    assert same(state(parts)["best"], log(whole)[4]["val_mean_iou"])
    assert loop.resume(parts) == best

    assert log(parts) == log(whole)
    assert same(state(parts), state(whole))
    for name in ("model.safetensors", "config.json", "last/model.safetensors", "recipe.yaml"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_killed_run_loses_only_what_was_done_since_the_last_save(tmp_path, discs, tiny_recipe, monkeypatch):
    monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)
    recipe = tiny_recipe(discs, steps=8, save_every=3, encoder={"drop_path": 0.2})
    loop.train(recipe, tmp_path / "whole")

    class Killed(BaseException):
        pass

    update = loop.Run._update

    def killed(run, batch):
        if run.step == 5:
            raise Killed
        return update(run, batch)

    monkeypatch.setattr(loop.Run, "_update", killed)
    with pytest.raises(Killed):
        loop.train(recipe, tmp_path / "parts")
    monkeypatch.undo()
    monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)
    assert state(tmp_path / "parts")["step"] == 3
    with (tmp_path / "parts" / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # power was cut as it was written
    loop.resume(tmp_path / "parts")
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert same(state(tmp_path / "parts"), state(tmp_path / "whole"))


def test_a_finished_run_stays_as_it_is(disc_run, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert loop.resume(run) == state(run)["best"]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_best_model_is_kept_and_the_last_one_beside_it(tmp_path, discs, tiny_recipe, monkeypatch):
    validate, rates = loop.Run._validate, iter((0.0, 0.0, 1e3))

    def worsened(run, log, watch):
        """The third validation sees a spoilt model."""
        spoilt = next(rates)
        with torch.no_grad():
            run.model.decoder.head.bias[0] += spoilt
        validate(run, log, watch)

    monkeypatch.setattr(loop.Run, "_validate", worsened)
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, steps=30, batch=6, lr=1e-2, validate_every=10)
    best = loop.train(recipe, tmp_path / "run")
    scores = [line["val_mean_iou"] for line in log(tmp_path / "run") if "val_mean_iou" in line]
    assert len(scores) == 3
    assert best == max(scores) > scores[2]
    val = open_labels(recipe.data).split("val")
    assert evaluate(load(tmp_path / "run"), val, show=False).mean_iou == best
    assert evaluate(load(tmp_path / "run" / "last"), val, show=False).mean_iou == scores[2]


def test_a_second_run_into_the_folder_is_refused_and_changes_nothing(disc_run, discs, tmp_path, tiny_recipe):
    run = shutil.copytree(disc_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"another run; choose another --out, .* segmenter resume {run}"):
        loop.train(tiny_recipe(discs), run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not an empty folder; choose another --out"):
        loop.train(tiny_recipe(discs), tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_refused_settings_leave_no_folder_behind(tmp_path, discs, tiny_recipe):
    with pytest.raises(UserError, match=r"train.batch is 3; it must be a multiple of 2"):
        loop.train(tiny_recipe(discs, batch=3, accumulate=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path, discs, tiny_recipe, monkeypatch):
    cross_entropy, calls = upsample.cross_entropy, []

    def broken(*arguments, **options):
        calls.append(0)
        loss, weight = cross_entropy(*arguments, **options)
        return loss * (math.nan if len(calls) == 4 else 1), weight

    recipe = tiny_recipe(discs, steps=6)
    monkeypatch.setattr(upsample, "cross_entropy", broken)
    with pytest.raises(UserError) as error:
        loop.train(recipe, tmp_path / "run")
    monkeypatch.undo()
    text = str(error.value)
    assert text.startswith("step 4: loss nan")
    assert f"the state after step 3 is in {tmp_path / 'run' / 'state.pt'}" in text
    assert "train.lr (now 0.001)" in text
    assert "train.clip" in text
    batch = next(iter(text.split("The batch: ")[1].split(". ")))
    assert len(batch.split(", ")) == 2
    assert all((discs / "train" / "images" / f"{name}.png").is_file() for name in batch.split(", "))
    # What was kept is the run's own state after three steps: it goes on to the same end.
    loop.train(recipe, tmp_path / "whole")
    assert state(tmp_path / "run")["step"] == 3
    loop.resume(tmp_path / "run")
    assert same(state(tmp_path / "run")["model"], state(tmp_path / "whole")["model"])


def test_what_is_kept_of_a_run_that_explodes_is_finite(tmp_path, discs, tiny_recipe):
    recipe = tiny_recipe(discs, steps=6, lr=1e30, warmup=1)  # the first step has rate 0
    with pytest.raises(UserError, match=r"step \d: loss \w+, gradient norm \w+. .*lower train.lr"):
        loop.train(recipe, tmp_path / "run")
    kept = state(tmp_path / "run")
    assert kept["step"] >= 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_weights_that_overflowed_do_not_replace_an_older_state(tmp_path, discs, tiny_recipe, monkeypatch):
    recipe = tiny_recipe(discs, steps=6, save_every=2)
    update = loop.Run._update

    def overflowing(run, batch):
        done = update(run, batch)
        if run.step == 3:
            next(run.model.parameters()).data.fill_(math.inf)
        return done

    monkeypatch.setattr(loop.Run, "_update", overflowing)
    with pytest.raises(UserError, match=r"step 4: .* were too large before it; an older state is in"):
        loop.train(recipe, tmp_path / "run")
    assert state(tmp_path / "run")["step"] == 2


def test_resume_says_what_is_missing_or_does_not_fit(disc_run, tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no recipe.yaml; `segmenter train --out"):
        loop.resume(tmp_path)
    run = shutil.copytree(disc_run, tmp_path / "run")
    content = (run / "state.pt").read_bytes()
    (run / "state.pt").unlink()
    with pytest.raises(UserError, match=r"has no state.pt to go on from"):
        loop.resume(run)
    (run / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"state.pt is damaged .* train again into another folder"):
        loop.resume(run)
    (run / "state.pt").write_bytes(content)
    recipe = recipes.read(str(run / "recipe.yaml"))
    recipe.encoder.width = 96
    (run / "recipe.yaml").write_text(recipes.to_yaml(recipe))
    with pytest.raises(UserError, match=r"state.pt does not fit .*recipe.yaml .*put back the recipe"):
        loop.resume(run)
