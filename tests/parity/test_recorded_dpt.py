"""Proves that DPT's published implementations and ours agree on recorded logits, depth, maps, tokens and losses."""

import json

import pytest
import recorded
import torch
from recorded import largest, note, tensors
from safetensors.torch import load_file, save_file
from test_recorded_openmmlab import as_source
from torch import Tensor

from segmenter import upsample
from segmenter.checkpoints.reading import read
from segmenter.published import dpt_openmmlab, dpt_original, dpt_smp, huggingface
from segmenter.published.loading import load_published, load_with_report

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = recorded.cases("dpt")
each_case = pytest.mark.parametrize("case", CASES, ids=recorded.name)
LAYOUTS = {"huggingface": huggingface, "isl-org": dpt_original, "mmseg": dpt_openmmlab, "smp": dpt_smp}
HEADS = "3"  # of the recorded encoders; the original's and smp's files do not say
ASSUMED = {
    "huggingface": ["images with a short side", "the normalisation"],
    "isl-org": ["a square crop", "images with a short side", "the published blocks", "the normalisation"],
    "mmseg": ["images with a short side", "the normalisation"],
    "smp": ["a square crop", "images with a short side", "the normalisation"],
}


@pytest.fixture
def published(tmp_path):
    """A case as a published file, with what lies beside it."""

    def write(case):
        facts = recorded.about(case)
        if facts["layout"] == "huggingface":
            return case
        weights = load_file(case / "weights.safetensors")
        if facts["layout"] == "mmseg":
            meta = {"cfg": f"model = {as_source(facts['model'])}\n"}
            torch.save({"meta": meta, "state_dict": weights}, tmp_path / "published.pth")
            return tmp_path / "published.pth"
        save_file(weights, tmp_path / "model.safetensors", {"num_heads": HEADS})
        if facts["layout"] == "smp":
            names = ("encoder_name", "decoder_readout", "encoder_output_indices")
            (tmp_path / "config.json").write_text(json.dumps({name: facts[name] for name in names}))
        return tmp_path / "model.safetensors"

    return write


def images_of(forward: dict[str, Tensor]) -> Tensor:
    return forward["input" if "input" in forward else "pixel_values"]


def assert_known(report, case) -> None:
    """What is assumed is what the layout's files never say, besides names of classes."""
    assumed = [text for text in report.assumed if "without names" not in text]
    wanted = ASSUMED[recorded.about(case)["layout"]]
    assert len(assumed) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(assumed, wanted, strict=True)), assumed


@each_case
@torch.inference_mode()
def test_pixels(case, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_with_report(published(case))
    assert_known(report, case)
    images = images_of(forward)
    found = model.pixel_logits(images)
    if "predicted_depth" in forward:
        note(case, "depth", largest(found[:, 0], forward["predicted_depth"]), 1e-4)
    else:
        expected = forward["whole_logits" if "whole_logits" in forward else "logits"]
        note(case, "logits", largest(found, expected), 1e-4)
    if "decode_logits" in forward:
        note(case, "logits on the grid", largest(model(images), forward["decode_logits"]), 1e-4)
    if "argmax_upsampled_bicubic" in forward:
        wanted = forward["argmax_upsampled_bicubic"]
        labels = torch.nn.functional.interpolate(found, wanted.shape[1:], mode="bicubic").argmax(1)
        assert (labels != wanted).float().mean() < 1e-3


@each_case
@torch.inference_mode()
def test_tokens_and_maps(case, published):
    forward = tensors(case / "forward.safetensors")
    model, _ = load_published(file_of(published(case)))
    levels = model.encoder.intermediate(images_of(forward), model.decoder.taps)
    for index, level in enumerate(levels):
        whole = torch.cat([level.prefix, level.patches], 1)
        as_map = level.patches.mT.unflatten(2, level.grid)
        recorded_as = {
            f"hidden_state_{model.decoder.taps[index] + 1}": whole,
            f"block_out_{index + 1}": whole,
            f"feat_{index}": as_map,
            f"feature_{index}": as_map,
            f"cls_{index}": level.prefix[:, 0],
            f"prefix_{index}": level.prefix,
            f"reassembled_{index}": model.decoder.reassemble[index](level),
        }
        for key, found in recorded_as.items():
            if key in forward:
                note(case, key, largest(found, forward[key]), 1e-4)
    for index, found in enumerate(reversed(model.decoder.fuse(levels))):
        if f"neck_{index}" in forward:
            note(case, f"neck_{index}", largest(found, forward[f"neck_{index}"]), 1e-4)


@each_case
@torch.inference_mode()
def test_auxiliary_logits_and_losses(case, published):
    forward = tensors(case / "forward.safetensors")
    if "labels" not in forward:
        pytest.skip("the case has no labels")
    images, labels = images_of(forward), forward["labels"].long()
    model, _ = LAYOUTS[recorded.about(case)["layout"]].read(read(file_of(published(case))), auxiliary=True)
    logits = model.forward_auxiliary(images)
    if "aux_logits" in forward:
        note(case, "auxiliary logits", largest(logits[1], forward["aux_logits"]), 1e-4)
    outputs = model.outputs(logits, *images.shape[-2:])
    sums = [upsample.cross_entropy(o.logits, labels, o.geometry, reduction="sum") for o in outputs]
    if "loss" in forward:  # mean over the valid pixels
        total = sum(output.weight * loss / count for output, (loss, count) in zip(outputs, sums, strict=True))
        note(case, "loss", abs(total - forward["loss"]).item(), 1e-5)
    if "loss/decode.loss_ce" in forward:  # divided by all pixels, ignored ones too
        note(case, "loss", abs(sums[0][0] / labels.numel() - forward["loss/decode.loss_ce"]).item(), 1e-5)


def file_of(path):
    return path / "model.safetensors" if path.is_dir() else path
