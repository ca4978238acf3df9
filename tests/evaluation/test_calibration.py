"""Proves that calibration errors are those of the definition, and that a temperature repairs them and nothing else."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import segmenter
from segmenter.config import Data
from segmenter.errors import UserError
from segmenter.evaluation import temperature
from segmenter.evaluation.calibration import calibrate
from segmenter.evaluation.kept_labels import BINS
from segmenter.evaluation.reliability import expected_error, image_bins
from segmenter.evaluation.temperature import SomePixels
from segmenter.model.segmenter import create
from segmenter.upsample import Geometry

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def too_sure(disc_run):
    """A model that is hardly ever in doubt."""
    model = segmenter.load(disc_run)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter *= 4
    return model


# ---- bins


def test_bins_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    top = torch.rand(50, 70, generator=generator)
    top[0, :5] = torch.tensor([0, 1 / 15, 1, 0.5, torch.nan])
    labels = torch.randint(4, (2, 50, 70), generator=generator)
    truth = labels[1].masked_fill(torch.rand(50, 70, generator=generator) < 0.1, 255)
    expected = np.zeros((BINS, 3))
    for confidence, predicted, true in zip(top.flatten(), labels[0].flatten(), truth.flatten(), strict=True):
        confidence = 0.0 if confidence.isnan() else float(confidence)
        if true != 255:
            place = next(i for i in range(BINS) if confidence <= np.float32((i + 1) / BINS) or i == BINS - 1)
            expected[place] += 1, confidence, predicted == true
    found = image_bins(top, labels[0], truth, 255)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found[:, [0, 2]], expected[:, [0, 2]])
    np.testing.assert_allclose(found[:, 1], expected[:, 1], atol=1e-3)
    assert expected_error(found) == pytest.approx(expected_error(expected), abs=1e-6)


def test_parts_of_an_image_add_up_to_the_last_bit():
    generator = torch.Generator().manual_seed(1)
    top, labels = torch.rand(40, 40, generator=generator), torch.randint(3, (2, 40, 40), generator=generator)
    whole = image_bins(top, *labels, 255)
    parts = [image_bins(top[rows], *labels[:, rows], 255) for rows in (slice(0, 7), slice(7, 30), slice(30, 40))]
    assert np.array_equal(whole, sum(parts))


def test_known_errors():
    sure = torch.full((10, 10), 0.8)
    half = torch.zeros(10, 10, dtype=torch.int64)
    half[:5] = 1
    assert expected_error(image_bins(sure, half, torch.ones_like(half), 255)) == pytest.approx(0.3, abs=1e-6)
    right = half.clone()
    right[:8] = 1
    assert expected_error(image_bins(sure, right, torch.ones_like(half), 255)) == pytest.approx(0, abs=1e-6)
    nothing = image_bins(sure, half, torch.full_like(half, 255), 255)
    assert not nothing.any()
    assert math.isnan(expected_error(nothing))


# ---- the temperature


def sampled(true_temperature: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1 K h w) and labels (h w) that are drawn from their softmax at a temperature."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(1, 5, 80, 90, generator=generator)
    chances = (logits[0] / true_temperature).softmax(0).flatten(1).T
    return logits, torch.multinomial(chances, 1, generator=generator).view(80, 90)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("pixels", [2**18, 3000])
def test_the_temperature_that_made_the_labels_is_found(true_temperature, pixels, monkeypatch):
    monkeypatch.setattr(temperature, "PIXELS", pixels)
    monkeypatch.setattr(temperature, "TOGETHER", 4000)
    kept, geometry = SomePixels(5, 2, 255), Geometry((80, 90), (80, 90))
    for seed in (1, 0):  # images may overtake each other
        logits, labels = sampled(true_temperature, seed)
        labels[:5, :5] = 255
        kept.add(seed, [(logits, geometry)], labels)
    assert kept.count == min(pixels, 2 * (80 * 90 - 25))
    assert kept.temperature() == pytest.approx(true_temperature, rel=0.02 if pixels > 5000 else 0.1)


def test_it_has_the_least_score_and_images_count_by_their_pixels(monkeypatch):
    monkeypatch.setattr(temperature, "PIXELS", 10**6)
    kept = SomePixels(5, 3, 255)
    images = [sampled(1.5, 3), (sampled(0.7, 4)[0][..., :20, :30], sampled(0.7, 4)[1][:20, :30])]
    for number, (logits, labels) in enumerate(images):
        kept.add(number, [(logits, Geometry(labels.shape, labels.shape))], labels)
    logits = torch.cat([logits[0].flatten(1) for logits, _ in images], 1).double()
    labels = torch.cat([labels.flatten() for _, labels in images])
    tried = torch.linspace(0.5, 3, 2501, dtype=torch.float64)
    right = logits.argmax(0) == labels
    scores = [((logits / value).softmax(0).amax(0) - right.double()).square().sum().item() for value in tried]
    assert kept.temperature(earlier=5.0) == pytest.approx(tried[int(np.argmin(scores))].item(), abs=2e-3)


def test_where_the_images_do_not_agree_the_earlier_temperature_stays():
    kept, geometry = SomePixels(5, 6, 255), Geometry((80, 90), (80, 90))
    for number, true_temperature in enumerate([0.7, 1.0, 1.7, 0.8, 1.2, 1.5]):
        logits, labels = sampled(true_temperature, number)
        kept.add(number, [(logits, geometry)], labels)
    assert kept.temperature() == 1
    assert 1 < kept.temperature(earlier=3.0) < 1.5


@pytest.mark.parametrize(("right", "expected"), [(True, 1 / temperature.MOST), (False, temperature.MOST)])
def test_where_no_temperature_is_the_best_the_outermost_is_taken_and_that_is_said(right, expected, caplog):
    logits, _ = sampled(1.0)
    labels = logits[0].argmax(0) if right else logits[0].argmin(0)
    kept = SomePixels(5, 1, 255)
    kept.add(0, [(logits, Geometry((80, 90), (80, 90)))], labels)
    assert kept.temperature() == pytest.approx(expected, rel=0.01)
    assert "no temperature fits the masks" in caplog.text


# ---- models


@pytest.fixture
def uncertain(disc_folder):
    """Discs of whose pixels a fifth has any label."""
    root, generator = disc_folder(), np.random.default_rng(0)
    for path in root.glob("*/masks/*.png"):
        mask = np.array(Image.open(path))
        wrong = generator.random(mask.shape) < 0.2
        mask[wrong] = generator.integers(0, 3, wrong.sum())
        Image.fromarray(mask).save(path)
    return root


@pytest.mark.parametrize("multiscale", [False, True])
def test_the_error_falls_and_no_label_changes(too_sure, uncertain, multiscale):
    photo = uncertain / "test/images/test0.png"
    before = segmenter.predict(too_sure, photo, multiscale=multiscale)
    scores = segmenter.evaluate(too_sure, uncertain, multiscale=multiscale, show=False)
    found = calibrate(too_sure, uncertain, multiscale=multiscale, show=False)
    after = segmenter.predict(too_sure, photo, multiscale=multiscale)
    assert found.temperature == too_sure.temperature > 2
    assert found.earlier == 1
    assert list(found.after) == ["val", "test"]
    for split in found.after:
        assert expected_error(found.after[split]) < expected_error(found.before[split])
        assert found.after[split][:, 0].sum() == 2 * 64 * 64
    assert np.array_equal(before.labels, after.labels)
    assert after.confidence().mean() < before.confidence().mean()
    again = segmenter.evaluate(too_sure, uncertain, multiscale=multiscale, show=False)
    assert np.array_equal(scores.confusion, again.confusion)
    assert found.after["test"][:, 2].sum() == np.diag(scores.confusion).sum()
    assert calibrate(too_sure, uncertain, multiscale=multiscale, show=False).temperature == found.temperature


@pytest.mark.parametrize("multiscale", [False, True])
def test_confidence_is_the_largest_probability(too_sure, discs, multiscale):
    for too_sure.temperature in (1.0, 3.0):
        result = segmenter.predict(too_sure, discs / "test/images/test0.png", multiscale=multiscale)
        confidence = result.confidence()
        assert confidence.dtype == np.float32
        np.testing.assert_allclose(confidence, result.probabilities().max(0), atol=1e-6)
        np.testing.assert_allclose(result.probabilities().sum(0), 1, atol=1e-5)


def test_a_model_of_more_than_255_classes_has_confidence():
    result = segmenter.predict(create("vit_tiny_patch16_224", "linear", 300, 32), np.zeros((20, 30, 3), np.uint8))
    assert result.labels.dtype == np.uint16
    np.testing.assert_allclose(result.confidence(), result.probabilities().max(0), atol=1e-6)


# ---- the command


def test_the_model_keeps_its_temperature(disc_run, discs, command, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    scores = command("evaluate", run, discs, "--workers", 0, "--json").out
    about, weights = json.loads((run / "config.json").read_text()), (run / "model.safetensors").read_bytes()
    assert "calibration" not in about
    told = command("calibrate", run, discs, "--workers", 0, "--json")
    assert told.status == 0, told.err
    found = json.loads(told.out)
    assert found["temperature_before"] == 1
    assert found["splits"]["test"]["pixels"] == 2 * 64 * 64
    kept = {"calibration": {"temperature": found["temperature"]}}
    assert json.loads((run / "config.json").read_text()) == about | kept
    assert (run / "model.safetensors").read_bytes() == weights
    assert segmenter.load(run).temperature == found["temperature"]
    assert command("evaluate", run, discs, "--workers", 0, "--json").out == scores
    segmenter.load(run).save(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["calibration"] == kept["calibration"]
    told = command("calibrate", run, discs, "--workers", 0)
    first, *rest, last = told.out.splitlines()
    assert first == f"temperature {found['temperature']:g}: no other is better"
    assert [line.split()[0] for line in rest] == ["expected", "val", "test"]
    assert last == f"kept in {run / 'config.json'}"


def test_confidence_is_written_as_numbers_and_as_a_picture(disc_run, discs, command, tmp_path):
    photo = discs / "test/images/test0.png"
    told = command("predict", disc_run, photo, "--out", tmp_path, "--confidence", "--no-overlays", "--json")
    assert told.status == 0, told.err
    (written,) = json.loads(told.out)
    assert written["confidence"] == str(tmp_path / "confidence/test0.png")
    assert written["confidence_picture"] == str(tmp_path / "confidence/test0.jpg")
    picture = Image.open(written["confidence"])
    expected = segmenter.predict(segmenter.load(disc_run), photo).confidence()
    assert picture.mode == "I;16"
    assert picture.text == {"scale": "65535"}
    np.testing.assert_array_equal(np.asarray(picture), np.rint(expected * 65535))
    assert Image.open(written["confidence_picture"]).width > 64
    told = command("predict", disc_run, photo, "--out", tmp_path, "--confidence", "--overwrite")
    assert told.out == f"1 images: {tmp_path}/labels, {tmp_path}/overlays, {tmp_path}/confidence\n"
    told = command("predict", disc_run, photo, "--out", tmp_path / "plain")
    assert not (tmp_path / "plain/confidence").exists()


# ---- what cannot be


def test_models_of_depth_have_none(command, discs, tmp_path):
    create("vit_tiny_patch16_224", "dpt_depth", image_size=32).save(tmp_path / "depth")
    photo = discs / "test/images/test0.png"
    told = command("predict", tmp_path / "depth", photo, "--out", tmp_path / "out", "--confidence")
    assert told.status == 1
    assert (
        told.err
        == "segmenter: confidence is the probability of a class, and a model of depth gives none; leave it out\n"
    )
    assert not (tmp_path / "out").exists()
    told = command("calibrate", tmp_path / "depth", discs)
    assert told.status == 1
    assert "the model predicts depth, without probabilities, so that there is nothing to calibrate" in told.err


def test_masks_must_be_known(too_sure, disc_folder):
    root = disc_folder()
    shutil.rmtree(root / "test/masks")
    sentence = f"test of {root} has no masks to fit the temperature to; choose another split: train, val"
    with pytest.raises(UserError, match=re.escape(sentence)):
        calibrate(too_sure, root, split="test", show=False)
    assert too_sure.temperature == 1
    assert list(calibrate(too_sure, root, show=False).after) == ["val"]
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match="there is no split 'val' in "):
        calibrate(too_sure, root, show=False)


def test_masks_must_have_a_labelled_pixel(too_sure, disc_folder):
    root = disc_folder()
    for mask in (root / "val/masks").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    with pytest.raises(UserError, match="every pixel of the masks in val is ignored; choose another split"):
        calibrate(too_sure, root, show=False)


def test_the_classes_must_be_the_models(too_sure, disc_folder):
    root = disc_folder()
    (root / "classes.yaml").write_text("classes: [ground, red, green]")
    with pytest.raises(UserError, match=r"has the classes 3 \(ground, red, green\), the model 3"):
        calibrate(too_sure, Data(str(root)), show=False)


def test_a_name_or_a_checkpoint_has_no_place_for_it(discs, command, tmp_path):
    told = command("calibrate", tmp_path / "none", discs)
    assert told.status == 1
    assert told.err.startswith(f"segmenter: {tmp_path / 'none'} is not a model folder: model.safetensors is missing;")


@pytest.mark.parametrize("value", [0, -1, "1", None, True, float("nan")])
def test_a_temperature_that_cannot_be_is_named(disc_run, tmp_path, value):
    run = shutil.copytree(disc_run, tmp_path / "run")
    about = json.loads((run / "config.json").read_text()) | {"calibration": {"temperature": value}}
    (run / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"config.json is damaged \(the temperature must be a number above 0, not "):
        segmenter.load(run)
