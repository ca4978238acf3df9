"""Proves that SETR's recipes hold the published settings, and that a training with auxiliary decoders learns."""

import json

import pytest
import torch

from segmenter import recipes
from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import evaluate
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPES = [name for name in recipes.names() if name.startswith("setr-")]
# Base learning rates of Naive, PUP and MLA, updates, batch, and the windows of the evaluation.
PUBLISHED = {
    "ade20k": ({"naive": 0.01, "pup": 0.001, "mla": 0.001}, 160_000, 16, (512, 512), (341, 341)),
    "cityscapes": ({"naive": 0.01, "pup": 0.01, "mla": 0.002}, 80_000, 8, (768, 768), (512, 512)),
    "pascal_context": ({"naive": 0.01, "pup": 0.001, "mla": 0.001}, 80_000, 16, (480, 480), (320, 320)),
}


def test_every_published_row_has_a_recipe():
    assert len(RECIPES) == 5 + 7 + 5


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_settings(name):
    recipe, words = recipes.read(name), name.split("-")
    recipes.refuse_impossible(recipe)
    kind, train = recipe.decoder.name.removeprefix("setr_"), recipe.train
    rates, steps, batch, window, stride = PUBLISHED[recipe.data.layout]
    assert (train.lr, train.steps, train.batch) == (rates[kind], steps, batch)
    assert (train.optimizer, train.momentum, train.weight_decay, train.power) == ("sgd", 0.9, 0.0, 0.9)
    assert (train.min_lr, train.decoder_scale, train.warmup, train.clip) == (1e-4, 10.0, 0, 0.0)
    assert (recipe.inference.window, recipe.inference.stride, recipe.augment.crop) == (window, stride, window)
    assert (recipe.encoder.drop_path, recipe.encoder.dropout, recipe.decoder.auxiliary) == (0.0, 0.0, 0.4)
    assert kind in words
    assert words[1] in recipe.encoder.name
    assert name.endswith(recipe.data.layout.replace("_", "-"))
    # The even spread of PUP is not that of Naive where there are 12 blocks.
    assert recipe.decoder.taps == ((2, 5, 8, 11) if "base" in words and kind == "naive" else ())
    assert "mIoU" in recipes.summary(name)


def test_discs_are_learnt_with_auxiliary_decoders(tmp_path, discs, tiny_recipe):
    settings = {"steps": 30, "batch": 6, "lr": 2e-3, "warmup": 5, "clip": 1.0, "decoder_scale": 3.0}
    recipe = tiny_recipe(discs, decoder={"name": "setr_mla", "width": 16}, **settings)
    assert loop.train(recipe, tmp_path / "run") > 0.85
    model = load(tmp_path / "run")
    assert len(model.decoder.auxiliary) == 0
    scores = evaluate(model, open_labels(Data(root=str(discs))).split("test"), show=False)
    assert scores.mean_iou > 0.6


def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path, discs, tiny_recipe, monkeypatch):
    recipe = tiny_recipe(discs, decoder={"name": "setr_mla", "width": 8}, steps=3)
    loop.train(recipe, tmp_path / "whole")
    update = loop.Run._update

    def stopping(run, batch):
        run.stopping.set()
        return update(run, batch)

    monkeypatch.setattr(loop.Run, "_update", stopping)
    with pytest.raises(UserError, match="stopped after step 1"):
        loop.train(recipe, tmp_path / "parts")
    monkeypatch.setattr(loop.Run, "_update", update)
    loop.resume(tmp_path / "parts")
    whole, parts = (checkpoint.load_state(tmp_path / name)["model"] for name in ("whole", "parts"))
    assert any(key.startswith("decoder.auxiliary.") for key in whole)
    assert any(key.endswith("running_mean") for key in whole)
    assert all(torch.equal(parts[key], tensor) for key, tensor in whole.items())


def test_frozen_batch_norm_trains_with_one_patch(tmp_path, command, recipe_file, discs, tiny_recipe):
    recipe = tiny_recipe(discs, decoder={"name": "setr_pup", "width": 8}, steps=1, batch=1)
    recipe.augment.crop = (8, 8)
    options = ("train", "--config", recipe_file(recipe), "--out")
    told = command(*options, tmp_path / "update")
    assert told.status == 1
    assert "batch norm cannot measure a variance from one image with a grid of one cell; raise train.batch" in told.err
    assert command(*options, tmp_path / "frozen", "--train.batch-norm", "frozen").status == 0
    assert json.loads((tmp_path / "frozen" / "log.jsonl").read_text().splitlines()[0])["step"] == 1
