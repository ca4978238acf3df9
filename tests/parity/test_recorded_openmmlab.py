"""Proves that OpenMMLab's Segmenters, old and new files, give the recorded logits, windows and losses."""

import itertools
import math

import pytest
import recorded
import torch
import torch.nn.functional as F
from recorded import largest, note, tensors
from safetensors.torch import load_file

from segmenter import upsample
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.inference.windows import window_logits
from segmenter.published.loading import load_published
from segmenter.published.openmmlab import Configuration

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = recorded.cases("openmmlab")
facts = recorded.facts_of_model
each_case = pytest.mark.parametrize("case", CASES, ids=recorded.name)
MEAN = [123.675, 116.28, 103.53]  # that of the text that is written here
BIAS = "backbone.patch_embed.projection.bias"


def as_source(value: object) -> str:
    """A configuration as the text of Python that the files carry: nested dict(...) calls."""
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={as_source(item)}' for key, item in value.items())})"
    return f"[{', '.join(map(as_source, value))}]" if isinstance(value, list) else repr(value)


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"thing {index}" for index in range(count))


def palette_of(count: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((index % 256, 2 * index % 256, 3 * index % 256) for index in range(count))


def text_of(case) -> str:
    norm = f"img_norm_cfg = dict(mean={MEAN}, std=[58.395, 57.12, 57.375], to_rgb=True)"
    return f"norm_cfg = dict(type='SyncBN')\n{norm}\nmodel = {as_source(facts(case))}\n"


def meta_of(case, version: int) -> dict:
    count = facts(case)["decode_head"]["num_classes"]
    names, palette = list(names_of(count)), [list(color) for color in palette_of(count)]
    if version == 0:
        return {"config": text_of(case), "CLASSES": names, "PALETTE": palette, "epoch": 1}
    return {"cfg": text_of(case), "dataset_meta": {"classes": names, "palette": palette}, "iter": 160000}


@pytest.fixture
def published(tmp_path):
    """Writes a case's weights as a file of mmsegmentation 0.x or 1.x holds them."""

    def write(case, version: int = 1, **changes):
        weights = load_file(case / "weights.safetensors") | changes
        weights = {key: value for key, value in weights.items() if value is not None}
        path = tmp_path / f"version{version}.pth"
        torch.save({"meta": meta_of(case, version), "state_dict": weights, "optimizer": {}}, path)
        return path

    return write


@each_case
@pytest.mark.parametrize("version", [0, 1])
@torch.inference_mode()
def test_logits(case, version, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_published(published(case, version))
    backbone, count = facts(case)["backbone"], facts(case)["decode_head"]["num_classes"]
    logits, size = model(forward["input"]), tuple(forward["input"].shape[-2:])
    note(case, "logits on the grid", largest(logits, forward["decode_logits"]), 1e-4)
    straight = F.interpolate(logits, size, mode="bilinear")  # as there, whatever the size
    note(case, "logits", largest(straight, forward["whole_logits"]), 1e-4)
    if all(side % model.encoder.patch_size == 0 for side in size):
        note(case, "our logits", largest(model.pixel_logits(forward["input"]), forward["whole_logits"]), 1e-4)
    assert model.recipe.encoder.norm_eps == backbone.get("norm_cfg", {}).get("eps", 1e-5)
    assert model.recipe.encoder.position_resize == backbone.get("interpolate_mode", "bicubic")
    assert model.classes == Classes(names_of(count), palette_of(count))
    mean = facts(case).get("data_preprocessor", {}).get("mean", MEAN)
    assert model.mean == pytest.approx([value / 255 for value in mean], abs=1e-6)
    wanted = recorded.unstated(facts(case), recorded.names_in(case / "weights.safetensors")) - {"the normalisation"}
    head = facts(case)["decode_head"]
    if head["type"] == "SegmenterMaskTransformerHead" and "num_heads" not in head:
        wanted.add("attention heads in the decode_head")
    recorded.assert_assumed(report, wanted)
    if "feat_0" in forward:
        found = model.encoder(forward["input"]).patches.mT.unflatten(2, logits.shape[-2:])
        note(case, "encoder tokens", largest(found, forward["feat_0"]), 1e-4)


@each_case
@torch.inference_mode()
def test_sliding_windows(case, published):
    compare_windows(case, load_published(published(case))[0])


def compare_windows(case, model) -> None:
    """Compares the logits and labels of windows, square or not, if there are any in the case."""
    forward = tensors(case / "forward.safetensors")
    if "slide_input" not in forward:
        pytest.skip("the case has no sliding windows")
    window, stride, _ = recorded.about(case)["slide"]
    recorded.with_windows(model, window, stride, enlarge=False)
    logits, geometry = window_logits(model, forward["slide_input"][0], model.recipe.inference)
    found = upsample.logits(logits, geometry)
    note(case, "logits, sliding windows", largest(found[..., ::4, ::4], forward["slide_logits_sub4"]), 1e-4)
    best = found.topk(2, 1).values
    other = upsample.labels(logits, geometry) != forward["slide_argmax"]
    assert not (other & (best[:, 0] - best[:, 1] >= 1e-4)).any()


@each_case
@torch.inference_mode()
def test_loss(case, published):
    # Its loss is divided by all pixels, ignored ones too.
    forward = tensors(case / "forward.safetensors")
    if "loss/decode.loss_ce" not in forward:
        pytest.skip("the case has no losses")
    model, _ = load_published(published(case))
    labels = forward["labels"].long()
    total, _ = upsample.cross_entropy(
        model(forward["input"]), labels, model.geometry(*labels.shape[-2:]), reduction="sum"
    )
    weight = facts(case)["decode_head"].get("loss_decode", {}).get("loss_weight", 1.0)
    error = abs((weight * total / labels.numel()).item() - forward["loss/decode.loss_ce"].item())
    note(case, "loss", error, 1e-5)


@each_case
def test_without_a_configuration_it_is_said_what_was_assumed(case):
    if math.isqrt(positions_of(case)) ** 2 != positions_of(case):
        with pytest.raises(UserError, match=f"has {positions_of(case)} positions, which form no square"):
            load_published(case / "weights.safetensors")
        return
    model, report = load_published(case / "weights.safetensors")
    assumed = " ".join(report.assumed)
    for part in ("attention heads in the backbone", "windows of", "classes without names", "normalisation"):
        assert part in assumed
    assert model.recipe.encoder.position_resize == "bicubic"
    assert model.recipe.encoder.norm_eps == 1e-6


def positions_of(case) -> int:
    return load_file(case / "weights.safetensors")["backbone.pos_embed"].shape[1] - 1


@each_case
@torch.inference_mode()
def test_the_bias_of_the_patches_is_used_where_it_is(case, published):
    bias = load_file(case / "weights.safetensors").get(BIAS)
    if bias is None:
        pytest.skip("the case has none")
    images = tensors(case / "forward.safetensors")["input"]
    with_bias, _ = load_published(published(case))
    zero, _ = load_published(published(case, **{BIAS: torch.zeros_like(bias)}))
    without, report = load_published(published(case, **{BIAS: None}))
    assert any(BIAS in text for text in report.assumed) is (facts(case)["backbone"].get("patch_bias") is not False)
    assert torch.equal(without(images), zero(images))
    assert not torch.equal(with_bias(images), without(images))


@each_case
@pytest.mark.parametrize("kind", ["missing", "unknown", "shape", "not finite", "positions"])
def test_a_file_that_does_not_fit_is_refused(case, published, kind):
    norm = load_file(case / "weights.safetensors")["backbone.ln1.bias"]
    width, other = norm.numel(), norm.numel() + 1
    uneven = next(n for n in itertools.count(positions_of(case) + 1) if math.isqrt(n) ** 2 != n)
    changes, text = {
        "missing": (
            {"backbone.ln1.weight": None, "backbone.layers.0.ln1.bias": None}, r"2 of \d+ tensors are missing \(",
        ),
        "unknown": ({"backbone.extra": torch.zeros(1)}, r"1 are unknown \(backbone\.extra\)"),
        "shape": (
            {"backbone.layers.0.ln1.bias": torch.zeros(other)},
            rf"layers\.0\.ln1\.bias is \({other},\) and not \({width},\)",
        ),
        "not finite": (
            {"backbone.ln1.bias": torch.full((width,), torch.nan)},
            rf"{width} values that are not finite in backbone\.ln1\.bias",
        ),
        "positions": (
            {"backbone.pos_embed": torch.zeros(1, 1 + uneven, width)},
            f"has {uneven} positions, which form no square",
        ),
    }[kind]  # fmt: skip
    with pytest.raises(UserError, match=text) as error:
        load_published(published(case, **changes))
    assert "\n" not in str(error.value)


@each_case
def test_another_head_is_another_layout(case, published):
    path = published(case, **{"decode_head.up_convs.0.0.conv.weight": torch.zeros(1, 1, 1, 1)})
    with pytest.raises(UserError, match=r"1 are unknown \(decode_head\.up_convs|OpenMMLab's SETR, but \d+ of"):
        load_published(path)


def test_a_configuration_is_parsed_and_never_run(tmp_path):
    marker = tmp_path / "executed"
    text = (
        f"open({str(marker)!r}, 'w').close()\nimport os\nmodel = dict(backbone=dict(num_heads=4, img_size=(64, 96), "
        f"bad=open({str(marker)!r}, 'w')), test_cfg=dict(mode='slide', crop_size=64, stride=[48, -1]))\n"
    )
    found = Configuration({"cfg": text})
    assert found.natural("model.backbone.num_heads") == 4
    assert found.pair("model.backbone.img_size") == (64, 96)
    assert found.pair("model.test_cfg.crop_size") == (64, 64)
    assert found.pair("model.test_cfg.stride") is None
    assert found.find("model.backbone.bad") is None
    assert not marker.exists()
    for broken in ("model = dict(", "(" * 5000, "\0", "model = " + "-" * 100000 + "1"):
        assert Configuration({"cfg": broken}).find("model") is None
