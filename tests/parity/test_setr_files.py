"""Proves that SETR files of both layouts are recognised and accounted for, compute what the paper says, and come back.

The formulas are written here as published: features are enlarged to the image, and the enlargements come where they do
there. Keys are those of the published files.
"""

import pytest
import torch
import torch.nn.functional as F
from test_published_files import assert_same
from torch import Tensor

import segmenter
from segmenter import config
from segmenter.checkpoints.reading import Checkpoint, read
from segmenter.errors import UserError
from segmenter.model.encoder import Tokens
from segmenter.model.segmenter import Segmenter
from segmenter.published import setr_openmmlab, setr_original
from segmenter.published.converting import convert
from segmenter.published.loading import load_published

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, CHANNELS, CLASSES, DEPTH, SIDE = 24, 8, 3, 5, 64
NAMES = ("setr_naive", "setr_pup", "setr_mla")
LAYOUTS = {"original": setr_original, "openmmlab": setr_openmmlab}
each_file = pytest.mark.parametrize(("layout", "name"), [(layout, name) for layout in LAYOUTS for name in NAMES])
# timm's name, which the original has too, OpenMMLab's, and the size
BLOCK = (
    ("norm1", "ln1.", (WIDTH,)),
    ("attn.qkv", "attn.attn.in_proj_", (3 * WIDTH, WIDTH)),
    ("attn.proj", "attn.attn.out_proj.", (WIDTH, WIDTH)),
    ("norm2", "ln2.", (WIDTH,)),
    ("mlp.fc1", "ffn.layers.0.0.", (4 * WIDTH, WIDTH)),
    ("mlp.fc2", "ffn.layers.1.", (WIDTH, 4 * WIDTH)),
)


# ---- files as published


