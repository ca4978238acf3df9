"""Proves that `check --model` finds masks that contradict a model, shows where, and refuses what it cannot compare."""

import csv
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import classes, small_model

import segmenter
from segmenter import upsample
from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.evaluation import doubtful as module
from segmenter.training.loop import train
from segmenter.upsample import argmax, bands
from segmenter.views import doubt_sheets

FAULTY = "train3"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def good_run(tmp_path_factory, write_data, tiny_recipe, on_one_thread) -> Path:
    """A run that tells red from blue from ground, on data of its own."""
    folder = tmp_path_factory.mktemp("good")
    write_data(folder / "discs", train=12)
    with on_one_thread():
        recipe = tiny_recipe(folder / "discs", decoder={"name": "linear"}, steps=60, batch=6, lr=1e-2)
        train(recipe, folder / "run")
    return folder / "run"


@pytest.fixture
def faulty(disc_folder) -> Path:
    """A data folder in one of whose masks red and blue are exchanged."""
    root = disc_folder()
    path = root / "train" / "masks" / f"{FAULTY}.png"
    mask = np.array(Image.open(path))
    Image.fromarray(np.array([0, 2, 1], np.uint8)[mask]).save(path)
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_faulty_mask_comes_first(faulty, good_run, command, tmp_path):
    out = tmp_path / "doubts"
    told = command("check", faulty, "--model", good_run, "--split", "train", "--out", out)
    assert told.status == 0, told.err
    assert "ready to train" in told.out
    _, first = next(pair for pair in pairwise(told.out.splitlines()) if pair[0].startswith("image "))
    assert first.startswith(FAULTY)
    assert "red -> blue" in first or "blue -> red" in first
    images, regions = table(out / "images.csv"), table(out / "regions.csv")
    assert [row["rank"] for row in images] == [str(i) for i in range(1, 7)]
    assert images[0]["image"] == FAULTY
    assert float(images[0]["doubt"]) > 3 * float(images[1]["doubt"])
    worst = regions[0]
    assert {worst["mask"], worst["model"]} == {"red", "blue"}
    assert float(worst["mask_probability"]) < 0.2 < float(worst["model_probability"])
    mask = np.array(Image.open(faulty / "train" / "masks" / f"{FAULTY}.png"))
    top, left = int(worst["top"]), int(worst["left"])
    inside = mask[top : top + int(worst["height"]), left : left + int(worst["width"])]
    assert np.isin(inside, [1, 2]).mean() > 0.4
    pictures = sorted((out / "regions").iterdir())
    assert len(pictures) == min(len(regions), doubt_sheets.SHEETS)
    assert [row["sheet"] for row in regions[: len(pictures)]] == [f"regions/{path.name}" for path in pictures]
    assert all(min(Image.open(path).size) > 100 for path in pictures)


def test_from_python_with_several_models(faulty, good_run, disc_run):
    models = [segmenter.load(good_run), segmenter.load(disc_run)]
    samples = open_labels(Data(str(faulty))).split("train")
    found = segmenter.doubtful(models, samples, show=False)
    assert found.samples[0].name == FAULTY
    assert segmenter.doubtful(models[:1] * 2, samples, show=False).doubts[0].doubt == pytest.approx(
        segmenter.doubtful(models[0], samples, show=False).doubts[0].doubt, abs=1e-5
    )
    sheets = list(doubt_sheets.doubtful_regions(models, found, 3))
    assert sorted(sheet.rank for sheet in sheets) == [1, 2, 3]
    by_rank = {sheet.rank: (sheet.sample, sheet.region) for sheet in sheets}
    assert [by_rank[rank] for rank in (1, 2, 3)] == found.regions()[:3]


def test_what_is_shown_is_written_anew_only_when_asked(faulty, good_run, command, tmp_path):
    words = ("check", faulty, "--model", good_run, "--out", tmp_path / "doubts")
    assert command(*words).status == 0
    before = (tmp_path / "doubts" / "images.csv").read_bytes()
    told = command(*words)
    assert told.status == 1
    assert "results of an earlier check" in told.err
    assert command(*words, "--overwrite").status == 0
    assert (tmp_path / "doubts" / "images.csv").read_bytes() == before


def test_large_photos_are_seen_in_part_and_no_class_has_a_map(
    tmp_path, disc_folder, disc_run, monkeypatch, largest_tensor
):
    root = disc_folder(size=(200, 260))
    model, samples = segmenter.load(disc_run), open_labels(Data(str(root))).split("test")
    monkeypatch.setattr(module, "MOST", 30_000)
    for part, name in ((bands, "TILE"), (argmax, "POINTS")):
        monkeypatch.setattr(part, name, 2000)
    maps = module.seen([model], samples[0])
    assert maps.given.size <= 30_000
    assert maps.scale[0] == pytest.approx(200 / maps.given.shape[0])
    with largest_tensor() as largest:
        found = module.doubtful(model, samples, show=False)
    assert 0 < largest.elements <= 3 * 200 * 260  # the photo itself
    for region in (region for doubt in found.doubts for region in doubt.regions):
        top, left, bottom, right = region.box
        assert 0 <= top < bottom <= 200
        assert 0 <= left < right <= 260
    passes = [(torch.randn(1, 60, 15, 20), upsample.Geometry((15, 20), (240, 320)))]
    with largest_tensor() as largest:
        module.compare(passes, np.zeros((240, 320), np.uint8), classes(60))
    assert 0 < largest.elements <= 2 * 240 * 320


def test_a_calibrated_model_is_as_sure_as_it_should_be(discs, disc_run):
    model, samples = segmenter.load(disc_run), open_labels(Data(str(discs))).split("test")
    sure = module.seen([model], samples[0])
    model.temperature = 4.0
    unsure = module.seen([model], samples[0])
    assert np.array_equal(sure.predicted, unsure.predicted)
    assert unsure.predicted_probability.mean() < sure.predicted_probability.mean()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--out", "{out}"), 2, "--out is for comparing masks with a model; add --model MODEL"),
        (("--split", "val"), 2, "--split is for comparing masks with a model"),
        (("--overwrite",), 2, "--overwrite is for comparing masks with a model"),
        (("--model", "{run}", "--task", "depth"), 2, "only masks are compared with models"),
        (("--model", "{run}", "--out", "{data}"), 1, "holds data"),
        (("--model", "{run}", "--model", "{other}"), 1, "the models have different classes, 3 (ground, ...) and 5 (c0"),
        (("--model", "{other}"), 1, "give the classes.yaml that the model was trained with: --data.classes FILE"),
        (("--model", "{depth}"), 1, "the model predicts depth, and masks can only be compared with labels"),
        (("--model", "{run}", "--split", "test"), 1, "none of the 2 images has a mask that could be doubted"),
        (("--model", "{none}"), 1, "{none}"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, status, said, disc_folder, disc_run, tmp_path, command):
    root = disc_folder()
    shutil.rmtree(root / "test" / "masks")
    small_model("linear").save(tmp_path / "other")
    small_model("dpt_depth", depth=4, count=1).save(tmp_path / "depth")
    names = {"out": tmp_path / "out", "data": root, "run": disc_run, "other": tmp_path / "other"}
    names |= {"depth": tmp_path / "depth", "none": tmp_path / "none"}
    told = command("check", root, *(word.format(**names) for word in words))
    assert told.status == status, told.err
    assert said.format(**names) in " ".join(told.err.split())
    assert "Traceback" not in told.err
    assert not (tmp_path / "out").exists()
