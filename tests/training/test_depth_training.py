"""Proves that depth is trained as labels are: it learns, adds up over parts of a batch, and resumes bit for bit."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmenter import recipes
from segmenter.config import Depth, Recipe
from segmenter.data.dataset import TrainingSamples
from segmenter.data.depth_data import open_depth
from segmenter.data.scenes.scene import render
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import evaluate
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter, create
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop
from segmenter.training.depth_objective import DepthObjective
from segmenter.training.objective import OBJECTIVES, LabelObjective

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    """A folder of scenes with depth in centimetres, gaps included."""
    root = tmp_path_factory.mktemp("rooms")
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        for kind in ("images", "depth"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            scene = render(len(split), i, (48, 64))
            depth = (100 * scene.depth).astype(np.uint16)
            depth[:4] = 0
            Image.fromarray(scene.image).save(root / split / "images" / f"{i}.png")
            Image.fromarray(depth).save(root / split / "depth" / f"{i}.png")
    return root


@pytest.fixture
def depth_recipe(rooms, tiny_recipe):
    """A recipe for depth that takes a second; single settings can be given."""

    def make(depth: dict | None = None, **train) -> Recipe:
        settings = {"validate_every": 2, "batch": 2} | train
        encoder = {"depth": 4, "patch_size": 16}
        recipe = tiny_recipe(rooms, {"name": "dpt_depth", "width": 4}, encoder, **settings)
        augment = replace(recipe.augment, short_side=48, crop=(32, 48), scale=(0.9, 1.2))
        return replace(
            recipe, augment=augment, data=replace(recipe.data, depth_scale=100.0), depth=Depth(**(depth or {}))
        )

    return make


@torch.no_grad()
def training_loss(model: Segmenter) -> float:
    """Loss over all training images of a model's recipe."""
    data = open_depth(model.recipe.data)
    samples = TrainingSamples(data.split("train"), model.recipe.augment, 0, "depth")
    images, truth = (torch.stack([samples[i, 0][key] for i in range(4)]) for key in ("image", "target"))
    outputs = model.outputs(model.forward_auxiliary(model.normalize(images)), *truth.shape[1:])
    return DepthObjective(model.recipe, data).loss(outputs, truth).item()


def log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def test_the_task_chooses_the_objective(depth_recipe, tiny_recipe):
    assert depth_recipe().task == "depth"
    assert tiny_recipe("").task == "labels"
    assert OBJECTIVES["depth"] is DepthObjective
    assert OBJECTIVES["labels"] is LabelObjective


def test_a_model_of_depth_can_be_created():
    model = create("vit_tiny_patch16_224", decoder="dpt_depth", image_size=32)
    assert model.classes.names == ("depth",)
    assert predict(model.eval(), np.zeros((20, 30, 3), np.uint8)).depth.shape == (20, 30)


@pytest.mark.parametrize(
    "depth",
    [{"inverse_loss": "mse"}, {"inverse_loss": "trimmed"}, {"target": "metric"},
     {"target": "metric", "metric_loss": "l1"}],
    ids=lambda depth: "-".join(map(str, depth.values())),
)  # fmt: skip
def test_every_loss_learns_a_few_scenes(depth_recipe, tmp_path, depth):
    recipe = depth_recipe(depth, steps=20, batch=4, lr=5e-3, validate_every=20)
    whole = replace(recipe.augment, crop=(48, 64), scale=(1.0, 1.0), flip=0.0)
    recipe = replace(recipe, augment=whole)
    best = loop.train(recipe, tmp_path / "run")
    torch.manual_seed(recipe.train.seed)
    before = training_loss(Segmenter(recipe, open_depth(recipe.data).classes))
    assert training_loss(load(tmp_path / "run")) < 0.9 * before
    (scores,) = (line for line in log(tmp_path / "run") if "val_delta1" in line)
    assert scores["val_delta1"] == best
    assert 0 < scores["val_abs_rel"] < 1
    model = load(tmp_path / "run")
    assert model.recipe.depth == recipe.depth
    assert model.classes.names == ("depth",)
    scored = evaluate(model, open_depth(recipe.data).split("val"), show=False)
    assert scored.delta1 == pytest.approx(best, abs=1e-6)
    assert scored.alignment == ("none" if recipe.depth.target == "metric" else "least_squares")


