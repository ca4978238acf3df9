"""Proves which blocks SETR's decoders read, on which grids they answer, and what becomes of settings that cannot be."""

import math

import pytest
import torch
from tiny_models import classes, made_for, noise, of_width, recipe, small_model, stir
from torch import Tensor

import segmenter
from segmenter import config, upsample
from segmenter.errors import UserError
from segmenter.model.decoders.setr import SetrMla, SetrNaive, SetrPup
from segmenter.model.encoder import Tokens
from segmenter.model.segmenter import Segmenter
from segmenter.model.transfer import transfer
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = {"setr_naive": SetrNaive, "setr_pup": SetrPup, "setr_mla": SetrMla}
each_name = pytest.mark.parametrize("name", NAMES)


def made(name: str, depth: int = 12, patch_size: int = 16, **settings) -> SetrNaive | SetrPup | SetrMla:
    settings = config.decoder(name, **({"width": 12} | settings))
    return made_for(of_width(24, depth, patch_size), NAMES[name], settings, 5)


# ---- blocks


@pytest.mark.parametrize(
    ("name", "layout", "depth", "taps", "auxiliary"),
    [
        ("setr_naive", "original", 24, (23,), (9, 14, 19)),
        ("setr_naive", "openmmlab", 24, (23,), (9, 14, 19)),
        ("setr_pup", "original", 24, (23,), (9, 14, 19, 23)),
        ("setr_pup", "openmmlab", 24, (23,), (9, 14, 19)),
        ("setr_pup", "original", 12, (11,), (4, 7, 9, 11)),
        ("setr_mla", "original", 24, (5, 11, 17, 23), ()),
        ("setr_mla", "openmmlab", 12, (2, 5, 8, 11), ()),
        ("setr_pup", "original", 1, (0,), (0, 0, 0, 0)),
        ("setr_mla", "original", 2, (0, 0, 1, 1), ()),
    ],
)
def test_the_published_blocks_are_read(name, layout, depth, taps, auxiliary):
    decoder = made(name, depth, variant=layout)
    assert (decoder.taps, decoder.auxiliary_taps) == (taps, auxiliary)
    assert len(decoder.auxiliary) == (4 if name == "setr_mla" else len(auxiliary))
    without = made(name, depth, variant=layout, auxiliary=0.0)
    assert (without.taps, without.auxiliary_taps, len(without.auxiliary)) == (taps, (), 0)


def test_other_blocks():
    assert made("setr_naive", taps=(2, 5, 8, 11)).auxiliary_taps == (2, 5, 8)  # as SETR-Naive-Base
    assert made("setr_naive", taps=(7,)).auxiliary_taps == ()
    assert made("setr_pup", taps=(1, 6)).auxiliary_taps == (1, 6)
    assert made("setr_mla", taps=(0, 1, 2, 3)).taps == (0, 1, 2, 3)


@each_name
@pytest.mark.parametrize(
    ("taps", "text"),
    [
        ((2, 5, 8, 12), "decoder.taps is 2 5 8 12, but the encoder has the blocks 0 to 11"),
        ((-1, 5, 8, 11), "decoder.taps is -1 5 8 11, but the encoder has the blocks 0 to 11"),
        ((2, 8, 5, 11), "decoder.taps is 2 8 5 11; write the blocks from the first to the last"),
    ],
)
def test_blocks_that_cannot_be(name, taps, text):
    with pytest.raises(UserError, match=text):
        made(name, taps=taps)


def test_mla_reads_four_blocks():
    text = "decoder.taps is 5 11, but setr_mla reads 4 blocks; write 4, or none"
    with pytest.raises(UserError, match=text):
        made("setr_mla", taps=(5, 11))


def test_blocks_that_nothing_reads_are_left_out(tmp_path):
    settings = recipe(config.decoder("setr_naive", width=12, taps=(0, 2)), depth=4)
    model = Segmenter(settings, classes()).eval()
    assert len(model.encoder.vit.blocks) == model.encoder.depth == 3
    model.save(tmp_path)
    assert len(load(tmp_path).encoder.vit.blocks) == 3


