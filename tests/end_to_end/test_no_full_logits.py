"""Proves that training, evaluation and prediction never make a tensor of classes x height x width elements."""

import pytest
import torch

import segmenter
from segmenter.published.loading import load
from segmenter.training.loop import train
from segmenter.upsample import argmax, bands, stream

CLASSES, SIDE = 60, 64
FULL = CLASSES * SIDE * SIDE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def many_classes(disc_folder):
    """A folder whose images are large and whose classes are many beside the tiny network."""
    root = disc_folder(size=(SIDE, SIDE))
    names = "\n".join(f"  - class {number}" for number in range(CLASSES))
    (root / "classes.yaml").write_text(f"classes:\n{names}\n")
    return root


@pytest.fixture(autouse=True)
def _little_at_once(monkeypatch):
    """At these sizes what is worked on together would be all."""
    for module, name in ((stream, "CHUNK"), (bands, "TILE"), (argmax, "POINTS")):
        monkeypatch.setattr(module, name, 20_000)


def test_no_full_logits(tmp_path, many_classes, tiny_recipe, largest_tensor):
    with largest_tensor() as largest:
        train(tiny_recipe(many_classes, decoder={"name": "linear"}, steps=2, validate_every=1), tmp_path / "run")
    assert 0 < largest.elements < FULL / 2
    model = load(tmp_path / "run")
    data = model.recipe.data
    for multiscale in (False, True):
        with largest_tensor() as largest:
            segmenter.evaluate(model, data, multiscale, split="val")
            segmenter.evaluate(model, data, multiscale, split="val", out=tmp_path / "kept", overwrite=True)
            segmenter.predict(model, many_classes / "val" / "images" / "val0.png", multiscale=multiscale)
        assert 0 < largest.elements < FULL / 2
    with largest_tensor() as largest, torch.no_grad():
        model.pixel_logits(torch.zeros(1, 3, SIDE, SIDE))
    assert largest.elements == FULL  # the measurement sees them where they are
