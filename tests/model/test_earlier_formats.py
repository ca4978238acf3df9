"""Proves that models and runs that earlier releases saved load, predict what they did, and go on.

tests/goldens/models has a folder for each format, written by the release that had it.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import segmenter
from segmenter.config import DECODERS
from segmenter.training.loop import resume

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = Path(__file__).parents[1] / "goldens" / "models"
CASES = sorted(path.parent for path in MODELS.glob("format_*/*/forward.safetensors"))
RUNS = sorted(path.parent for path in MODELS.glob("format_*/*/state.pt"))


def named(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def test_there_is_a_case_of_every_decoder_in_every_format():
    for folder in MODELS.glob("format_*"):
        assert {case.name for case in CASES if case.parent == folder} == set(DECODERS)
    assert RUNS


@pytest.mark.parametrize("folder", CASES, ids=named)
def test_a_model_gives_the_logits_it_gave(folder):
    model, recorded = segmenter.load(folder), load_file(folder / "forward.safetensors")
    about = json.loads((folder / "config.json").read_text())
    with torch.inference_mode():
        logits = model(model.normalize(recorded["image"]))
    largest = recorded["logits"].abs().max().item()
    torch.testing.assert_close(logits, recorded["logits"], atol=1e-5 * largest, rtol=0)
    assert list(model.classes.names) == about["classes"]["names"]
    assert list(model.std) == about["std"]


@pytest.mark.parametrize("folder", CASES, ids=named)
def test_its_use_is_as_it_was(folder):
    model, about = segmenter.load(folder), json.loads((folder / "config.json").read_text())
    recipe = about["recipe"]
    assert list(model.recipe.inference.window) == recipe["inference"]["window"]
    assert list(model.recipe.inference.stride) == recipe["inference"]["stride"]
    assert model.recipe.inference.native == recipe["inference"]["native"]
    assert (model.recipe.augment.short_side, model.recipe.augment.max_ratio) == (32, 3.0)
    assert model.recipe.depth.max_depth == recipe["depth"]["max_depth"]
    assert model.temperature == 1


@pytest.mark.parametrize("folder", CASES, ids=named)
def test_saved_again_it_is_of_this_format_and_the_same(folder, tmp_path):
    model = segmenter.load(folder)
    model.save(tmp_path)
    again = segmenter.load(tmp_path)
    assert again.recipe == model.recipe
    assert again.classes == model.classes
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("folder", RUNS, ids=named)
def test_a_run_goes_on_and_ends_with_the_weights_it_would_have_had(folder, disc_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    disc_folder("data", size=(32, 32))
    run = shutil.copytree(folder, tmp_path / "run")
    resume(run)
    ended, expected = load_file(run / "last" / "model.safetensors"), load_file(folder / "end.safetensors")
    assert ended.keys() == expected.keys()
    for name, tensor in ended.items():
        torch.testing.assert_close(tensor, expected[name], atol=2e-4, rtol=1e-3)