# ---- grids


@pytest.mark.parametrize(
    ("name", "layout", "patch", "main", "auxiliary"),
    [
        # 16 pixels, as published: the main grid, and the auxiliary ones
        ("setr_naive", "original", 16, 1, 1),
        ("setr_naive", "openmmlab", 16, 4, 4),
        ("setr_pup", "original", 16, 8, 4),
        ("setr_pup", "openmmlab", 16, 8, 4),
        ("setr_mla", "original", 16, 4, 1),
        ("setr_mla", "openmmlab", 16, 4, 1),
        # others: PUP ends at half of the image at least, and at no more than all of it
        ("setr_pup", "", 8, 4, 4),
        ("setr_pup", "original", 14, 8, 4),
        ("setr_pup", "", 32, 16, 4),
        ("setr_naive", "", 14, 1, 1),
    ],
)
def test_logits_lie_on_the_coarsest_grid(name, layout, patch, main, auxiliary):
    decoder = made(name, patch_size=patch, variant=layout).eval()
    tokens = Tokens(noise(1, 15, 24), noise(1, 1, 24), (3, 5))
    count = len(decoder.taps + decoder.auxiliary_taps)
    found, *others = decoder.forward_auxiliary([tokens] * count)
    assert decoder.upscale == main
    assert found.shape == (1, 5, 3 * main, 5 * main)
    assert {other.shape for other in others} == {(1, 5, 3 * auxiliary, 5 * auxiliary)}
    geometry = decoder.geometry((3, 5), patch, (3 * patch - 1, 5 * patch))
    assert (geometry.grid, geometry.extent) == ((3 * main, 5 * main), (3 * patch, 5 * patch))


def test_one_convolution_in_openmmlab_s_auxiliary_decoders_gives_the_same_grid():
    decoder = made("setr_naive", variant="openmmlab", auxiliary_layers=1)
    assert [len(head.convolutions) for head in decoder.auxiliary] == [1, 1, 1]
    assert [head.upscale for head in decoder.auxiliary] == [4, 4, 4]


@each_name
@pytest.mark.parametrize("patch", [8, 14])
def test_other_patch_sizes(name, patch):
    model = small_model(name, patch_size=patch, crop=(56, 112)).train()
    images = noise(2, 3, 50, 61)
    outputs = model.outputs(model.forward_auxiliary(images), 50, 61)
    labels = torch.arange(2 * 50 * 61).reshape(2, 50, 61) % 5
    sum(o.weight * upsample.cross_entropy(o.logits, labels, o.geometry) for o in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_name
def test_openmmlab_s_variant_is_saved_and_loaded(name, tmp_path):
    layers = {} if name == "setr_mla" else {"auxiliary_layers": 1}
    model = small_model(config.decoder(name, width=12, variant="openmmlab", **layers))
    stir(model)
    model.save(tmp_path)
    loaded, images = load(tmp_path), noise(1, 3, 97, 131)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))
    assert loaded.recipe == model.recipe


@pytest.mark.parametrize(("layout", "kernel"), [("original", 3), ("openmmlab", 1)])
def test_the_classifier_of_mla(layout, kernel):
    decoder = made("setr_mla", width=9, variant=layout)
    assert decoder.classify.weight.shape == (5, 4 * 5, kernel, kernel)  # half of the width, rounded up
    assert {classify.bias is None for classify in decoder.auxiliary} == {layout != "openmmlab"}


@pytest.mark.parametrize("size", ["vit_large_patch16_384", "vit_base_patch16_384"])
def test_parameters_of_the_published_heads(size):
    # Counted from the widths that the paper states: 256 channels, 150 classes, D features.
    with torch.device("meta"):
        found = {name: segmenter.create(size, decoder=name).decoder for name in NAMES}
    d, c, k = (1024 if "large" in size else 768), 256, 150
    norm, last = 2 * c, k * (c + 1)
    naive, auxiliary = 2 * d + d * c + norm + last, 2 * d + 9 * d * c + norm + last
    pup = 2 * d + 9 * d * c + 3 * 9 * c * c + 4 * norm + last
    level = 2 * d + d * c + norm + 9 * c * c + norm + 9 * c * c // 2 + c + 9 * c * c // 4 + c
    mla = 4 * level + k * (9 * 2 * c + 1)
    expected = {"setr_naive": 4 * naive, "setr_pup": pup + 4 * auxiliary, "setr_mla": mla + 4 * k * c}
    assert {name: sum(p.numel() for p in decoder.parameters()) for name, decoder in found.items()} == expected


