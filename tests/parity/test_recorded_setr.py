"""Proves that the published SETRs and ours agree on recorded logits, auxiliary logits, windows and losses."""

import pytest
import recorded
import torch
import torch.nn.functional as F
from recorded import largest, note, tensors
from safetensors.torch import load_file
from test_recorded_openmmlab import as_source, compare_windows
from torch import Tensor

from segmenter import upsample
from segmenter.checkpoints.reading import read
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
    layout = setr_original if setr_original.recognize(read(path).state) else setr_openmmlab
    return layout.read(read(path), auxiliary=True)[0]


def recorded_in_order(case, prefix: str, suffix: str = "") -> list[Tensor]:
    """Values of the auxiliary heads in our order; OpenMMLab counts those of MLA from the deepest block."""
    forward, found = tensors(case / "forward.safetensors"), []
    while (key := f"{prefix}{len(found)}{suffix}") in forward:
        found.append(forward[key])
    return found[::-1] if configuration(case).get("neck") else found


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear")


@each_case
@torch.inference_mode()
def test_logits(case, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_published(published(case))
    images, weights = forward["input"], recorded.names_in(case / "weights.safetensors")
    expected = forward["whole_logits" if "whole_logits" in forward else "logits"]
    size, extent = tuple(images.shape[-2:]), model.geometry(*images.shape[-2:]).extent
    if size == extent:
        note(case, "logits", largest(model.pixel_logits(images), expected), 1e-4)
    if "decode_logits" in forward:  # on a grid of theirs, which may be finer than ours and be cut otherwise
        logits = enlarged(model(images), forward["decode_logits"].shape[-2:])
        note(case, "logits before the enlargement", largest(logits, forward["decode_logits"]), 1e-4)
        note(case, "logits, enlarged as there", largest(enlarged(logits, size), expected), 1e-4)
    assert len(model.decoder.auxiliary) == 0
    left_out = [key for key in weights if key.startswith("auxiliary_head.")]
    assert set(left_out) <= set(report.unused)
    if recorded.about(case)["layout"] == "mmseg":
        recorded.assert_assumed(report, recorded.unstated(configuration(case), weights))
    assert not any("blocks whose tokens are read" in text for text in report.assumed)


@each_case
@torch.inference_mode()
def test_what_the_head_reads(case, published):
    forward = tensors(case / "forward.safetensors")
    model, images = with_auxiliary(published(case)), forward["input"]
    taps = sorted({*model.decoder.auxiliary_taps, *model.decoder.taps})
    levels = model.encoder.intermediate(images, range(model.encoder.depth))
    blocks = [level.patches.mT.unflatten(2, level.grid) for level in levels]
    found = {f"block_{i}": torch.cat([level.prefix, level.patches], 1) for i, level in enumerate(levels)}
    if model.recipe.decoder.name == "setr_mla":
        maps = model.decoder._maps([levels[tap] for tap in taps])
        found = {f"mla_p{i + 2}": map_ for i, map_ in enumerate(maps)}
        found |= {f"feat_{i}": map_ for i, map_ in enumerate(reversed(maps))}
        found |= {f"backbone_{i}": blocks[tap] for i, tap in enumerate(taps)}
    else:
        found |= {f"feat_{i}": blocks[tap] for i, tap in enumerate(taps)}
    compared = found.keys() & forward.keys()
    for key in sorted(compared):
        note(case, key, largest(found[key], forward[key]), 1e-4)
    assert compared == {key for key in forward if key.startswith(("block_", "mla_", "feat_", "backbone_"))}


@each_case
@torch.inference_mode()
def test_auxiliary_logits(case, published):
    forward, expected = tensors(case / "forward.safetensors"), recorded_in_order(case, "aux_logits_")
    if not expected:
        pytest.skip("the case has no auxiliary logits")
    model, size = with_auxiliary(published(case)), tuple(forward["input"].shape[-2:])
    _, *found = model.outputs(model.forward_auxiliary(forward["input"]), *size)
    for output, logits in zip(found, expected, strict=True):
        extent = output.geometry.extent
        error = largest(enlarged(output.logits, extent), enlarged(logits, extent))
        note(case, f"{output.name} logits", error, 1e-4)


@each_case
@torch.inference_mode()
def test_losses(case, published):
    # Theirs are divided by all pixels, ignored ones too.
    forward = tensors(case / "forward.safetensors")
    if "loss/decode.loss_ce" not in forward:
        pytest.skip("the case has no losses")
    model, labels = with_auxiliary(published(case)), forward["labels"].long()
    found = model.outputs(model.forward_auxiliary(forward["input"]), *labels.shape[-2:])
    losses = [forward["loss/decode.loss_ce"], *recorded_in_order(case, "loss/aux_", ".loss_ce")]
    for output, expected in zip(found, losses, strict=True):
        total, _ = upsample.cross_entropy(output.logits, labels, output.geometry, reduction="sum")
        note(case, f"{output.name} loss", abs(output.weight * total / labels.numel() - expected).item(), 1e-5)


@each_case
@torch.inference_mode()
def test_sliding_windows(case, published):
    compare_windows(case, load_published(published(case))[0])