def pair(key: str, *size: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Sizes of a weight and a bias; `key` ends in a dot, or in what both names begin with."""
    return {f"{key}weight": size} | ({f"{key}bias": size[:1]} if bias else {})


def batch_norm(key: str, size: int) -> dict[str, tuple[int, ...]]:
    statistics = {f"{key}running_mean": (size,), f"{key}running_var": (size,), f"{key}num_batches_tracked": ()}
    return pair(key, size) | statistics


def backbone(layout: str) -> dict[str, tuple[int, ...]]:
    sizes = {"backbone.cls_token": (1, 1, WIDTH), "backbone.pos_embed": (1, 1 + (SIDE // 16) ** 2, WIDTH)}
    sizes |= pair(f"backbone.patch_embed.{'proj' if layout == 'original' else 'projection'}.", WIDTH, 3, 16, 16)
    for index in range(DEPTH):
        for original, openmmlab, size in BLOCK:
            part = f"blocks.{index}.{original}." if layout == "original" else f"layers.{index}.{openmmlab}"
            sizes |= pair(f"backbone.{part}", *size)
    return sizes


def original_head(head: str, kernel: int, layers: int) -> dict[str, tuple[int, ...]]:
    sizes = pair(f"{head}.norm.", WIDTH) | pair(f"{head}.conv_seg.", CLASSES, 512, 1, 1)
    for index in range(layers):
        sizes |= pair(f"{head}.conv_{index}.", CHANNELS, CHANNELS if index else WIDTH, kernel, kernel)
        sizes |= batch_norm(f"{head}.syncbn_fc_{index}.", CHANNELS)
    return sizes | pair(f"{head}.conv_{layers}.", CLASSES, CHANNELS, 1, 1)


def openmmlab_head(head: str, kernel: int, layers: int) -> dict[str, tuple[int, ...]]:
    sizes = pair(f"{head}.norm.", WIDTH)
    for index in range(layers):
        part = f"{head}.up_convs.{index}.0."
        sizes |= pair(f"{part}conv.", CHANNELS, CHANNELS if index else WIDTH, kernel, kernel, bias=False)
        sizes |= batch_norm(f"{part}bn.", CHANNELS)
    return sizes | pair(f"{head}.conv_seg.", CLASSES, CHANNELS, 1, 1)


def original_mla(half: int) -> dict[str, tuple[int, ...]]:
    sizes = pair("decode_head.cls.", CLASSES, 4 * half, 3, 3) | pair("decode_head.conv_seg.", CLASSES, 512, 1, 1)
    for level in range(4):
        neck, head = f"backbone.mla.mla_p{level + 2}", f"decode_head.mlahead.head{level + 2}"
        sizes |= pair(f"backbone.norm_{level}.", WIDTH)
        sizes |= pair(f"{neck}_1x1.0.", CHANNELS, WIDTH, 1, 1, bias=False) | batch_norm(f"{neck}_1x1.1.", CHANNELS)
        sizes |= pair(f"{neck}.0.", CHANNELS, CHANNELS, 3, 3, bias=False) | batch_norm(f"{neck}.1.", CHANNELS)
        sizes |= pair(f"{head}.0.", half, CHANNELS, 3, 3, bias=False) | batch_norm(f"{head}.1.", half)
        sizes |= pair(f"{head}.3.", half, half, 3, 3, bias=False) | batch_norm(f"{head}.4.", half)
        sizes |= pair(f"auxiliary_head.{level}.aux.", CLASSES, CHANNELS, 1, 1, bias=False)
        sizes |= pair(f"auxiliary_head.{level}.conv_seg.", CLASSES, 512, 1, 1)
    return sizes


def openmmlab_mla(half: int) -> dict[str, tuple[int, ...]]:
    sizes = pair("decode_head.conv_seg.", CLASSES, 4 * half, 1, 1)
    for level in range(4):
        neck, head = f"neck.mla.channel_proj.{level}.", f"decode_head.up_convs.{level}."
        sizes |= pair(f"neck.norm.{level}.", WIDTH)
        sizes |= pair(f"{neck}conv.", CHANNELS, WIDTH, 1, 1, bias=False) | batch_norm(f"{neck}bn.", CHANNELS)
        neck = f"neck.mla.feat_extract.{level}."
        sizes |= pair(f"{neck}conv.", CHANNELS, CHANNELS, 3, 3, bias=False) | batch_norm(f"{neck}bn.", CHANNELS)
        for index, inputs in enumerate((CHANNELS, half)):
            part = f"{head}{index}."
            sizes |= pair(f"{part}conv.", half, inputs, 3, 3, bias=False) | batch_norm(f"{part}bn.", half)
        sizes |= pair(f"auxiliary_head.{level}.conv_seg.", CLASSES, CHANNELS, 1, 1)
    return sizes


def state_of(layout: str, name: str, half: int = CHANNELS // 2) -> dict[str, Tensor]:
    """Random weights under the names of a published file; MLA's heads are half as wide as the rest, as published."""
    sizes = backbone(layout)
    if name == "setr_mla":
        sizes |= original_mla(half) if layout == "original" else openmmlab_mla(half)
    else:
        kernel, layers = (1, 1) if name == "setr_naive" else (3, 4)
        head = original_head if layout == "original" else openmmlab_head
        sizes |= head("decode_head", kernel, layers)
        for index in range(4 if (layout, name) == ("original", "setr_pup") else 3):
            sizes |= head(f"auxiliary_head.{index}", kernel, 1 if layout == "original" else 2)
    draw = torch.Generator().manual_seed(1)
    state = {}
    for key, size in sizes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
            continue
        state[key] = torch.randn(size, generator=draw) * (size[-1] ** -0.5 if len(size) > 1 else 0.5)
        if key.endswith("running_var"):
            state[key] = state[key].abs() + 0.1
    return state


def write(path, state: dict[str, Tensor], text: str = ""):
    torch.save({"meta": {"config": text}, "state_dict": state}, path)
    return path


@pytest.fixture
def file(tmp_path):
    """Writes a file as published, some of its tensors changed or (None) left out."""

    def make(layout: str, name: str, text: str = "", **changes):
        state = {key: value for key, value in (state_of(layout, name) | changes).items() if value is not None}
        return write(tmp_path / "published.pth", state, text)

    return make


# ---- the formulas


def unit(x: Tensor, w: dict[str, Tensor], convolution: str, norm: str) -> Tensor:
    kernel = w[f"{convolution}.weight"]
    x = F.conv2d(x, kernel, w.get(f"{convolution}.bias"), padding=kernel.shape[-1] // 2)
    parts = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (w[f"{norm}.{part}"][:, None, None] for part in parts)
    return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()


def larger(x: Tensor, factor: int, aligned: bool = False) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=aligned)


def classified(x: Tensor, w: dict[str, Tensor], key: str) -> Tensor:
    kernel = w[f"{key}.weight"]
    return F.conv2d(x, kernel, w.get(f"{key}.bias"), padding=kernel.shape[-1] // 2)


def normed(tokens: Tokens, w: dict[str, Tensor], key: str) -> Tensor:
    x = tokens.patches
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    return (x * w[f"{key}.weight"] + w[f"{key}.bias"]).mT.unflatten(2, tokens.grid)


def up_logits(layout: str, name: str, w: dict[str, Tensor], head: str, tokens: Tokens) -> Tensor:
    """Logits at the size of the image."""
    x, main = normed(tokens, w, f"{head}.norm"), head == "decode_head"
    if layout == "original":
        factors = {("setr_naive", True): (16,), ("setr_naive", False): (16,), ("setr_pup", True): (2,) * 4}
        for index, factor in enumerate(factors.get((name, main), (4,))):
            x = larger(unit(x, w, f"{head}.conv_{index}", f"{head}.syncbn_fc_{index}"), factor)
        x = classified(x, w, f"{head}.conv_{index + 1}")
    else:
        factors = {("setr_naive", True): (4,), ("setr_pup", True): (2,) * 4}
        for index, factor in enumerate(factors.get((name, main), (4, 4))):
            part = f"{head}.up_convs.{index}.0"
            x = larger(unit(x, w, f"{part}.conv", f"{part}.bn"), factor)
        x = classified(x, w, f"{head}.conv_seg")
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear")


def mla_logits(layout: str, w: dict[str, Tensor], levels: list[Tokens]) -> list[Tensor]:
    """Logits at the size of the image, and those of the auxiliary heads from the first block to the last."""
    original, summed, maps, heads, others = layout == "original", 0.0, [], [], []
    for i in (3, 2, 1, 0):  # the deepest first
        if original:
            neck = f"backbone.mla.mla_p{i + 2}"
            summed = summed + unit(normed(levels[i], w, f"backbone.norm_{i}"), w, f"{neck}_1x1.0", f"{neck}_1x1.1")
            maps.append(unit(summed, w, f"{neck}.0", f"{neck}.1"))
            head = f"decode_head.mlahead.head{i + 2}"
            x = unit(unit(maps[-1], w, f"{head}.0", f"{head}.1"), w, f"{head}.3", f"{head}.4")
            others.append(classified(maps[-1], w, f"auxiliary_head.{i}.aux"))
        else:
            part = f"neck.mla.channel_proj.{i}"
            summed = summed + unit(normed(levels[i], w, f"neck.norm.{i}"), w, f"{part}.conv", f"{part}.bn")
            part = f"neck.mla.feat_extract.{3 - i}"
            maps.append(unit(summed, w, f"{part}.conv", f"{part}.bn"))
            x = maps[-1]
            for index in range(2):
                part = f"decode_head.up_convs.{3 - i}.{index}"
                x = unit(x, w, f"{part}.conv", f"{part}.bn")
            others.append(classified(maps[-1], w, f"auxiliary_head.{3 - i}.conv_seg"))
        heads.append(larger(x, 4, aligned=original))
    if original:  # there the first block's channels come first
        logits = classified(torch.cat(heads[::-1], 1), w, "decode_head.cls")
    else:
        logits = classified(torch.cat(heads, 1), w, "decode_head.conv_seg")
    return [F.interpolate(x, (SIDE, SIDE), mode="bilinear") for x in (logits, *others[::-1])]


def taps_of(layout: str, name: str) -> list[int]:
    """The blocks of the auxiliary heads, and then the decoder's, as published in parts of five and four."""
    if name == "setr_mla":
        return [1, 2, 3, 4]
    return [1, 2, 3, 4, 4] if (layout, name) == ("original", "setr_pup") else [1, 2, 3, 4]


@each_file
@torch.inference_mode()
def test_a_published_file_computes_the_published_formula(layout, name, file):
    path = file(layout, name)
    model = LAYOUTS[layout].read(read(path), auxiliary=True)[0].double()
    w = {key: tensor.double() for key, tensor in state_of(layout, name).items()}
    images = torch.randn(2, 3, SIDE, SIDE).double()
    levels = model.encoder.intermediate(images, taps_of(layout, name))
    if name == "setr_mla":
        expected = mla_logits(layout, w, levels)
    else:
        heads = ["decode_head", *(f"auxiliary_head.{index}" for index in range(len(levels) - 1))]
        expected = [up_logits(layout, name, w, h, t) for h, t in zip(heads, levels[-1:] + levels[:-1], strict=True)]
    found = model.outputs(model.forward_auxiliary(images), SIDE, SIDE)
    assert [output.weight for output in found] == [1.0] + [0.4] * (len(expected) - 1)
    for output, logits in zip(found, expected, strict=True):
        pixels = F.interpolate(output.logits, output.geometry.extent, mode="bilinear")
        # In float64, but for the biases, which are taken off the means as the file's float32.
        torch.testing.assert_close(pixels, logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_heads_of_mla_of_another_width(layout, tmp_path):
    state = state_of(layout, "setr_mla", half=3)
    model, _ = LAYOUTS[layout].read(read(write(tmp_path / "published.pth", state)), auxiliary=True)
    assert (model.recipe.decoder.width, model.recipe.decoder.head_width) == (CHANNELS, 3)
    model, images = model.double(), torch.randn(2, 3, SIDE, SIDE).double()
    w = {key: tensor.double() for key, tensor in state.items()}
    expected = mla_logits(layout, w, model.encoder.intermediate(images, taps_of(layout, "setr_mla")))
    found = F.interpolate(model(images), (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=0)
    model.float().save(tmp_path / "ours")
    assert segmenter.load(tmp_path / "ours").recipe.decoder.head_width == 3
    if layout == "openmmlab":
        setr_openmmlab.write(model, tmp_path / "back")
        back = read(tmp_path / "back" / "model.pth")
        assert "mla_channels=3" in back.about["meta"]["cfg"]
        assert all(torch.equal(back.state[key], state[key]) for key in state if key != "backbone.cls_token")


# ---- every key accounted for


@each_file
def test_it_is_said_what_was_used_left_out_and_assumed(layout, name, file):
    model, report = load_published(file(layout, name))
    state = state_of(layout, name)
    assert len(model.decoder.auxiliary) == 0
    assert report.used + len(report.unused) == len(state)
    unused = [key for key in state if key.startswith("auxiliary_head.")]
    unused += [f"decode_head.conv_seg.{kind}" for kind in ("weight", "bias")] if layout == "original" else []
    unused += ["backbone.cls_token"] if name == "setr_mla" else []
    assert report.unused == sorted(unused)
    assumed = " ".join(report.assumed)
    for part in ("blocks whose tokens are read", "1 attention heads", "windows of (64, 64) pixels every (42, 42)",
                 "3 classes without names", "normalisation mean (123.675,", "short side of 64"):  # fmt: skip
        assert part in assumed
    encoder = model.recipe.encoder
    assert (encoder.position_resize, encoder.drop_path, encoder.norm_eps) == ("bilinear", 0.0, 1e-6)


@each_file
def test_as_a_folder_of_our_own_it_is_the_same_bit_for_bit(layout, name, file, tmp_path):
    model, _ = load_published(file(layout, name))
    model.save(tmp_path / "ours")
    assert_same(segmenter.load(tmp_path / "ours"), model)


@each_file
@pytest.mark.parametrize("kind", ["missing", "unknown", "shape", "not finite"])
def test_a_file_that_does_not_fit_is_refused(layout, name, kind, file):
    key = next(key for key in state_of(layout, name) if key.startswith("decode_head.") and key.endswith("running_var"))
    change, text = {
        "missing": ({key: None}, rf"1 of \d+ tensors are missing \({key}\)"),
        "unknown": ({"decode_head.extra": torch.zeros(2)}, r"1 are unknown \(decode_head\.extra\)"),
        "shape": ({key: torch.ones(7)}, rf"{key} is \(7,\) and not \(\d,\)"),
        "not finite": ({key: torch.full_like(state_of(layout, name)[key], torch.nan)}, rf"not finite in {key}"),
    }[kind]
    with pytest.raises(UserError, match=text):
        load_published(file(layout, name, **change))


def test_a_bias_of_another_length_than_its_norm_is_refused(file):
    path = file("original", "setr_naive", **{"decode_head.conv_0.bias": torch.zeros(1)})
    with pytest.raises(
        UserError, match=r"conv_0\.bias is \(1,\), but decode_head\.syncbn_fc_0\.running_mean is \(8,\)"
    ):
        load_published(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_that_is_none_of_setr_s_is_refused(layout, file):
    key = "decode_head.conv_0.weight" if layout == "original" else "decode_head.up_convs.0.0.conv.weight"
    path = file(layout, "setr_naive", **{key: torch.zeros(CHANNELS, WIDTH, 3, 3)})
    text = r"has 1 convolutions, the first of 3 x 3; known .* are 1 of 1 x 1 in setr_naive and 4 of 3 x 3 in setr_pup"
    with pytest.raises(UserError, match=text):
        load_published(path)


# ---- the configuration


def test_the_configuration_of_an_openmmlab_file_is_used(file):
    text = (
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=(2049, 1025))]\n"
        "model = dict(backbone=dict(num_heads=3, out_indices=(0, 1, 2, 3)), decode_head=dict(in_index=3), "
        "auxiliary_head=[dict(in_index=0, loss_decode=dict(loss_weight=0.3)), dict(in_index=1), dict(in_index=2)], "
        "test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(48, 48)))"
    )
    model, report = load_published(file("openmmlab", "setr_naive", text))
    assert model.recipe.decoder.taps == (0, 1, 2, 3)
    assert model.recipe.decoder.auxiliary == 0.3
    assert model.encoder.vit.blocks[0].attn.num_heads == 3
    # What a configuration leaves out is as mmsegmentation has it by default.
    assert (model.recipe.encoder.norm_eps, model.recipe.encoder.position_resize) == (1e-5, "bicubic")
    assert len(model.encoder.vit.blocks) == 4  # the fifth is in the file, and nothing reads it
    assert all(key in report.unused for key in state_of("openmmlab", "setr_naive") if ".layers.4." in key)
    assert (model.recipe.augment.short_side, model.recipe.augment.max_ratio) == (1025, 2049 / 1025)
    assert model.recipe.inference == config.Inference((64, 64), (48, 48))


def test_the_configuration_of_an_original_file_is_used(file):
    heads = ", ".join(f"dict(in_index={index})" for index in (0, 2, 3, 4))
    text = (
        f"model = dict(backbone=dict(num_heads=3), decode_head=dict(in_index=4), auxiliary_head=[{heads}])\n"
        "test_cfg = dict(mode='whole')"
    )
    model, _ = load_published(file("original", "setr_pup", text))
    assert model.recipe.decoder.taps == (0, 2, 3, 4)
    assert model.recipe.inference.window > (10_000, 10_000)
    text = "model = dict(backbone=dict(num_heads=3, mla_index=(0, 1, 2, 4)))"
    model, _ = load_published(file("original", "setr_mla", text))
    assert model.decoder.taps == (0, 1, 2, 4)


@pytest.mark.parametrize(("factor", "layout"), [(4, "openmmlab"), (1, "original"), (16, "original")])
def test_openmmlab_s_naive_may_enlarge_at_once_as_the_original(factor, layout, file):
    text = f"model = dict(decode_head=dict(up_scale={factor}))"
    model, _ = load_published(file("openmmlab", "setr_naive", text))
    assert model.recipe.decoder.variant == layout
    assert model.decoder.upscale == (4 if layout == "openmmlab" else 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("setr_naive", "up_scale=2"), ("setr_pup", "up_scale=4"), ("setr_mla", "align_corners=True")],
)
def test_a_configuration_of_what_no_setr_has_is_refused(name, settings, file):
    with pytest.raises(UserError, match=rf"has a decode_head of up_scale .*; of {name}, up_scale .* are known"):
        load_published(file("openmmlab", name, f"model = dict(decode_head=dict({settings}))"))


# ---- written in OpenMMLab's layout


@each_file
def test_round_trip_in_openmmlab_s_layout(layout, name, file, tmp_path):
    source = file(layout, name)
    if (layout, name) == ("original", "setr_mla"):
        with pytest.raises(UserError, match="aligns corners and classifies 3 x 3 cells, OpenMMLab's does not"):
            convert(source, tmp_path / "out", "openmmlab")
        return
    convert(source, tmp_path / "out", "openmmlab")
    found, model = segmenter.load(tmp_path / "out"), segmenter.load(source)
    assert_same(found, model)
    content = torch.load(tmp_path / "out" / "model.pth", weights_only=True)
    del content["meta"]["vit_segmenter"]  # what OpenMMLab's own files have not
    torch.save(content, tmp_path / "out" / "model.pth")
    found, report = load_published(tmp_path / "out" / "model.pth")
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        assert torch.equal(found(images), model(images))
    assert not [text for text in report.assumed if "short side" not in text]


@pytest.mark.parametrize("name", NAMES)
def test_the_written_file_has_the_published_keys(name, file, tmp_path):
    model, _ = setr_openmmlab.read(read(file("openmmlab", name)), auxiliary=True)
    setr_openmmlab.write(model, tmp_path)
    state = torch.load(tmp_path / "model.pth", weights_only=True)["state_dict"]
    expected = state_of("openmmlab", name)
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype
        if (name, key) != ("setr_mla", "backbone.cls_token"):
            assert torch.equal(state[key], tensor), key


def test_a_model_trained_here_with_its_auxiliary_decoders_is_written(file, tmp_path):
    recipe = load_published(file("original", "setr_pup"))[0].recipe
    recipe.decoder.variant = "original"
    model = Segmenter(recipe, segmenter.load(file("original", "setr_pup")).classes).eval()
    assert len(model.decoder.auxiliary) == 4
    setr_openmmlab.write(model, tmp_path / "out")
    checkpoint = read(tmp_path / "out" / "model.pth")
    assert any(key.startswith("auxiliary_head.3.") for key in checkpoint.state)
    without = Checkpoint(checkpoint.path, checkpoint.state, {"meta": {"cfg": checkpoint.about["meta"]["cfg"]}})
    found, _ = setr_openmmlab.read(without, auxiliary=True)
    images = torch.randn(2, 3, 48, 64)
    with torch.inference_mode():
        for one, other in zip(found.forward_auxiliary(images), model.forward_auxiliary(images), strict=True):
            torch.testing.assert_close(one, other)
