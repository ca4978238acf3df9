"""Proves that a training tells how it goes in its folder, and that no report changes or ends it."""

import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_examples import Parsed

import segmenter
from segmenter.data.scenes.scene import render
from segmenter.studies import live
from segmenter.training import environment, loop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def recipe(discs, tiny_recipe):
    return tiny_recipe(discs, steps=6, validate_every=3, save_every=3)


def test_the_page_follows_the_training_and_is_whole_at_its_end(recipe, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []
    write = live.write_live

    def written(validated):
        write(validated)
        seen.append((run / "report.html").read_text())

    monkeypatch.setattr(live, "write_live", written)
    live.train(recipe, run, "cpu", "segmenter train --out run")
    assert [f"step {step} of 6" in Parsed(html).text for html, step in zip(seen, (3, 6), strict=True)] == [True, True]
    assert all("data-refresh" in html for html in seen)
    assert seen[0].count("<img") == 2 * 4  # photo, truth, prediction and errors of the two images of val
    whole = (run / "report.html").read_text()
    assert "data-refresh" not in whole
    text = Parsed(whole).text
    assert "Scored on val of" in text
    assert "The best model was chosen by these images" in text
    assert "segmenter train --out run" in text
    for section in ("Scores", "Training", "Classes", "Images", "Confusions", "Object sizes", "Calibration", "Origin"):
        assert section in text
    assert segmenter.load(run).classes.names == ("ground", "red", "blue")


def test_the_run_is_the_same_without_reports(recipe, tmp_path):
    live.train(recipe, tmp_path / "with", "cpu")
    live.train(recipe, tmp_path / "without", "cpu", reports=False)
    extra = {path.name for path in (tmp_path / "with").iterdir()} - {
        path.name for path in (tmp_path / "without").iterdir()
    }
    assert extra == {"report.html", "evaluation"}
    for name in ("model.safetensors", "config.json", "last/model.safetensors"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes(), name


@pytest.mark.parametrize("error", [OSError("no\x1bfont"), ValueError("x" * 5000), MemoryError()])
def test_a_report_that_fails_is_a_warning(recipe, tmp_path, monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(live, "render", fail)
    monkeypatch.setattr(live, "report", fail)
    assert 0 <= live.train(recipe, tmp_path / "run", "cpu") <= 1
    told = capsys.readouterr().err
    assert told.count("warning: no report was written: ") == 3  # two validations and the end
    assert "\x1b" not in told
    assert len(told) < 4000
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_ctrl_c_at_the_end_leaves_the_report_out_and_nothing_else(recipe, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(live, "report", interrupted)
    assert 0 <= live.train(recipe, tmp_path / "run", "cpu") <= 1
    assert f"for one: segmenter report {tmp_path / 'run'}" in capsys.readouterr().err


def test_the_images_of_val_are_always_the_same_few():
    class Sample:
        def __init__(self, name, labelled=True):
            self.name, self.labelled = name, labelled

    samples = [Sample(i, i % 3 != 0) for i in range(20)]
    assert [sample.name for sample in live.fixed_samples(samples)] == [1, 5, 10, 14]
    assert [sample.name for sample in live.fixed_samples(samples[:2])] == [1]
    assert live.fixed_samples([]) == []


def test_a_run_keeps_where_it_was_trained(recipe, tmp_path, monkeypatch):
    run = tmp_path / "run"
    update = loop.Run._update

    def told_to_stop(training, batch):
        training.stopping.set()
        return update(training, batch)

    with monkeypatch.context() as stopped:
        stopped.setattr(loop.Run, "_update", told_to_stop)
        with pytest.raises(segmenter.UserError, match="stopped after step 1"):
            live.train(recipe, run, "cpu", "segmenter train --config tiny")
    live.resume(run, "cpu", "segmenter resume run")
    found = environment.sessions(run)
    assert [(entry["command"], entry["after_step"]) for entry in found] == [
        ("segmenter train --config tiny", 0),
        ("segmenter resume run", 1),
    ]
    for entry in found:
        assert entry["device"] == "cpu"
        assert entry["precision"] == "float32"
        assert entry["torch"].startswith("2.")
        assert entry["cores"] >= 1
    assert str(tmp_path) not in (run / "environment.json").read_text()
    (run / "report.html").unlink()
    live.resume(run, "cpu", "segmenter resume run")  # nothing is left to do, so nothing is added
    assert environment.sessions(run) == found
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("content", ["", "{", "3", '[1, {"device": "cpu"}]', "[" * 100_000])
def test_a_damaged_record_of_the_environment_is_none(tmp_path, content):
    (tmp_path / environment.FILE).write_text(content)
    assert environment.sessions(tmp_path) in ([], [{"device": "cpu"}])


def test_the_record_does_not_grow_without_end(tmp_path):
    before = [{"number": number} for number in range(environment.SESSIONS)]
    (tmp_path / environment.FILE).write_text(json.dumps(before))
    environment.record(tmp_path, {"number": -1})
    numbers = [entry["number"] for entry in environment.sessions(tmp_path)]
    assert numbers == [0, *range(2, environment.SESSIONS), -1]


def test_a_training_of_depth_has_a_page_too(tiny_recipe, tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "depth"):
            (tmp_path / "rooms" / split / kind).mkdir(parents=True)
        for i in range(2):
            scene = render(len(split), i, (48, 64))
            Image.fromarray(scene.image).save(tmp_path / "rooms" / split / "images" / f"{i}.png")
            depth = (100 * scene.depth).astype(np.uint16)
            Image.fromarray(depth).save(tmp_path / "rooms" / split / "depth" / f"{i}.png")
    decoder, encoder = {"name": "dpt_depth", "width": 4}, {"depth": 4, "patch_size": 16}
    recipe = tiny_recipe(tmp_path / "rooms", decoder, encoder, steps=2, validate_every=1)
    recipe = replace(recipe, data=replace(recipe.data, depth_scale=100.0))
    run = tmp_path / "run"
    live.train(recipe, run, "cpu")
    text = Parsed((run / "report.html").read_text()).text
    assert "Errors by distance" in text
    assert "measured" in text
    assert re.search(r"[\d.]+ to [\d.]+ m ", text)
    assert "best delta1 on val" in text