# ---- encoders


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_siglip_224", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_mla_leaves_the_class_token_out(name):
    model = small_model("setr_mla", name=name)
    assert not [key for key in model.state_dict() if key.endswith("_token")]
    assert model.encoder.prefix == 0
    (tokens, *_) = model.encoder.intermediate(noise(1, 3, 40, 50), [1])
    assert (tokens.patches.shape, tokens.prefix.shape) == ((1, 12, 48), (1, 0, 48))


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "beit_base_patch16_224"])
def test_mla_with_relative_positions_is_refused(name):
    with pytest.raises(UserError, match=rf"{name} has relative positions.*choose another decoder than setr_mla"):
        small_model("setr_mla", name=name)
    assert small_model("setr_pup", name=name)(noise(1, 3, 33, 40)).isfinite().all()


# ---- batch norm


@each_name
def test_one_value_is_too_few_for_batch_norm(name):
    model = small_model(name).train()
    with pytest.raises(UserError, match=r"grid of one cell; raise train\.batch .* train\.batch_norm frozen$"):
        model.forward_auxiliary(noise(1, 3, 16, 9))
    assert all(logits.isfinite().all() for logits in model.forward_auxiliary(noise(2, 3, 16, 9)))
    assert all(logits.isfinite().all() for logits in model.eval().forward_auxiliary(noise(1, 3, 16, 9)))


# ---- from and to other decoders


@each_name
@pytest.mark.parametrize("other", ["mask_transformer", "linear", "setr_naive", "setr_mla"])
def test_an_encoder_goes_from_one_decoder_to_another_and_back(name, other, tmp_path):
    old = small_model(other)
    stir(old)
    old.save(tmp_path)
    new = small_model(name)
    first = {key: tensor.clone() for key, tensor in new.state_dict().items()}
    kept = transfer(load(tmp_path), new)
    same = name == other
    # The auxiliary decoders are not saved; MLA has no class token to give.
    token = {"encoder.vit.cls_token"} if other == "setr_mla" and not same else set()
    expected = {key for key in first if key.startswith("decoder.auxiliary." if same else "decoder.")} | token
    assert set(kept) == expected
    for key, tensor in new.state_dict().items():
        assert torch.equal(tensor, first[key] if key in expected else old.state_dict()[key]), key


def test_an_encoder_comes_back_to_segmenter():
    old, new = small_model("setr_pup"), small_model("mask_transformer")
    stir(old)
    kept = transfer(old, new)
    assert {"encoder.norm.weight", "encoder.norm.bias"} < set(kept)  # SETR does not need it
    assert all(key.startswith(("decoder.", "encoder.norm.")) for key in kept)
    assert torch.equal(new.encoder.vit.blocks[1].mlp.fc2.weight, old.encoder.vit.blocks[1].mlp.fc2.weight)


def test_other_classes_keep_all_but_the_classifiers():
    old, new = small_model("setr_mla"), small_model("setr_mla", count=7)
    stir(old)
    kept = transfer(old, new)
    assert kept == [f"decoder.{key}" for key in new.decoder.state_dict() if key in new.decoder.class_dependent]
    assert "decoder.classify.weight" in kept


def mean_square(tensors: list[Tensor]) -> float:
    return math.fsum(tensor.square().mean().item() for tensor in tensors)


@each_name
def test_heads_begin_near_zero(name):
    torch.manual_seed(0)
    decoder = made(name, width=256, depth=4)
    weights = [p for key, p in decoder.named_parameters() if key in decoder.class_dependent and key.endswith("weight")]
    assert math.sqrt(mean_square(weights) / len(weights)) == pytest.approx(0.01, rel=0.1)
