"""Proves that the attended area is the mean distance of whole attention matrices, for every kind of encoder."""

from itertools import product

import numpy as np
import pytest
import torch
from tiny_models import classes, noise, recipe, small_model, stir
from torch import nn

import segmenter
from segmenter.errors import UserError
from segmenter.inspection import captured
from segmenter.inspection.area import attended_area, mean_distance
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

# Class token alone, with a distillation token, with registers, rotary (three kinds), relative positions, no prefix,
# no position for the class token, attention beside the MLP, a ResNet in front: and their tokens that are no patches.
FAMILIES = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "eva02_tiny_patch14_224": 1,
    "vit_small_patch16_rope_mixed_224": 1,
    "beit_base_patch16_224": 1,
    "vit_base_patch16_siglip_224": 0,
    "deit3_small_patch16_224": 1,
    "vit_base_patch16_xp_224": 1,
    "vit_small_r26_s32_224": 1,
}
DECODERS = ("linear", "mask_transformer", "setr_naive", "setr_pup", "setr_mla", "dpt", "dpt_depth")


def photo(height=64, width=96, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stirred(decoder="linear", **settings):
    model = small_model(decoder, **settings)
    stir(model)
    return model


def matrices(model, image: np.ndarray) -> list[torch.Tensor]:
    """The whole attention (heads T T) of each block, as timm computes it unfused, for a photo of one window."""
    found = []
    layers = [module for module in model.modules() if hasattr(module, "fused_attn") and hasattr(module, "attn_drop")]
    hooks = [layer.attn_drop.register_forward_pre_hook(lambda _, given: found.append(given[0][0])) for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    with torch.inference_mode():
        model(model.normalize(torch.from_numpy(image).permute(2, 0, 1)[None]))
    for layer, hook in zip(layers, hooks, strict=True):
        hook.remove()
        layer.fused_attn = True
    return found


def by_hand(matrix: torch.Tensor, patches: slice, grid: tuple[int, int], patch_size: int) -> tuple[np.ndarray, ...]:
    """Mean distance and share elsewhere of each head, patch by patch."""
    middles = np.array(list(product(range(grid[0]), range(grid[1])))) * patch_size
    apart = np.sqrt(((middles[:, None] - middles) ** 2).sum(-1))
    rows = matrix[:, patches].double().numpy()
    between = rows[:, :, patches]
    return (between * apart).sum((1, 2)) / between.sum((1, 2)), 1 - between.sum((1, 2)) / rows.sum((1, 2))


@pytest.mark.parametrize(("name", "prefix"), FAMILIES.items())
def test_heads_of_every_family_look_as_far_as_their_attention_says(name, prefix):
    model = stirred("mask_transformer", name=name)
    image = photo()
    found = attended_area(model, [image])
    whole = matrices(model, image)
    grid, count = model.encoder.grid(64, 96), len(model.classes)
    assert found.prefix == prefix
    assert [(block.part, block.block) for block in found.blocks] == list(product(("encoder", "decoder"), (0, 1)))
    for block, matrix in zip(found.blocks, whole, strict=True):
        patches = slice(prefix, None) if block.part == "encoder" else slice(0, matrix.shape[1] - count)
        distances, elsewhere = by_hand(matrix, patches, grid, model.encoder.patch_size)
        np.testing.assert_allclose(block.distances[0], distances, rtol=1e-5)
        np.testing.assert_allclose(block.elsewhere[0], elsewhere, atol=1e-5)
    assert np.ptp(found.blocks[0].distances) > 1e-3  # heads differ


@pytest.mark.parametrize("decoder", DECODERS)
def test_models_of_every_decoder_are_looked_into(decoder):
    model = small_model(decoder, depth=4)
    found = attended_area(model, [photo()])
    encoder = [block for block in found.blocks if block.part == "encoder"]
    assert [block.block for block in encoder] == [0, 1, 2, 3]
    assert len(found.blocks) == 4 + 2 * (decoder == "mask_transformer")
    assert all(0 < block.distances.min() < 115 for block in found.blocks)  # the diagonal of 64 x 96
    assert found.prefix == (0 if decoder == "setr_mla" else 1)
    assert all((block.elsewhere > 0).all() == bool(found.prefix) for block in encoder)


def test_heads_that_look_at_all_patches_alike_look_as_far_as_is_stated():
    model = stirred(crop=(160, 192), patch_size=8)
    for block in model.encoder.vit.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    found = attended_area(model, [photo(160, 192)])
    np.testing.assert_allclose(found.blocks[0].distances, found.uniform(), rtol=2e-3)  # patches, not pixels
    np.testing.assert_allclose(found.blocks[0].elsewhere, 1 / (20 * 24 + 1), rtol=1e-4)


@pytest.mark.parametrize(("size", "side"), [((5, 7), np.inf), ((5, 7), 3), ((4, 4), 6), ((1, 9), 5), ((3, 2), 1)])
def test_mean_distance_is_that_of_all_pairs(size, side):
    pixels = list(product(range(size[0]), range(size[1])))
    reach = (min(side, 99) - 1) // 2
    offsets = [(a - c, b - d) for a, b in pixels for c, d in pixels if max(abs(a - c), abs(b - d)) <= reach]
    assert mean_distance(size, side) == pytest.approx(np.mean([np.hypot(*offset) for offset in offsets]))


def test_bands_make_no_difference_and_no_whole_matrix_is_formed(monkeypatch, largest_tensor):
    model, image = stirred(patch_size=4, crop=(64, 96)), photo()
    whole = attended_area(model, [image])
    monkeypatch.setattr(captured, "BAND", 3 * 385 * 7)  # heads, tokens, rows
    with largest_tensor() as largest:
        found = attended_area(model, [image])
    assert largest.elements < 3 * 385**2 / 2
    for block, expected in zip(found.blocks, whole.blocks, strict=True):
        np.testing.assert_allclose(block.distances, expected.distances, rtol=1e-5)


def test_an_image_is_the_mean_of_its_windows_and_images_stay_apart():
    model = stirred(crop=(64, 64))
    images = [photo(64, 160, seed) for seed in (1, 2)]  # windows at 0, 64 and 96
    found = attended_area(model, images)
    assert found.sizes == {(64, 64): 6}
    assert found.images == 2
    alone = attended_area(model, [image[:, x : x + 64] for image in images for x in (0, 64, 96)])
    for block, windows in zip(found.blocks, alone.blocks, strict=True):
        # Windows weigh by their attention between patches: little but not exactly alike.
        np.testing.assert_allclose(block.distances, windows.distances.reshape(2, 3, -1).mean(1), rtol=1e-2)
        np.testing.assert_allclose(block.elsewhere, windows.elsewhere.reshape(2, 3, -1).mean(1), rtol=1e-4)


def test_the_model_is_left_as_it_was():
    model = stirred("mask_transformer").train()
    images = noise(1, 3, 64, 96)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    segmenter.attended_area(model, [photo()])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    assert torch.equal(model(images), model(images))


def test_without_images_there_is_nothing_to_look_at():
    with pytest.raises(UserError, match="there are no images; give one or more to look at"):
        attended_area(small_model(), [])


class Unattentive(nn.Module):
    """A block that mixes no tokens."""

    def forward(self, tokens):
        return tokens


def test_a_model_whose_blocks_do_not_attend_is_refused():
    model = Segmenter(recipe(), classes()).eval()
    for index in range(len(model.encoder.vit.blocks)):
        model.encoder.vit.blocks[index] = Unattentive()
    with pytest.raises(UserError, match="nothing attends in vit_tiny_patch16_224; give a model of blocks with att"):
        attended_area(model, [photo()])
