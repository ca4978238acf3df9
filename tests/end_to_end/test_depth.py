"""Proves that the commands do with depth what they do with labels, and what their files hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmenter
from segmenter.config import Data
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.scenes.scene import render
from segmenter.inference.depth import DepthResult
from segmenter.views.depth import write_depth
from segmenter.views.overlay import overlay

SMALL = (
    "--encoder.depth", 4, "--encoder.width", 48, "--encoder.heads", 3, "--encoder.patch-size", 16,
    "--decoder.width", 4, "--augment.short-side", 48, "--augment.crop", 48, 64,
    "--train.steps", 4, "--train.batch", 2, "--train.warmup", 1, "--train.workers", 0, "--train.validate-every", 2,
)  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    """A folder of scenes with depth in millimetres."""
    root = tmp_path_factory.mktemp("data") / "rooms"
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for kind in ("images", "depth"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            scene = render(len(split), 2 * i + 1, (48, 64))
            Image.fromarray(scene.image).save(root / split / "images" / f"{split}{i}.jpg")
            Image.fromarray((1000 * scene.depth).astype(np.uint16)).save(root / split / "depth" / f"{split}{i}.png")
    return root


def test_from_a_folder_to_depth(tmp_path, rooms, command):
    """All verbs on one small folder."""
    run, data = tmp_path / "run", ("--data.root", rooms, "--data.depth-scale", 1000)
    told = command("check", rooms, "--task", "depth", "--data.depth-scale", 1000)
    assert told.status == 0, told.err
    assert [line.split()[0] for line in told.out.splitlines()[2:6]] == ["split", "train", "val", "test"]
    assert told.out.endswith("ready to train\n")

    told = command("train", "--config", "dpt-depth", *data, *SMALL, "--out", run)
    assert told.status == 0, told.err
    assert re.fullmatch(rf"best val delta1 \d\.\d{{4}}; the model is {re.escape(str(run))}\n", told.out)
    assert "val delta1" in told.err
    told = command("resume", run)
    assert told.out.startswith("best val delta1 ")

    told = command("evaluate", run, rooms, "--workers", 0)
    assert told.status == 0, told.err
    assert told.out.splitlines()[0].startswith("delta1 ")
    assert told.out.splitlines()[-1] == "means over 2 images; alignment least squares"
    told = command("evaluate", run, rooms, "--split", "val", "--alignment", "median", "--workers", 0, "--json")
    scores = json.loads(told.out)
    assert (scores["images"], scores["alignment"]) == (1, "median")
    assert 0 <= scores["delta1"] <= scores["delta2"] <= scores["delta3"] <= 1

    out, photos = tmp_path / "out", rooms / "test" / "images"
    told = command("predict", run, photos, "--out", out)
    assert told.status == 0, told.err
    assert told.out == (
        f"2 images: {out / 'depth'} (PNG of 16 bits: value / its text depth_scale = relative inverse depth; .npy), "
        f"{out / 'overlays'}\n"
    )
    told = command("predict", run, photos / "test0.jpg", "--out", out, "--no-overlays", "--overwrite", "--json")
    (entry,) = json.loads(told.out)
    assert entry.keys() == {"image", "depth", "array", "scale"}
    array, picture = np.load(entry["array"]), Image.open(entry["depth"])
    assert array.shape == (48, 64)
    assert array.dtype == np.float32
    assert float(picture.text["depth_scale"]) == entry["scale"]
    np.testing.assert_allclose(np.array(picture) / entry["scale"], array, atol=1 / entry["scale"])
    result = segmenter.predict(segmenter.load(run), photos / "test0.jpg")
    assert np.array_equal(result.depth, array)
    assert not result.metric
    assert Image.open(out / "overlays" / "test0.jpg").height >= 48


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--config", "dpt-depth", "--data.root", "{rooms}", "--out", "{new}"),
         "train0.png holds whole numbers, and it is not stated which one means one metre; write it, for example "
         "--data.depth-scale 1000 for millimetres or 256 as in KITTI"),
        (("check", "{rooms}", "--task", "depth"), "and it is not stated which one means one metre"),
        (("train", "--data.root", "{rooms}", "--out", "{new}"), "need masks there"),
        (("train", "--config", "dpt-depth", "--data.root", "{discs}", "--out", "{new}"), "need depth maps there"),
        (("train", "--config", "dpt-depth", "--train.label-smoothing", "0.1", "--out", "{new}"),
         "train.label_smoothing is set, but decoder.name is dpt_depth, which learns depth"),
        (("evaluate", "{disc_run}", "{discs}", "--alignment", "median"),
         "alignment is 'median', but the model predicts labels, which need none; leave it out"),
    ],
    ids=["no scale", "no scale in check", "no masks", "no depth", "label smoothing", "alignment of labels"],
)  # fmt: skip
def test_mistakes_end_with_one_sentence(arguments, said, command, rooms, discs, disc_run, tmp_path):
    places = {"rooms": rooms, "discs": discs, "disc_run": disc_run, "new": tmp_path / "new"}
    told = command(*(word.format(**places) for word in arguments))
    assert told.status == 1
    assert said in told.err
    assert "Traceback" not in told.err
    assert not (tmp_path / "new").exists()


def result(metric: bool) -> DepthResult:
    """Depth from 1 to 20 m over 40 columns, or as many steps of inverse depth."""
    columns = np.linspace(1, 20, 40, dtype=np.float32)
    return DepthResult(np.repeat(columns[None], 30, 0) if metric else 1 / np.repeat(columns[None], 30, 0), metric)


@pytest.mark.parametrize("metric", [True, False])
def test_written_depth_can_be_read_as_data(tmp_path, metric):
    expected = result(metric)
    entry = write_depth(expected, tmp_path / "a.b.png")
    assert entry["array"] == str(tmp_path / "a.b.npy")
    if metric:
        assert entry["scale"] == 256
    kind = "depth" if metric else "inverse"
    assert Image.open(entry["depth"]).text["depth_kind"] == kind
    for file, slack in (("depth", 5e-3), ("array", 1e-6)):
        scale = entry["scale"] if file == "depth" else 1.0
        inverse = read_inverse_depth(entry[file], Data(depth_scale=scale, depth_kind=kind))
        np.testing.assert_allclose(inverse, 1 / expected.depth if metric else expected.depth, rtol=slack)


def test_no_pixel_of_a_written_png_says_not_measured(tmp_path):
    far = DepthResult(np.array([[0, 1e-9, 1]], np.float32), metric=False)
    nowhere = DepthResult(np.zeros((1, 3), np.float32), metric=False)
    large = DepthResult(np.array([[1e-9, 300]], np.float32), metric=True)
    for depth, values in ((far, [1, 1, 65535]), (nowhere, [1, 1, 1]), (large, [1, 65535])):
        write_depth(depth, tmp_path / "a.png")
        assert np.array(Image.open(tmp_path / "a.png")).tolist() == [values]


@pytest.mark.parametrize("metric", [True, False])
def test_near_is_bright_and_the_legend_is_beside(metric):
    photo = np.full((30, 40, 3), 128, np.uint8)
    plain = np.array(overlay(photo, result(metric), legend=False)).astype(int).sum(2)
    assert plain.shape == (30, 40)
    assert plain[0, 0] > plain[0, 10] > plain[0, 39]
    whole = overlay(photo, result(metric))
    assert whole.width > 40
    assert np.array_equal(np.array(whole)[:30, :40].astype(int).sum(2), plain)
    assert np.array_equal(np.array(overlay(photo, result(metric), opacity=0, legend=False)), photo)


def test_flat_depth_can_be_drawn():
    flat = DepthResult(np.zeros((4, 5), np.float32), metric=False)
    assert overlay(np.zeros((4, 5, 3), np.uint8), flat).height >= 4
