"""Proves that rollout, carried as a row, is the product of all layers' matrices, and never forms one of them."""

import pytest
import tiny_models
import torch

from segmenter.inspection import captured
from segmenter.inspection.captured import capturing
from segmenter.inspection.rollout import rollout

pytestmark = pytest.mark.usefixtures("one_thread")


def product(model, images, start) -> torch.Tensor:
    """By matrices: (A + 1) / 2 of every layer, the decoder's first, from a row over its tokens."""
    parts = {"encoder": [], "decoder": []}
    with torch.inference_mode(), capturing(model, lambda call: parts[call.part].append(call.rows(slice(None))[0])):
        model(images)
    row = start.flatten()
    for part in ("decoder", "encoder"):
        if not parts[part]:
            continue
        tokens = parts[part][0].shape[-1]
        before = model.encoder.prefix if part == "encoder" else 0
        whole = torch.zeros(tokens)
        whole[before : before + start.numel()] = row[: start.numel()]
        together = torch.eye(tokens)
        for matrix in parts[part]:
            together = (matrix.mean(0) + torch.eye(tokens)) / 2 @ together
        row = (whole @ together)[before:]
    return row[: start.numel()].unflatten(0, start.shape)


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "vit_small_patch16_dinov3"])
def test_it_is_the_product_of_the_layers(name, decoder, monkeypatch):
    model = tiny_models.small_model(decoder, name=name)
    tiny_models.stir(model)
    images = tiny_models.noise(1, 3, 75, 96)
    start = torch.zeros(5, 6)
    start[1, 2], start[4, 5] = 0.75, 0.25
    expected = product(model, images, start)
    assert expected.std() > 1e-4
    monkeypatch.setattr(captured, "BAND", 3 * 36 * 4)  # heads, tokens, a few rows
    torch.testing.assert_close(rollout(model, images, start), expected, atol=1e-6, rtol=1e-5)


def test_no_matrix_of_all_tokens_is_formed(monkeypatch, largest_tensor):
    model = tiny_models.small_model("mask_transformer", patch_size=8)
    images = tiny_models.noise(1, 3, 160, 160)  # 400 patches
    monkeypatch.setattr(captured, "BAND", 2**14)
    with largest_tensor() as largest:
        found = rollout(model, images, torch.full((20, 20), 1 / 400))
    assert 0.5 < found.sum() <= 1
    assert largest.elements < 400 * 400
