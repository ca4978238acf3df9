"""Proves that models answer in evaluation mode whatever mode they are in, and have their own mode afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

import segmenter
from segmenter.data.classes import Classes, default_colors
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")
PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


@pytest.fixture
def model(tiny_recipe) -> Segmenter:
    """In training mode, with dropout and batch norms, one of which is kept as it is."""
    torch.manual_seed(0)
    recipe = tiny_recipe("", {"name": "setr_naive", "width": 16, "auxiliary": 0.0}, {"dropout": 0.5, "freeze": 1})
    model = Segmenter(recipe, Classes(("ground", "red", "blue"), default_colors(3))).train()
    next(module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)).eval()
    return model


def state(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def test_a_model_in_training_mode_answers_as_in_evaluation_mode(model, discs):
    before, weights = state(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert set(before.values()) == {True, False}
    samples = segmenter.open_data(discs).split("test")
    ways = {
        "predict": lambda: segmenter.predict(model, PHOTO).probabilities(),
        "multiscale": lambda: segmenter.predict(model, PHOTO, multiscale=True).probabilities(),
        "evaluate": lambda: segmenter.evaluate(model, samples, show=False).confusion,
        "attention": lambda: segmenter.attention(model, PHOTO, at=(20, 30)).maps,
    }
    found = {}
    for name, way in ways.items():
        found[name] = way()
        assert state(model) == before, name
    # Batch norms have counted nothing.
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    model.eval()
    for name, way in ways.items():
        assert np.array_equal(found[name], way()), name
    assert not any(state(model).values())


def test_after_an_error_the_mode_is_as_before(model, tmp_path, monkeypatch, discs):
    before = state(model)
    with pytest.raises(segmenter.UserError):
        segmenter.predict(model, tmp_path / "none.png")
    monkeypatch.setattr(model.decoder, "forward", lambda _: 1 / 0)
    samples = segmenter.open_data(discs).split("test")
    for way in (
        lambda: segmenter.predict(model, PHOTO),
        lambda: list(segmenter.predict(model, [PHOTO])),
        lambda: segmenter.evaluate(model, samples, show=False),
    ):
        with pytest.raises(ZeroDivisionError):
            way()
        assert state(model) == before


def test_between_two_results_the_model_is_the_callers(model):
    before = state(model)
    results = segmenter.predict(model, [PHOTO, PHOTO[:40]])
    first = next(results)
    assert state(model) == before
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    model.eval()
    assert np.array_equal(first.labels, segmenter.predict(model, PHOTO).labels)
    assert np.array_equal(next(results).labels, segmenter.predict(model, PHOTO[:40]).labels)
