"""Proves that every recipe builds, the published ones with the published parameters and rates, and that two train."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmenter import recipes
from segmenter.config import Recipe
from segmenter.data.classes import Classes, default_colors
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.data.layouts import open_labels
from segmenter.model.segmenter import Segmenter
from segmenter.model.transfer import transfer
from segmenter.published.catalogue import PUBLISHED as PUBLISHED_MODELS
from segmenter.published.loading import load
from segmenter.training import optim

SCHEDULES = json.loads((Path(__file__).parents[1] / "goldens/segmenter/lr_schedule.json").read_text(encoding="utf-8"))
CLASSES = {"ade20k": 150, "pascal_context": 60, "cityscapes": 19}

# Counted in the original's own networks. Encoders: width, side of the crop, parameters in all, and those of the
# 1000-class ImageNet classifiers (two where it is distilled), which it keeps unused and our networks do not have.
# Decoders, by the encoder's width: parameters for 150 classes, the mask transformer's with two blocks.
ENCODERS = {
    ("vit_tiny_patch16_384", 16): (192, 512, 5_876_392, 193_000),
    ("vit_small_patch16_384", 16): (384, 512, 22_368_616, 385_000),
    ("vit_small_patch32_384", 32): (384, 512, 22_958_440, 385_000),
    ("vit_base_patch16_384", 16): (768, 512, 87_203_560, 769_000),
    ("vit_base_patch32_384", 32): (768, 512, 88_383_208, 769_000),
    ("vit_base_patch16_384", 8): (768, 512, 89_120_488, 769_000),
    ("deit_base_distilled_patch16_384", 16): (768, 512, 87_974_096, 1_538_000),
    ("vit_large_patch16_384", 16): (1024, 640, 305_764_328, 1_025_000),
}
MASK_TRANSFORMERS = {192: 1_029_996, 384: 4_050_348, 768: 16_063_020, 1024: 28_495_148}
LINEAR = {192: 28_950, 384: 57_750, 768: 115_350, 1024: 153_750}

PUBLISHED = [name for name in recipes.names() if name.startswith("seg-")]


def on_meta(recipe: Recipe) -> Segmenter:
    """The recipe's network without memory for its weights, and without fetching any."""
    count = CLASSES.get(recipe.data.layout, 3)
    classes = Classes(tuple(f"class {i}" for i in range(count)), default_colors(count))
    with torch.device("meta"):
        return Segmenter(replace(recipe, encoder=replace(recipe.encoder, pretrained="")), classes)


