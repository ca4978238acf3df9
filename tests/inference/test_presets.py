"""Proves that each preset takes the windows and the scale of the published command, and changes nothing else."""

import json

import numpy as np
import pytest
from PIL import Image

from segmenter import recipes
from segmenter.config import Data, Inference
from segmenter.data.layouts import open_labels
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import evaluate
from segmenter.inference.predict import predict
from segmenter.inference.presets import settings
from segmenter.published.loading import load


def square(window: int, stride: int, batch: int, enlarge: bool = True, native: bool = False) -> Inference:
    return Inference((window, window), (stride, stride), batch, enlarge, native)


@pytest.mark.parametrize(
    ("recipe", "window", "stride"),
    [("seg-base-mask-ade20k", 512, 512), ("seg-large-mask-ade20k", 640, 640),
     ("seg-large-mask-pascal-context", 480, 320), ("seg-large-mask-cityscapes", 768, 512)],
)  # fmt: skip
def test_windows_of_the_published_commands(recipe, window, stride):
    recipe = recipes.read(recipe)
    assert settings("segm.train", recipe) == square(window, stride, 1)
    assert settings("segm.eval.miou", recipe) == square(window, window - 32, 4)
    assert settings("segm.inference", recipe) == square(window, stride, 2, native=True)
    assert settings("mmseg", recipe) == square(window, window - 32, 1, enlarge=False)


def test_a_tiny_crop_still_has_a_stride():
    recipe = recipes.read("demo")
    recipe.augment.crop = (32, 33)
    assert settings("mmseg", recipe).stride == (1, 1)


def test_an_unknown_preset_is_refused(disc_run):
    with pytest.raises(UserError, match=r"no preset 'miou'; choose segm\.train, segm\.eval\.miou, segm\.inf"):
        settings("miou", load(disc_run).recipe)


def test_the_folder_command_keeps_a_photos_own_scale(disc_run, draw):
    model = load(disc_run)
    photo, _ = draw(np.random.default_rng(3), (150, 100))
    found = predict(model, photo, inference=settings("segm.inference", model.recipe)).labels
    assert np.array_equal(found, predict(model, photo, native=True).labels)
    assert not np.array_equal(found, predict(model, photo).labels)


def test_the_command_line_takes_presets(disc_run, disc_folder, tmp_path, command):
    model, root = load(disc_run), disc_folder(size=(100, 150))
    samples = open_labels(Data(root=str(root))).split("test")
    for preset in ("segm.eval.miou", "segm.inference"):
        told = command("evaluate", disc_run, root, "--preset", preset, "--json", "--workers", 0)
        assert told.status == 0, told.err
        expected = evaluate(model, samples, inference=settings(preset, model.recipe), show=False)
        assert json.loads(told.out)["mean_iou"] == pytest.approx(expected.mean_iou)
    photo = root / "test" / "images" / "test0.png"
    told = command("predict", disc_run, photo, "--out", tmp_path / "out", "--preset", "segm.inference")
    assert told.status == 0, told.err
    labels = np.array(Image.open(tmp_path / "out" / "labels" / "test0.png"))
    assert np.array_equal(labels, predict(model, photo, native=True).labels)
    told = command("predict", disc_run, photo, "--out", tmp_path / "out", "--preset", "segm.miou")
    assert told.status == 2
    assert "'segm.eval.miou'" in told.err
