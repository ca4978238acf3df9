"""Proves that the published SETRs and ours agree on recorded logits, auxiliary logits, windows and losses."""

import pytest
import recorded
import torch
import torch.nn.functional as F
from recorded import largest, note, tensors
from safetensors.torch import load_file
from test_recorded_openmmlab import as_source
from torch import Tensor

from segmenter import upsample
from segmenter.checkpoints.reading import read
from segmenter.inference.windows import window_logits
from segmenter.published import setr_openmmlab, setr_original
from segmenter.published.loading import load_published

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = recorded.cases("setr")
each_case = pytest.mark.parametrize("case", CASES, ids=recorded.name)


def configuration(case) -> dict:
    """The model's part of the configuration that a published file carries."""
    facts = recorded.about(case)
    if facts["layout"] == "mmseg":
        return facts["model"]
    blocks = facts["index"]
    heads = blocks if facts["kind"] == "pup" else blocks[:-1]  # PUP has an auxiliary head on the last block too
    return {
        "backbone": {"num_heads": facts["heads"], "img_size": facts["img_size"], "mla_index": blocks},
        "decode_head": {"in_index": blocks[-1]},
        "auxiliary_head": [{"in_index": block} for block in heads],
    }


@pytest.fixture
def published(tmp_path):
    """A case as a published file."""

    def write(case):
        content = {"state_dict": load_file(case / "weights.safetensors")}
        content["meta"] = {"config": f"model = {as_source(configuration(case))}\n"}
        torch.save(content, tmp_path / "published.pth")
        return tmp_path / "published.pth"

    return write


def with_auxiliary(path) -> torch.nn.Module:
    layout = setr_original if setr_original.recognise(read(path).state) else setr_openmmlab
    return layout.read(read(path), auxiliary=True)[0]


def auxiliary(case, forward: dict[str, Tensor], prefix: str, suffix: str = "") -> list[Tensor]:
    """Recorded values of the auxiliary heads in our order; OpenMMLab counts those of MLA from the deepest block."""
    count = sum(key.startswith("aux_logits_") for key in forward)
    found = [forward[f"{prefix}{index}{suffix}"] for index in range(count)]
    return found[::-1] if configuration(case).get("neck") else found


def on_pixels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear")


@each_case
@torch.inference_mode()
def test_logits(case, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_published(published(case))
    expected = forward["whole_logits" if "whole_logits" in forward else "logits"]
    note(case, "logits", largest(model.pixel_logits(forward["input"]), expected), 1e-4)
    if "decode_logits" in forward:
        logits = on_pixels(model(forward["input"]), forward["decode_logits"].shape[-2:])
        note(case, "logits before the enlargement", largest(logits, forward["decode_logits"]), 1e-4)
    assert len(model.decoder.auxiliary) == 0
    assert any(key.startswith("auxiliary_head.") for key in report.unused)
    assert not any("blocks whose tokens are read" in text for text in report.assumed)


@each_case
@torch.inference_mode()
def test_auxiliary_logits(case, published):
    forward = tensors(case / "forward.safetensors")
    model, size = with_auxiliary(published(case)), tuple(forward["input"].shape[-2:])
    _, *found = model.outputs(model.forward_auxiliary(forward["input"]), *size)
    for output, expected in zip(found, auxiliary(case, forward, "aux_logits_"), strict=True):
        pixels = upsample.logits(output.logits, output.geometry)
        note(case, f"{output.name} logits", largest(pixels, on_pixels(expected, size)), 1e-4)


@each_case
@torch.inference_mode()
def test_losses(case, published):
    # Theirs are divided by all pixels, ignored ones too.
    forward = tensors(case / "forward.safetensors")
    if "labels" not in forward:
        pytest.skip("the case has no losses")
    model, labels = with_auxiliary(published(case)), forward["labels"].long()
    found = model.outputs(model.forward_auxiliary(forward["input"]), *labels.shape[-2:])
    recorded_losses = [forward["loss/decode.loss_ce"], *auxiliary(case, forward, "loss/aux_", ".loss_ce")]
    for output, expected in zip(found, recorded_losses, strict=True):
        total, _ = upsample.cross_entropy(output.logits, labels, output.geometry, reduction="sum")
        note(case, f"{output.name} loss", abs(output.weight * total / labels.numel() - expected).item(), 1e-5)


@each_case
@torch.inference_mode()
def test_sliding_windows(case, published):
    forward = tensors(case / "forward.safetensors")
    if "slide_input" not in forward:
        pytest.skip("the case has no sliding windows")
    model, _ = load_published(published(case))
    window, stride, _ = recorded.about(case)["slide"]
    recorded.with_windows(model, window[0], stride[0], enlarge=False)
    logits, geometry = window_logits(model, forward["slide_input"][0], model.recipe.inference)
    pixels = upsample.logits(logits, geometry)
    note(case, "logits, sliding windows", largest(pixels[..., ::4, ::4], forward["slide_logits_sub4"]), 1e-4)
    best = pixels.topk(2, 1).values
    other = upsample.labels(logits, geometry) != forward["slide_argmax"]
    assert not (other & (best[:, 0] - best[:, 1] >= 1e-4)).any()
