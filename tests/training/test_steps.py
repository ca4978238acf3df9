"""Proves that the training steps are those of the paper: equal to a loop written by hand, and they learn."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segmenter import config
from segmenter.data.layouts import open_labels
from segmenter.evaluation.evaluate import evaluate
from segmenter.model.segmenter import Segmenter
from segmenter.published.loading import load
from segmenter.training import loop
from segmenter.training.objective import LabelObjective

pytestmark = pytest.mark.usefixtures("one_thread")


def prepared(recipe, out) -> loop.Run:
    """A run before its first step."""
    data = open_labels(recipe.data)
    torch.manual_seed(recipe.train.seed)
    out.mkdir()
    return loop.Run(recipe, out, data, Segmenter(recipe, data.classes), LabelObjective(recipe, data))


def steps(run: loop.Run) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    with run._batches() as batches:
        return [run._update(batch) for batch in batches]


def test_four_sgd_steps_equal_a_loop_written_by_hand(tmp_path, discs, tiny_recipe):
    settings = {"steps": 4, "batch": 6, "optimizer": "sgd", "lr": 0.1, "min_lr": 1e-5, "weight_decay": 0.0}
    recipe = tiny_recipe(discs, decoder={"name": "mask_transformer"}, **settings)
    recipe.augment.flip = 0.0  # all that is random: with crops of the image's size, a batch is all the images
    run = prepared(recipe, tmp_path / "run")
    model = copy.deepcopy(run.model).train()
    losses = [loss for loss, _ in steps(run)]

    samples = open_labels(recipe.data).split("train")
    images = torch.stack([torch.from_numpy(s.image()).permute(2, 0, 1) for s in samples])  # B 3 H W
    labels = torch.stack([torch.from_numpy(s.target()).long() for s in samples])  # B H W
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for t in range(4):
        grid = model((images / 255 - mean) / std)  # B K h w
        loss = F.cross_entropy(F.interpolate(grid, (64, 64), mode="bilinear"), labels)
        assert losses[t] == pytest.approx(loss.item(), abs=1e-5)
        rate = (0.1 - 1e-5) * (1 - t / 4) ** 0.9 + 1e-5
        names = [name for name, _ in model.named_parameters()]
        gradients = torch.autograd.grad(loss, [p for _, p in model.named_parameters()], allow_unused=True)
        with torch.no_grad():
            for name, p, gradient in zip(names, model.parameters(), gradients, strict=True):
                if gradient is not None:
                    velocity[name] = 0.9 * velocity[name] + gradient
                    p -= rate * (gradient + 0.9 * velocity[name])
    for name, p in run.model.named_parameters():
        torch.testing.assert_close(p, dict(model.named_parameters())[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_a_batch_in_two_parts_is_the_batch_in_one(tmp_path, discs, disc_folder, tiny_recipe, unlabelled):
    root = discs
    if unlabelled:  # the parts then weigh differently
        root = disc_folder()
        mask = root / "train" / "masks" / "train0.png"
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)
    settings = {"steps": 4, "batch": 6, "optimizer": "sgd", "lr": 0.05, "clip": 1.0}
    runs = [prepared(tiny_recipe(root, accumulate=n, **settings), tmp_path / f"{n}") for n in (1, 2)]
    one, two = map(steps, runs)
    assert np.allclose(one, two, atol=1e-5)
    for p, q in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("decoder", "count"), [("linear", 40), ("mask_transformer", 80)])
def test_discs_are_learnt_and_found_in_images_never_seen(tmp_path, discs, tiny_recipe, decoder, count):
    settings = {"steps": count, "batch": 6, "lr": 4e-3, "warmup": 5, "clip": 1.0}
    best = loop.train(tiny_recipe(discs, decoder={"name": decoder}, **settings), tmp_path / "run")
    assert best > 0.9
    samples = open_labels(config.Data(root=str(discs))).split("test")
    scores = evaluate(load(tmp_path / "run"), samples, show=False)
    assert scores.iou.min() > 0.7  # two images, and patches of 8 pixels for discs of some 20


def test_the_moving_average_follows_quickly_at_first(tmp_path, discs, tiny_recipe):
    recipe = tiny_recipe(discs, steps=3, ema=0.5, lr=1e-2)
    run = prepared(recipe, tmp_path / "run")
    seen = [copy.deepcopy(dict(run.model.named_parameters()))]
    with run._batches() as batches:
        for batch in batches:
            run._update(batch)
            seen.append(copy.deepcopy(dict(run.model.named_parameters())))
    name = "decoder.project.weight"
    # The average starts at the first weights it sees, those after step 1.
    # After n updates it keeps (1 + n) / (10 + n), until that is what the recipe says.
    expected = 3 / 12 * (2 / 11 * seen[1][name] + 9 / 11 * seen[2][name]) + 9 / 12 * seen[3][name]
    torch.testing.assert_close(dict(run.averaged.module.named_parameters())[name], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": "median_frequency", "label_smoothing": 0.1},
        {"precision": "bf16"},
        {"optimizer": "adamw", "layer_decay": 0.7, "weight_decay": 0.05, "warmup": 2},
        {"optimizer": "muon", "weight_decay": 0.05},
        {"workers": 1},
    ],
    ids=lambda settings: " ".join(map(str, next(iter(settings.items())))),
)
def test_settings_run_and_lower_the_loss(tmp_path, discs, tiny_recipe, monkeypatch, settings):
    monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)
    basis = {"steps": 12, "batch": 6, "lr": 1e-2, "validate_every": 12}
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, **(basis | settings))
    loop.train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("freeze", [1, -1])
def test_what_is_frozen_stays_as_it_was(tmp_path, discs, tiny_recipe, freeze):
    recipe = tiny_recipe(discs, encoder={"freeze": freeze, "dropout": 0.1}, lr=0.1)
    run = prepared(recipe, tmp_path / "run")
    before = copy.deepcopy(run.model.state_dict())
    steps(run)
    moved = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    still = {name for name in before if name.startswith("encoder.vit.") and ".blocks.1." not in name}
    assert not moved & still
    assert any(name.startswith("decoder.") for name in moved)
    assert any(name.startswith("encoder.vit.blocks.1.") for name in moved) == (freeze == 1)


def test_a_run_starts_from_another_with_other_patches_and_crop(tmp_path, discs, disc_run, tiny_recipe):
    recipe = tiny_recipe(discs, decoder={"name": "linear"}, encoder={"patch_size": 16}, steps=1, lr=1e-6)
    recipe.augment.crop = (32, 48)
    recipe.train.start = str(disc_run)
    loop.train(recipe, tmp_path / "run")
    old, new = load(disc_run).state_dict(), load(tmp_path / "run").state_dict()
    same = [name for name in new if old[name].shape == new[name].shape]
    assert len(same) == len(new) - 2  # all but patch and position embeddings
    for name in same:
        torch.testing.assert_close(old[name], new[name], atol=1e-4, rtol=0)


def test_a_batch_without_labels_changes_nothing(tmp_path, discs, tiny_recipe):
    run = prepared(tiny_recipe(discs, optimizer="sgd"), tmp_path / "run")
    before = copy.deepcopy(run.model.state_dict())
    with run._batches() as batches:
        batch = next(batches)
    batch["target"][:] = 255
    assert run._update(batch) == (0, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
