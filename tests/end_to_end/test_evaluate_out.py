"""Proves that `evaluate --out` prints and writes all scores, of labels and of depth, and refuses in a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest

from segmenter.config import DptDepth
from segmenter.data import samples
from segmenter.evaluation import kept_folder
from segmenter.evaluation.kept_depth import DISTANCES
from segmenter.training.loop import train


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    monkeypatch.setattr(samples, "SCENE_COUNTS", {"train": 2, "val": 2, "test": 4})


@pytest.fixture
def depth_run(tmp_path, tiny_recipe, one_thread):
    """A run on depth of scenes, trained for a moment."""
    recipe = replace(tiny_recipe("scenes", encoder={"depth": 4}, steps=1), decoder=DptDepth(width=16))
    train(recipe, tmp_path / "run")
    return tmp_path / "run"


def test_labels(command, disc_run, discs, tmp_path):
    words = "evaluate", disc_run, discs, "--workers", 0
    plain, told = command(*words), command(*words, "--out", tmp_path / "kept")
    assert plain.status == told.status == 0
    assert told.out.startswith(plain.out)  # the same scores, and more below
    lines = told.out[len(plain.out) :].splitlines()
    found = kept_folder.summary(tmp_path / "kept")
    mean = found["measures"]["mean_iou"]
    interval = f"{100 * mean['low']:.2f} to {100 * mean['high']:.2f}"
    assert lines[1:3] == [
        "                       %    95 % interval over 2 images",
        f"mean IoU           {100 * mean['value']:6.2f}    {interval}",
    ]
    assert [line.split()[0] for line in lines if line.split()[:1]][6:10] == ["objects", "small", "medium", "large"]
    assert found["about"]["model"] == str(disc_run)
    assert sum(size["objects"] for size in found["objects"].values()) > 0


def test_json_is_what_the_folder_holds(command, disc_run, discs, tmp_path):
    told = command(
        "evaluate", disc_run, discs, "--workers", 0, "--out", tmp_path, "--areas", 10, 100, "--boundary", 0.05, "--json"
    )
    assert told.status == 0
    assert json.loads(told.out) == json.loads((tmp_path / "scores.json").read_text())
    assert json.loads(told.out)["areas"] == [10, 100]
    assert kept_folder.read(tmp_path).boundary == 0.05


def test_depth(command, depth_run, tmp_path):
    words = "evaluate", depth_run, "scenes", "--workers", 0
    plain, told = command(*words), command(*words, "--out", tmp_path / "kept")
    assert plain.status == told.status == 0, told.err
    assert told.out.startswith(plain.out)
    kept = kept_folder.read(tmp_path / "kept")
    found = json.loads((tmp_path / "kept" / "scores.json").read_text())
    assert len(kept) == 4
    assert found["scores"] == json.loads(command(*words, "--json").out)  # bit for bit
    assert found["measures"]["abs_rel"]["value"] == pytest.approx(found["scores"]["abs_rel"])
    assert "0 to 0.625 " in told.out
    assert kept.edges[-1] == 80
    assert kept.distances.shape == (4, DISTANCES, 4)
    # All pixels that an image's metrics are means of lie in one of the ranges.
    pixels = kept.distances[..., 0].sum(1)
    np.testing.assert_allclose(kept.distances[..., 1].sum(1) / pixels, kept.per_image["abs_rel"])
    np.testing.assert_allclose(np.sqrt(kept.distances[..., 2].sum(1) / pixels), kept.per_image["rmse"])
    np.testing.assert_allclose(kept.distances[..., 3].sum(1) / pixels, kept.per_image["delta1"], atol=1e-9)
    told = command(*words, "--out", tmp_path / "other", "--areas", 10, 20)
    assert told.status == 1
    assert "areas is set, but the model is one of depth, without objects and boundaries; leave it out" in told.err


def test_refusals(command, disc_run, discs, tmp_path):
    words = "evaluate", disc_run, discs, "--workers", 0
    told = command(*words, "--overwrite")
    assert told.status == 1
    assert told.err == (
        "segmenter: overwrite is set, but is only for what out writes; give a folder (--out), or leave it out\n"
    )
    (tmp_path / "scores.json").write_text('{"mine": true}')
    told = command(*words, "--out", tmp_path, "--overwrite")
    assert told.status == 1
    assert told.err == (
        f"segmenter: {tmp_path} holds scores.json, which evaluate did not write; choose another --out\n"
    )
    assert (tmp_path / "scores.json").read_text() == '{"mine": true}'
    told = command(*words, "--out", discs / "test")
    assert told.status == 1
    assert "holds data" in told.err
