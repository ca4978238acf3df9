"""Proves that a point or a class of a photo gets its own row of attention, whatever encoder, window and size."""

import numpy as np
import pytest
import tiny_models
import torch

import segmenter
from segmenter import config
from segmenter.errors import UserError
from segmenter.inspection.captured import capturing
from segmenter.inspection.places import window_at, windows_on

pytestmark = pytest.mark.usefixtures("one_thread")
PHOTO = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
# The tokens beside the patches: class, distillation, registers, none; rotary and relative positions.
FAMILIES = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch16_dinov3": 5,
    "beit_base_patch16_224": 1,
    "vit_base_patch16_siglip_224": 0,
    "vit_small_patch14_reg4_dinov2": 5,
}


def model_of(decoder="linear", name="vit_tiny_patch16_224", **settings):
    model = tiny_models.small_model(decoder, name=name, **settings)
    tiny_models.stir(model)
    return model


def whole(model, pixels: np.ndarray) -> dict:
    """All probabilities (heads T T) of each block for a window (h w 3)."""
    images = model.normalize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
    found = {}
    with torch.inference_mode(), capturing(model, lambda c: found.update({(c.part, c.block): c.rows(slice(None))[0]})):
        model(images)
    return found


@pytest.mark.parametrize(("name", "prefix"), FAMILIES.items())
def test_a_point_has_the_row_of_its_patch(name, prefix):
    model = model_of(name=name)
    patch, grid = model.encoder.patch_size, model.encoder.grid(64, 96)
    found = segmenter.attention(model, PHOTO, at=(40, 70))
    token = prefix + (40 // patch) * grid[1] + 70 // patch
    assert found.maps.shape == (2, 3, *grid)
    assert found.others.shape == (2, 3, prefix)
    assert found.layers == (0, 1)
    for layer, (maps, others) in enumerate(zip(found.maps, found.others, strict=True)):
        row = whole(model, PHOTO)["encoder", layer][:, token].numpy()
        np.testing.assert_allclose(np.concatenate([others, maps.reshape(3, -1)], 1), row, atol=1e-6)
    np.testing.assert_allclose(found.maps.sum((2, 3)) + found.others.sum(2), 1, atol=1e-5)


def test_a_class_has_the_row_of_its_embedding():
    model = model_of("mask_transformer")
    found = segmenter.attention(model, PHOTO, class_name="c3", layers=[1])
    row = whole(model, PHOTO)["decoder", 1][:, 24 + 3].numpy()
    assert (found.part, found.layers) == ("decoder", (1,))
    np.testing.assert_allclose(found.maps[0].reshape(len(row), -1), row[:, :24], atol=1e-6)
    np.testing.assert_allclose(found.others[0], row[:, 24:], atol=1e-6)


def test_a_patch_can_be_looked_at_in_the_decoder_too():
    model = model_of("mask_transformer")
    found = segmenter.attention(model, PHOTO, at=(0, 95), part="decoder")
    row = whole(model, PHOTO)["decoder", 0][:, 5].numpy()
    np.testing.assert_allclose(found.maps[0].reshape(len(row), -1), row[:, :24], atol=1e-6)


def test_of_a_large_photo_the_window_around_the_point_is_looked_at():
    model = model_of()
    photo = np.random.default_rng(1).integers(0, 256, (130, 200, 3)).astype(np.uint8)
    found = segmenter.attention(model, photo, at=(90, 150), native=True)
    assert found.window.describe() == "window 6 of 9 (row 2 of 3, column 3 of 3): x 104 to 200, y 64 to 128"
    alone = segmenter.attention(model, photo[64:128, 104:200], at=(26, 46), native=True)
    np.testing.assert_allclose(found.maps, alone.maps, atol=1e-6)


def test_a_class_is_looked_at_where_it_is_widest_or_else_likeliest():
    model = model_of("mask_transformer", count=3)
    photo = np.random.default_rng(1).integers(0, 256, (64, 400, 3)).astype(np.uint8)
    result = segmenter.predict(model, photo, native=True)
    for label in range(3):
        found = segmenter.attention(model, photo, class_name=f"c{label}", native=True)
        if (result.labels == label).any():
            top, left, bottom, right = map(int, found.window.box)
            assert (result.labels[top:bottom, left:right] == label).any()
        else:
            at = np.unravel_index(result.probabilities()[label].argmax(), (64, 400))
            assert found.window.box == window_at(windows_on(model, photo, native=True), at).box


def test_other_windows_can_be_asked_for():
    model = model_of()
    found = segmenter.attention(model, PHOTO, at=(0, 0), inference=config.Inference((32, 32), (32, 32)))
    assert found.maps.shape[2:] == (2, 2)
    assert found.window.rows * found.window.columns == 6


@pytest.mark.parametrize("decoder", ["setr_naive", "setr_mla", "dpt", "dpt_depth"])
def test_decoders_that_read_several_blocks(decoder):
    model = model_of(decoder, depth=4)
    found = segmenter.attention(model, PHOTO, at=(10, 10))
    assert found.maps.shape == (4, 3, 4, 6)
    assert found.others.shape[2] == (0 if decoder == "setr_mla" else 1)


@pytest.mark.parametrize(
    ("decoder", "asked", "text"),
    [
        ("linear", {}, r"give at=\(y, x\) in pixels of the photo, or class_name"),
        ("linear", {"at": (64, 0)}, "the point x 0, y 64 lies outside the photo, which is 96 pixels wide and 64 high"),
        ("linear", {"at": (0, -1)}, "the point x -1, y 0 lies outside the photo"),
        ("linear", {"at": (0, 0), "layers": [2]}, "block is 2, but the encoder has the blocks 0 to 1"),
        ("linear", {"at": (0, 0), "layers": [-1]}, "block is -1, but the encoder has the blocks 0 to 1"),
        ("linear", {"at": (0, 0), "part": "decoder"}, "the linear decoder has no blocks with attention"),
        ("linear", {"class_name": "c1"}, "the linear decoder has no class embeddings, .*: give a point instead"),
        ("dpt_depth", {"class_name": "depth"}, "the dpt_depth decoder has no class embeddings"),
        ("mask_transformer", {"class_name": "c9"}, "the model has no class 'c9'; perhaps c"),
        ("mask_transformer", {"class_name": "c1", "layers": [2]}, "block is 2, but the decoder has the blocks 0 to 1"),
    ],
)
def test_what_cannot_be_looked_at(decoder, asked, text):
    with pytest.raises(UserError, match=text):
        segmenter.attention(model_of(decoder, depth=4 if decoder == "dpt_depth" else 2), PHOTO, **asked)
