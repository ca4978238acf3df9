"""Proves that relevance is what whole matrices give, of a pixel or a class in its window, and leaves no trace."""

import numpy as np
import pytest
import torch
from tiny_models import noise, small_model, stir

from segmenter.errors import UserError
from segmenter.inspection import captured
from segmenter.inspection.relevance import ATTENTION, cells_of_class, relevance, relevance_of_patches
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = [
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_small_r26_s32_224",
]


def photo_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


def model_of(decoder: str = "linear", **settings) -> Segmenter:
    model = small_model(decoder, **({"depth": 4} if decoder[:3] in ("dpt", "set") else {}), **settings)
    stir(model.encoder)
    return model


def one_cell(model: Segmenter, images: torch.Tensor, row: int = 1, column: int = 2) -> torch.Tensor:
    cells = torch.zeros(model.geometry(*images.shape[-2:]).grid)
    cells[row, column] = 1
    return cells


def shares(values: torch.Tensor) -> torch.Tensor:
    return values / values.abs().sum()


def by_matrices(model: Segmenter, images: torch.Tensor, cells: torch.Tensor, label: int, steps: int) -> torch.Tensor:
    """Relevance from unfused attention, its own gradient and whole matrices, nothing computed twice."""
    (h, w), side = model.encoder.grid(*images.shape[-2:]), model.encoder.patch_size
    parts = [("encoder", b) for b in model.encoder.vit.blocks]
    parts += [("decoder", b) for b in getattr(model.decoder, "blocks", [])]
    layers = [getattr(block, "attn", block) for _, block in parts]
    gradients, rows = torch.zeros_like(images), torch.zeros(h * w)
    for step in range(steps):
        blend, found = (images * (step + 0.5) / steps).requires_grad_(), []
        hooks = [a.attn_drop.register_forward_pre_hook(lambda _, args, f=found: f.append(args[0])) for a in layers]
        for layer in layers:
            layer.fused_attn = False
        score = (model(blend)[0, label] * cells).sum()
        for layer, hook in zip(layers, hooks, strict=True):
            layer.fused_attn = True
            hook.remove()
        at_image, *at_attention = torch.autograd.grad(score, [blend, *found])
        steps_of = {"encoder": [], "decoder": []}
        for (part, _), attention, gradient in zip(parts, found, at_attention, strict=True):
            steps_of[part].append((attention * gradient)[0].clamp(min=0).mean(0))
        row = torch.nn.functional.adaptive_avg_pool2d(cells[None], (h, w)).flatten()
        row = row / row.sum()
        for part, first in (("decoder", 0), ("encoder", model.encoder.prefix)):
            if steps_of[part]:
                matrix = torch.eye(len(steps_of[part][0]))
                for layer in steps_of[part]:
                    matrix = matrix + layer @ matrix
                row = row @ matrix[first : first + h * w, first : first + h * w]
        gradients, rows = gradients + at_image / steps, rows + row / steps
    products = (gradients * images).sum(1)[0]
    padded = torch.zeros(h * side, w * side)
    padded[: products.shape[0], : products.shape[1]] = products
    summed = padded.reshape(h, side, w, side).sum((1, 3))
    return (shares(summed) + ATTENTION * shares(rows.unflatten(0, (h, w)))) / (1 + ATTENTION)


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_gradient_times_photo_and_gradient_times_attention(name, decoder):
    model, images = model_of(decoder, name=name), noise(1, 3, 60, 90)
    cells = one_cell(model, images)
    found = relevance_of_patches(model, images, cells, 3, steps=2)
    torch.testing.assert_close(found, by_matrices(model, images, cells, 3, 2), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("decoder", ["setr_naive", "setr_pup", "setr_mla", "dpt"])
def test_decoders_that_read_several_blocks(decoder):
    model, images = model_of(decoder), noise(1, 3, 60, 90)
    cells = one_cell(model, images, 3, 4)
    found = relevance_of_patches(model, images, cells, 3, steps=2)
    torch.testing.assert_close(found, by_matrices(model, images, cells, 3, 2), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_encoder_has_it(name):
    model = model_of("mask_transformer", name=name)
    found = relevance(model, photo_of(64, 96), at=(20, 50))
    assert found.values.shape == model.encoder.grid(64, 96)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()
    assert np.abs(found.values).max() > 0
    assert found.class_name in model.classes.names


def test_without_attention_a_pixel_owes_all_to_the_patches_it_is_mixed_of():
    model = model_of()
    with torch.no_grad():
        for block in model.encoder.vit.blocks:
            for parameter in block.attn.proj.parameters():
                parameter.zero_()
    found = relevance(model, photo_of(64, 96), at=(30, 42))
    rows, columns = np.nonzero(found.values)
    assert set(rows) == {1, 2}  # the pixel lies between the middles of rows 1 and 2 of patches, of columns 2 and 3
    assert set(columns) == {2, 3}


def test_a_class_is_decided_where_it_wins_or_else_where_it_is_likeliest():
    logits = torch.zeros(3, 2, 2)
    logits[1, 0] = 2.0
    logits[2, 1, 1] = 1.0
    assert cells_of_class(logits, 1).tolist() == [[0.5, 0.5], [0, 0]]
    assert cells_of_class(logits, 2).tolist() == [[0, 0], [0, 1]]
    logits[2, 1, 1] = 0.0  # the first class wins there now
    cells = cells_of_class(logits, 2)
    assert cells.sum().item() == pytest.approx(1)
    assert cells.min() > 0
    assert cells[1, 1] > cells[0, 0]


def test_a_class_by_name_and_by_id():
    model, photo = model_of("mask_transformer"), photo_of(64, 96)
    by_name, by_id = relevance(model, photo, class_name="c2"), relevance(model, photo, class_name=2)
    assert by_name.class_name == by_id.class_name == "c2"
    np.testing.assert_array_equal(by_name.values, by_id.values)
    there = relevance(model, photo, at=(10, 10), class_name="c2")
    assert there.class_name == "c2"
    assert not np.allclose(there.values, by_name.values)


def test_a_large_photo_is_seen_in_the_window_of_the_point():
    model, photo = model_of(), photo_of(64, 180)
    found = relevance(model, photo, at=(40, 150), native=True)
    assert found.values.shape == (4, 6)
    box = found.window.box
    assert box.left <= 150 < box.right
    assert "window 2 of 2" in found.window.describe()
    alone = relevance(model, photo[:, int(box.left) : int(box.right)], at=(40, 150 - int(box.left)), native=True)
    np.testing.assert_allclose(found.values, alone.values, rtol=1e-5, atol=1e-7)


def test_depth_of_a_pixel():
    model = model_of("dpt_depth")
    found = relevance(model, photo_of(64, 96), at=(20, 50))
    assert found.values.shape == (4, 6)
    assert found.class_name == ""
    with pytest.raises(UserError, match="a model of depth has no classes"):
        relevance(model, photo_of(64, 96), class_name="near")


def test_one_class_alone_has_it():
    assert np.abs(relevance(model_of(count=1), photo_of(64, 96), at=(20, 50)).values).max() > 0


def state_of(model: Segmenter) -> list:
    parameters = [(p.requires_grad, p.grad, p._version) for p in model.parameters()]
    return [*parameters, *(module.training for module in model.modules()), model.encoder.recompute]


def test_the_model_is_left_as_it_was():
    model = model_of("mask_transformer").train()
    model.encoder.vit.patch_embed.requires_grad_(False)
    images, before = noise(1, 3, 64, 96), state_of(model)
    with torch.inference_mode():
        answered = model.eval()(images)
    model.train()
    relevance(model, photo_of(64, 96), at=(20, 50))
    assert state_of(model) == before
    with pytest.raises(IndexError):
        relevance_of_patches(model, images, one_cell(model, images), 99)
    assert state_of(model) == before
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), answered)