def published_parameters(recipe: Recipe, patch: int) -> int:
    """The count above, carried over to the recipe's crop, classes and decoder blocks."""
    width, counted_at, total, classifiers = ENCODERS[recipe.encoder.name, patch]
    positions = math.prod(side // patch for side in recipe.augment.crop) - (counted_at // patch) ** 2
    fewer = 150 - CLASSES[recipe.data.layout]
    if recipe.decoder.name == "linear":
        decoder = LINEAR[width] - fewer * (width + 1)
    else:
        block = 12 * width**2 + 13 * width
        decoder = MASK_TRANSFORMERS[width] - fewer * (width + 2) - (2 - recipe.decoder.layers) * block
    return total - classifiers + positions * width + decoder


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_builds(name):
    recipe = recipes.read(name)
    recipes.refuse_impossible(recipe)
    network = on_meta(recipe)
    assert all(parameter.is_meta for parameter in network.parameters())
    if name in PUBLISHED:
        found = sum(parameter.numel() for parameter in network.parameters())
        assert found == published_parameters(recipe, network.encoder.patch_size)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_have_the_recorded_learning_rates_and_the_codes_constants(name):
    recipe = recipes.read(name)
    train, schedule = recipe.train, SCHEDULES[recipe.data.layout]
    assert train.steps == schedule["iter_max"]
    for step in (0, train.steps - 1, train.steps):
        assert optim.learning_rate(train, step) == pytest.approx(schedule["lr_at_update"][str(step)], rel=0, abs=1e-12)
    assert (train.optimizer, train.momentum, train.weight_decay) == ("sgd", 0.9, 0)
    assert train.batch == {"ade20k": 8, "pascal_context": 16, "cityscapes": 8}[recipe.data.layout]
    assert (recipe.encoder.norm_eps, recipe.encoder.drop_path) == (1e-5, 0.1)
    assert recipe.decoder.name == "linear" or recipe.decoder.dropout == 0.1
    assert recipe.augment.crop == recipe.inference.window


def test_names_say_what_the_recipes_are():
    for name in PUBLISHED:
        recipe, words = recipes.read(name), name.split("-")
        assert words[1] in recipe.encoder.name
        assert ("deit" in words) == recipe.encoder.name.startswith("deit")
        assert words[3 if "deit" in words else 2] == recipe.decoder.name.partition("_")[0]
        assert name.endswith(recipe.data.layout.replace("_", "-"))
        patch = recipe.encoder.patch_size or int(recipe.encoder.name.split("patch")[1].split("_")[0])
        assert patch == next((int(word[5:]) for word in words if word.startswith("patch")), 16)
        assert recipes.summary(name).startswith("Seg-")


def test_every_published_model_has_a_recipe_of_its_name_with_its_figures():
    for model in PUBLISHED_MODELS:
        if not model.name.endswith("-openmmlab"):
            assert f"{model.miou} mIoU, {model.miou_multiscale} multi-scale" in recipes.summary(model.name)
            assert recipes.read(model.name).augment.crop == (model.crop, model.crop)


def test_depth_starts_from_the_demos_recipe_with_four_whole_blocks():
    labels, depth = recipes.read("demo"), recipes.read("dpt-depth")
    labels.encoder.depth, labels.encoder.mlp_ratio = 4, 4.0  # as the recipe's comment says
    source, model = Segmenter(labels, open_labels(labels.data).classes), Segmenter(depth, DEPTH_CLASSES)
    assert all(name.startswith("decoder.") for name in transfer(source, model))


# ---- some of them train


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_ade20k(root: Path) -> Path:
    """Four training and one validation photo; 0 is unlabelled, 1 to 150 are classes."""
    draw = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 1)):
        for i in range(1, count + 1):
            name = f"ADE_{split[:5]}_{i:08}"
            write(root / "images" / split / f"{name}.jpg", draw.integers(0, 256, (70, 90, 3), np.uint8))
            labels = draw.integers(0, 151, (7, 9), np.uint8).repeat(10, 0).repeat(10, 1)
            write(root / "annotations" / split / f"{name}.png", labels)
    return root


def write_cityscapes(root: Path) -> Path:
    """Two training and one validation photo, with train ids."""
    draw = np.random.default_rng(1)
    for split, city, count in (("train", "aachen", 2), ("val", "munster", 1)):
        for i in range(count):
            name = f"{city}_{i:06}_000019"
            photo = draw.integers(0, 256, (64, 128, 3), np.uint8)
            write(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", photo)
            labels = draw.choice([*range(19), 255], (8, 16)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            write(root / "gtFine" / split / city / f"{name}_gtFine_labelTrainIds.png", labels)
    return root


@pytest.mark.parametrize(
    ("name", "layout", "patches"),
    [("seg-tiny-mask-ade20k", write_ade20k, 16), ("seg-base-linear-patch8-ade20k", write_ade20k, 8),
     ("seg-large-mask-cityscapes", write_cityscapes, 16)],
)  # fmt: skip
def test_a_published_recipe_trains_on_data_of_its_layout(command, tmp_path, name, layout, patches):
    small = {
        "--encoder.pretrained": [""], "--encoder.depth": [2], "--encoder.width": [64], "--encoder.heads": [1],
        "--augment.short-side": [64], "--augment.crop": [64, 64], "--inference.window": [64, 64],
        "--inference.stride": [48, 48], "--train.steps": [2], "--train.batch": [2], "--train.workers": [0],
    }  # fmt: skip
    options = [word for option, values in small.items() for word in (option, *values)]
    root, out = layout(tmp_path / "data"), tmp_path / "run"
    told = command("train", "--config", name, "--data.root", root, "--out", out, *options)
    assert told.status == 0, told.err
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 2]
    assert math.isfinite(lines[0]["loss"])
    model = load(out)
    recipe = recipes.read(name)
    assert len(model.classes) == CLASSES[recipe.data.layout]
    assert model.encoder.patch_size == patches
    assert model.recipe.inference.enlarge
    assert model.recipe.decoder == recipe.decoder
