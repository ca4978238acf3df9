"""Proves that a hub that does not answer is given up at once, and that what was fetched from it before is used."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from segmenter import config
from segmenter.errors import UserError
from segmenter.model import hub, timm_vit
from segmenter.model.timm_models import timm

NAME = "vit_tiny_patch16_224"


@pytest.fixture
def silent(monkeypatch, tmp_path):
    """A hub that does not answer, and a cache in which a test may find a file; counts what it was asked."""
    asked = []

    def head(address, timeout):
        asked.append(timeout)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(hub, "get_session", lambda: SimpleNamespace(head=head))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repository, file: None)
    return asked


def test_a_silent_hub_is_asked_once_and_the_remedy_is_said(silent):
    told = (
        r"cannot be reached \(Name or service not known\); .*`hf download timm/vit_tiny\S+ model.safetensors`.*its path"
    )
    with pytest.raises(UserError, match=told):
        timm_vit.create_vit(config.Encoder(NAME, pretrained="hub"))
    assert silent == [hub.LONGEST]


def test_what_was_fetched_before_is_used(silent, monkeypatch, tmp_path):
    weights = timm.create_model(NAME).state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repository, file: str(tmp_path / file))
    vit = timm_vit.create_vit(config.Encoder(NAME, pretrained="hub"))
    assert all(torch.equal(value, weights[name]) for name, value in vit.state_dict().items())
