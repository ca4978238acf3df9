"""Proves that the examples of the public Python functions do what they say, and that they agree with the commands."""

import doctest
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segmenter
from segmenter import config, recipes
from segmenter.inference.labels import Result
from segmenter.model.encoder import Encoder

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = {name: getattr(segmenter, name) for name in segmenter.__all__} | {
    "Encoder.forward": Encoder.forward,
    "Result.probabilities": Result.probabilities,
    "Result.probability_bands": Result.probability_bands,
}
WITHOUT = {"UserError", "create", "load"}  # an exception, and what every other example begins with


@pytest.fixture
def folder(tmp_path, monkeypatch, discs, disc_run, tiny_recipe) -> Path:
    """A working folder with photos, a run and a recipe, as the examples name them."""
    shutil.copytree(discs, tmp_path / "photos")
    shutil.copytree(disc_run, tmp_path / "runs" / "first")
    (tmp_path / "tiny.yaml").write_text(recipes.to_yaml(tiny_recipe("")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - WITHOUT))
def test_the_example_does_what_it_says(name, folder):
    names = {"segmenter": segmenter, "Path": Path, "torch": torch}
    (example,) = doctest.DocTestFinder(recurse=False).find(EXAMPLES[name], name, module=False, globs=names)
    assert example.examples
    told: list[str] = []
    doctest.DocTestRunner().run(example, out=told.append)
    assert not told, "".join(told)


def test_everything_public_has_an_example():
    assert not [name for name in EXAMPLES.keys() - WITHOUT if ">>> " not in EXAMPLES[name].__doc__]


def test_single_settings_are_those_of_the_command_line(folder):
    settings = {"train.steps": 1, "train.validate_every": 1, "data.map": ["2:1"], "augment.crop": (32, 48)}
    best = segmenter.train("tiny.yaml", "photos", "runs/one", settings)
    written = recipes.read("runs/one/recipe.yaml")
    assert (written.train.steps, written.data.map, written.augment.crop) == (1, ("2:1",), (32, 48))
    assert written.data.root == "photos"
    assert segmenter.evaluate(segmenter.load("runs/one"), written.data, split="val", show=False).mean_iou == best


def test_a_data_set_brings_its_settings(folder):
    data = segmenter.open_data("photos", map=["2:255"], split_seed=3)
    recipe = recipes.read("tiny.yaml")
    segmenter.train(recipe, data, "runs/one", {"train.steps": 1})
    assert recipes.read("runs/one/recipe.yaml").data == config.Data("photos", map=("2:255",), split_seed=3)
    assert recipe.train.steps == 4  # what was given stays as it was


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.step": 1}, r"settings: unknown setting train.step; did you mean train.steps\?"),
        ({"step": 1}, "settings: unknown setting step; known here: data, "),
        ({"train.steps.all": 1}, "settings: there is no setting train.steps.all; steps is a single one"),
        ({"train.steps": "many"}, "settings: train.steps is 'many': "),
    ],
)
def test_settings_that_are_none_are_refused(folder, settings, said):
    with pytest.raises(segmenter.UserError, match=said):
        segmenter.train("tiny.yaml", "photos", "runs/one", settings)


def test_a_folder_is_split_as_for_the_training(folder, draw):
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "flat" / kind).mkdir(parents=True)
    for i in range(30):
        image, mask = draw(generator, (64, 64))
        Image.fromarray(image).save(folder / "flat" / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "flat" / "masks" / f"{i}.png")
    shutil.copy("photos/classes.yaml", "flat")
    model = segmenter.load("runs/first")
    model.recipe.data.split_seed = 7
    test, other = (segmenter.open_data("flat", split_seed=seed).split("test") for seed in (7, 0))
    assert {sample.name for sample in test} != {sample.name for sample in other}
    truth = np.bincount(np.concatenate([sample.target().ravel() for sample in test]), minlength=3)
    assert np.array_equal(segmenter.evaluate(model, "flat", show=False).confusion.sum(1), truth)


def test_data_of_another_task_is_refused(folder):
    with pytest.raises(segmenter.UserError, match=r"the data was opened for depth, but .* learns labels; open"):
        segmenter.train("tiny.yaml", segmenter.open_data("scenes", task="depth"), "runs/one")
    with pytest.raises(segmenter.UserError, match="task is 'boxes'; choose labels or depth"):
        segmenter.open_data("photos", task="boxes")
    with pytest.raises(segmenter.UserError, match=r"has the classes 1 \(depth\), the model 3"):
        segmenter.evaluate(segmenter.load("runs/first"), segmenter.open_data("scenes", task="depth"))


def test_a_folder_its_data_set_and_its_samples_have_one_score(folder):
    model, data = segmenter.load("runs/first"), segmenter.open_data("photos")
    of_folder = segmenter.evaluate(model, Path("photos"), split="val", show=False)
    of_samples = segmenter.evaluate(model, data.split("val"), show=False)
    assert np.array_equal(of_folder.confusion, of_samples.confusion)
    assert np.array_equal(segmenter.evaluate(model, data, split="val", show=False).confusion, of_samples.confusion)