def test_it_has_its_gradients_where_the_caller_has_none():
    model, photo = model_of().requires_grad_(False), photo_of(64, 96)
    expected = relevance(model, photo, at=(20, 50)).values
    with torch.inference_mode():
        np.testing.assert_array_equal(relevance(model, photo, at=(20, 50)).values, expected)
    with torch.no_grad():
        np.testing.assert_array_equal(relevance(model, photo, at=(20, 50)).values, expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_it_never_keeps_attention(name, largest_tensor, monkeypatch):
    monkeypatch.setattr(captured, "BAND", 3 * 385 * 16)
    model = model_of(name=name, patch_size=4, depth=3, count=40)  # 385 tokens, 3 heads
    images, kept = noise(1, 3, 64, 96), {}
    matrix = 3 * 385 * 385
    count = torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.data_ptr(), t) is None or t, lambda t: t
    )
    with count, largest_tensor() as largest:
        relevance_of_patches(model, images, one_cell(model, images), 1, steps=1)
    assert sum(tensor.numel() for tensor in kept.values()) < matrix  # of all layers together
    if name.startswith("vit"):  # relative positions are a matrix, of one layer at a time
        assert largest.elements < matrix


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, r"relevance is for a pixel or a class; give at=\(y, x\) in pixels of the photo, or class_name"),
        ({"at": (64, 5)}, "the point x 5, y 64 lies outside the photo, which is 96 pixels wide and 64 high"),
        ({"at": (5, -1)}, "the point x -1, y 5 lies outside the photo"),
        ({"class_name": "cow"}, "the model has no class 'cow'"),
        ({"class_name": 5}, "the model has no class 5; its classes are 0 to 4"),
        ({"at": (5, 5), "class_name": -1}, "the model has no class -1; its classes are 0 to 4"),
    ],
)
def test_what_cannot_be_asked(asked, text):
    with pytest.raises(UserError, match=text):
        relevance(model_of(), photo_of(64, 96), **asked)
