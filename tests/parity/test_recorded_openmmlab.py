"""Proves that OpenMMLab's Segmenters, old and new files, give the recorded logits, windows and losses."""

import pytest
import recorded
import torch
from recorded import largest, note, tensors
from safetensors.torch import load_file

from segmenter import upsample
from segmenter.checkpoints.reading import read
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.inference.windows import window_logits
from segmenter.published.loading import load_published
from segmenter.published.openmmlab import Configuration

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = recorded.cases("openmmlab")
each_case = pytest.mark.parametrize("case", CASES, ids=recorded.name)
NAMES = ("wall", "floor", "sky", "door", "tree", "lamp", "sea", "bed")


def as_source(value: object) -> str:
    """A configuration as the text of Python that the files carry: nested dict(...) calls."""
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={as_source(item)}' for key, item in value.items())})"
    return f"[{', '.join(map(as_source, value))}]" if isinstance(value, list) else repr(value)


def text_of(case) -> str:
    norm = "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)"
    return f"norm_cfg = dict(type='SyncBN')\n{norm}\nmodel = {as_source(recorded.about(case)['model'])}\n"


def meta_of(case, version: int, count: int) -> dict:
    names, palette = list(NAMES[:count]), [[i, 2 * i, 3 * i] for i in range(count)]
    if version == 0:
        return {"config": text_of(case), "CLASSES": names, "PALETTE": palette, "epoch": 1}
    return {"cfg": text_of(case), "dataset_meta": {"classes": names, "palette": palette}, "iter": 160000}


@pytest.fixture
def published(tmp_path):
    """Writes a case's weights as a file of mmsegmentation 0.x or 1.x holds them."""

    def write(case, version: int = 1, **changes):
        weights = load_file(case / "weights.safetensors") | changes
        weights = {key: value for key, value in weights.items() if value is not None}
        count = weights["decode_head.conv_seg.bias" if "fcn" in case.name else "decode_head.mask_norm.bias"].numel()
        path = tmp_path / f"version{version}.pth"
        torch.save({"meta": meta_of(case, version, count), "state_dict": weights, "optimizer": {}}, path)
        return path

    return write


@each_case
@pytest.mark.parametrize("version", [0, 1])
@torch.inference_mode()
def test_logits(case, version, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_published(published(case, version))
    facts = recorded.about(case)["model"]
    logits = model(forward["input"])
    note(case, "logits on the grid", largest(logits, forward["decode_logits"]), 1e-4)
    note(case, "logits", largest(model.pixel_logits(forward["input"]), forward["whole_logits"]), 1e-4)
    assert model.recipe.encoder.norm_eps == facts["backbone"]["norm_cfg"]["eps"]
    assert model.recipe.encoder.position_resize == facts["backbone"]["interpolate_mode"]
    assert model.classes == Classes(
        NAMES[: len(model.classes)], tuple((i, 2 * i, 3 * i) for i in range(len(model.classes)))
    )
    assert model.mean == pytest.approx((0.485, 0.456, 0.406), abs=1e-6)
    assert not [text for text in report.assumed if "short side" not in text]
    found = model.encoder(forward["input"]).patches.mT.unflatten(2, logits.shape[-2:])
    note(case, "encoder tokens", largest(found, forward["feat_0"]), 1e-4)


@each_case
@torch.inference_mode()
def test_sliding_windows(case, published):
    forward, facts = tensors(case / "forward.safetensors"), recorded.about(case)
    if "slide_input" not in forward:
        pytest.skip("the case has no sliding windows")
    model, _ = load_published(published(case))
    window, stride, _ = facts["slide"]
    recorded.with_windows(model, window[0], stride[0], enlarge=False)
    logits, geometry = window_logits(model, forward["slide_input"][0], model.recipe.inference)
    found, step = upsample.logits(logits, geometry), 4
    error = largest(found[..., ::step, ::step], forward["slide_logits_sub4"])
    note(case, "logits, sliding windows", error, 1e-4)
    best = found.topk(2, 1).values
    other = found.argmax(1) != forward["slide_argmax"]
    assert not (other & (best[:, 0] - best[:, 1] >= 1e-4)).any()


@each_case
@torch.inference_mode()
def test_loss(case, published):
    # Its loss is divided by all pixels, ignored ones too.
    forward = tensors(case / "forward.safetensors")
    model, _ = load_published(published(case))
    labels = forward["labels"].long()
    total, _ = upsample.cross_entropy(
        model(forward["input"]), labels, model.geometry(*labels.shape[-2:]), reduction="sum"
    )
    error = abs((total / labels.numel()).item() - forward["loss/decode.loss_ce"].item())
    note(case, "loss", error, 1e-5)


@each_case
def test_without_a_configuration_it_is_said_what_was_assumed(case):
    model, report = load_published(case / "weights.safetensors")
    assumed = " ".join(report.assumed)
    for part in ("attention heads in the backbone", "windows of", "classes without names", "normalisation"):
        assert part in assumed
    assert model.recipe.encoder.position_resize == "bicubic"
    assert model.recipe.encoder.norm_eps == 1e-6


@each_case
@torch.inference_mode()
def test_the_bias_of_the_patches_is_used_where_it_is(case, published):
    key = "backbone.patch_embed.projection.bias"
    images = tensors(case / "forward.safetensors")["input"]
    with_bias, _ = load_published(published(case))
    zero, _ = load_published(published(case, **{key: torch.zeros_like(read(published(case)).state[key])}))
    without, report = load_published(published(case, **{key: None}))
    assert any(key in text for text in report.assumed)
    assert torch.equal(without(images), zero(images))
    assert (with_bias(images) - without(images)).abs().max() > 1e-3


@each_case
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backbone.ln1.weight": None, "backbone.layers.0.ln1.bias": None}, r"2 of \d+ tensors are missing \("),
        ({"backbone.extra": torch.zeros(1)}, r"1 are unknown \(backbone\.extra\)"),
        ({"backbone.layers.1.ln1.bias": torch.zeros(7)}, r"layers\.1\.ln1\.bias is \(7,\), not as \(32,\) asks for"),
        ({"backbone.ln1.bias": torch.full((32,), torch.nan)}, r"32 values that are not finite in backbone\.ln1\.bias"),
        ({"backbone.pos_embed": torch.zeros(1, 16, 32)}, "has 15 positions, which form no square"),
    ],
    ids=["missing", "unknown", "shape", "not finite", "positions"],
)
def test_a_file_that_does_not_fit_is_refused(case, published, changes, text):
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