def test_resumed_depth_equals_uninterrupted(depth_recipe, tmp_path, monkeypatch):
    recipe = depth_recipe(steps=5, ema=0.9)
    best = loop.train(recipe, tmp_path / "whole")
    update = loop.Run._update

    def stopping(run, batch):
        if run.step == 2:
            run.stopping.set()
        return update(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_update", stopping)
        with pytest.raises(UserError, match="stopped after step 3; go on with: segmenter resume"):
            loop.train(recipe, tmp_path / "parts")
    assert loop.resume(tmp_path / "parts") == best
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    one, two = (checkpoint.load_state(tmp_path / name) for name in ("parts", "whole"))
    assert one["step"] == two["step"] == 5
    for key, tensor in two["model"].items():
        assert torch.equal(one["model"][key], tensor)


def test_a_batch_in_parts_gives_the_same_update(depth_recipe, tmp_path):
    weights = []
    for accumulate in (1, 2):
        recipe = depth_recipe(steps=1, batch=4, accumulate=accumulate, optimizer="sgd", momentum=0.0)
        loop.train(recipe, tmp_path / str(accumulate))
        weights.append(load(tmp_path / str(accumulate)).state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


def test_the_mean_is_over_images_that_are_measured(depth_recipe):
    recipe = depth_recipe()
    objective = DepthObjective(recipe, open_depth(recipe.data))
    truth = torch.rand(3, 8, 8)
    truth[1] = math.nan
    assert objective.weight(truth) == 2
    metric = DepthObjective(depth_recipe({"target": "metric", "max_depth": 2.0}), open_depth(recipe.data))
    near = torch.full((3, 8, 8), 0.6)
    near[2] = 0.4  # 2.5 m
    assert metric.weight(near) == 2
    assert metric.weight(torch.zeros(1, 8, 8)) == 0  # infinitely far


def test_depth_beyond_the_largest_does_not_reach_a_metric_model(depth_recipe):
    recipe = depth_recipe({"target": "metric", "max_depth": 2.0})
    data = open_depth(recipe.data)
    objective = DepthObjective(recipe, data)
    torch.manual_seed(0)
    model = Segmenter(recipe, data.classes)
    outputs = model.outputs(model.forward_auxiliary(torch.randn(2, 3, 32, 48)), 32, 48)
    truth = torch.rand(2, 32, 48) + 0.5
    loss = objective.loss(outputs, truth)
    far = truth.clone()
    far[:, :10] = math.nan
    other = far.clone()
    other[:, :10] = 0.01
    assert objective.loss(outputs, other) == objective.loss(outputs, far) != loss


@pytest.mark.parametrize("target", ["inverse", "metric"])
def test_a_batch_without_measurements_changes_nothing(depth_recipe, target):
    recipe = depth_recipe({"target": target})
    data = open_depth(recipe.data)
    objective = DepthObjective(recipe, data)
    model = Segmenter(recipe, data.classes)
    outputs = model.outputs(model.forward_auxiliary(torch.randn(1, 3, 32, 48)), 32, 48)
    loss = objective.loss(outputs, torch.full((1, 32, 48), math.nan))
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_metric_depth_is_in_metres(depth_recipe, rooms):
    recipe = depth_recipe({"target": "metric", "scale": 2.0, "shift": 0.5})
    torch.manual_seed(0)
    model = Segmenter(recipe, open_depth(recipe.data).classes).eval()
    result = predict(model, rooms / "test" / "images" / "0.png")
    assert result.metric
    assert result.depth.shape == (48, 64)
    assert result.depth.dtype == np.float32
    model.recipe = replace(recipe, depth=Depth())
    output = predict(model, rooms / "test" / "images" / "0.png")
    assert not output.metric
    np.testing.assert_allclose(result.depth, 1 / (2 * output.depth + 0.5), rtol=1e-6)


def test_settings_that_contradict_depth_are_refused(depth_recipe, tiny_recipe):
    recipe = depth_recipe(label_smoothing=0.1)
    with pytest.raises(UserError) as caught:
        recipes.refuse_impossible(recipe)
    assert str(caught.value) == (
        "train.label_smoothing is set, but decoder.name is dpt_depth, which learns depth; leave it out, or choose "
        "another decoder"
    )
    with pytest.raises(UserError, match=r"train.class_weights is set, but decoder.name is dpt_depth"):
        recipes.refuse_impossible(depth_recipe(class_weights="median_frequency"))
    labels = tiny_recipe("")
    with pytest.raises(UserError, match=r"data.depth_scale is set, but decoder.name is mask_transformer"):
        recipes.refuse_impossible(replace(labels, data=replace(labels.data, depth_scale=1.0)))
    with pytest.raises(UserError, match=r"depth.max_depth is 0; write a value above 0"):
        recipes.refuse_impossible(depth_recipe({"max_depth": 0}))


@pytest.mark.parametrize("target", ["inverse", "metric"])
def test_nothing_needs_float64(target, tmp_path, depth_recipe, rooms, no_float64):
    recipe = depth_recipe({"target": target, "inverse_loss": "mse"}, steps=2)
    with no_float64():
        loop.train(recipe, tmp_path / "run")
        predict(load(tmp_path / "run"), rooms / "test" / "images" / "0.png")
