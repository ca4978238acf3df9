"""Proves that DPT's published implementations and ours agree on recorded logits, depth, maps, tokens and losses."""

import json

import pytest
import recorded
import torch
import torch.nn.functional as F
from recorded import largest, note, tensors
from safetensors.torch import load_file, save_file
from test_recorded_openmmlab import as_source
from torch import Tensor

from segmenter import upsample
from segmenter.checkpoints.reading import read
from segmenter.model.timm_models import timm
from segmenter.published import dpt_openmmlab, dpt_original, dpt_smp, huggingface
from segmenter.published.loading import load_published, load_with_report

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = recorded.cases("dpt")
each_case = pytest.mark.parametrize("case", CASES, ids=recorded.name)
LAYOUTS = {
    "huggingface": (huggingface, {"auxiliary": True}),
    "isl-org": (dpt_original, {"auxiliary": True}),
    "mmseg": (dpt_openmmlab, {}),
    "smp": (dpt_smp, {}),
}
SMP_HEADS = {"tu-vit_golden_a": 3}  # of encoders that timm has not, where the case does not say them as `heads`
SHAPE = {"images with a short side", "the normalisation"}
SQUARE = SHAPE | {"a square crop"}


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
        beside = {"num_heads": facts.get("heads") or SMP_HEADS[facts["encoder_name"]]}
        if facts["layout"] == "isl-org":
            beside |= {name: facts[name] for name in ("hooks", "readout")}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in beside.items()}
        save_file(weights, tmp_path / "model.safetensors", texts)
        if facts["layout"] == "smp":
            names = ("encoder_name", "decoder_readout", "encoder_output_indices")
            (tmp_path / "config.json").write_text(json.dumps({name: facts[name] for name in names}))
        return tmp_path / "model.safetensors"

    return write


def images_of(forward: dict[str, Tensor]) -> Tensor:
    return forward["input" if "input" in forward else "pixel_values"]


def unstated(case) -> set[str]:
    """What the files of the case's layout do not say, besides names of classes."""
    facts = recorded.about(case)
    if facts["layout"] == "huggingface":
        return set() if (case / "preprocessor_config.json").is_file() else SHAPE
    if facts["layout"] == "mmseg":
        names = recorded.names_in(case / "weights.safetensors")
        return recorded.unstated(facts["model"], names)
    if facts["layout"] == "smp" and timm.is_model(facts["encoder_name"].removeprefix("tu-")):
        return SQUARE - {"the normalisation"}
    return SQUARE


@each_case
@torch.inference_mode()
def test_pixels(case, published):
    forward = tensors(case / "forward.safetensors")
    model, report = load_with_report(published(case))
    recorded.assert_assumed(report, unstated(case))
    images = images_of(forward)
    size, extent = tuple(images.shape[-2:]), model.geometry(*images.shape[-2:]).extent
    found = model.pixel_logits(images)
    depth = "predicted_depth" in forward
    if depth:
        expected = forward["predicted_depth"][:, None]
    else:
        expected = forward["whole_logits" if "whole_logits" in forward else "logits"]
    if expected.shape[-2:] != size:  # on odd grids Hugging Face's end beyond the image
        expected = F.interpolate(expected, size, mode="bilinear")
    if size == extent:
        note(case, "depth" if depth else "logits", largest(found, expected), 1e-4)
    if "decode_logits" in forward:
        note(case, "logits on the grid", largest(model(images), forward["decode_logits"]), 1e-4)
        straight = F.interpolate(model(images), size, mode="bilinear")
        note(case, "logits, enlarged as there", largest(straight, expected), 1e-4)
    if "argmax_upsampled_bicubic" in forward:
        wanted = forward["argmax_upsampled_bicubic"]
        labels = F.interpolate(found, wanted.shape[1:], mode="bicubic").argmax(1)
        assert (labels != wanted).float().mean() < 1e-3


@each_case
@torch.inference_mode()
def test_tokens_and_maps(case, published):
    forward = tensors(case / "forward.safetensors")
    model, _ = load_published(file_of(published(case)))
    images, encoder = images_of(forward), model.encoder
    for block, level in enumerate(encoder.intermediate(images, range(encoder.depth))):
        if (key := f"hidden_state_{block + 1}") in forward:
            note(case, key, largest(torch.cat([level.prefix, level.patches], 1), forward[key]), 1e-4)
    levels = encoder.intermediate(images, model.decoder.taps, model.decoder.stages)
    for index, level in enumerate(levels):
        whole = torch.cat([level.prefix, level.patches], 1)
        as_map = level.patches.mT.unflatten(2, level.grid)
        recorded_as = {
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
    layout, auxiliary = LAYOUTS[recorded.about(case)["layout"]]
    model, _ = layout.read(read(file_of(published(case))), **auxiliary)
    logits = model.forward_auxiliary(images)
    if "aux_logits" in forward:
        note(case, "auxiliary logits", largest(logits[1], forward["aux_logits"]), 1e-4)
    outputs = model.outputs(logits, *images.shape[-2:])
    sums = [upsample.cross_entropy(o.logits, labels, o.geometry, reduction="sum") for o in outputs]
    if "loss" in forward:  # mean over the valid pixels
        total = sum(output.weight * loss / count for output, (loss, count) in zip(outputs, sums, strict=True))
        note(case, "loss", abs(total - forward["loss"]).item(), 1e-5)
    if "loss/decode.loss_ce" in forward:  # divided by all pixels, ignored ones too
        head = recorded.about(case)["model"]["decode_head"]
        total = head.get("loss_decode", {}).get("loss_weight", 1.0) * sums[0][0] / labels.numel()
        note(case, "loss", abs(total - forward["loss/decode.loss_ce"]).item(), 1e-5)


def file_of(path):
    return path / "model.safetensors" if path.is_dir() else path
