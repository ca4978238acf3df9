"""Proves that published Segmenters give the recorded logits, encoder tokens and attention of the original code."""

import math

import pytest
import recorded
import torch
from recorded import largest, note, tensors

import segmenter
from segmenter.inspection.captured import capturing

pytestmark = pytest.mark.usefixtures("one_thread")

FORWARD = recorded.cases("forward")
INPUTS = [(case, tag) for case in FORWARD for tag in recorded.tags(case)]
ATTENTION = [
    (case, key) for case in FORWARD for key in recorded.names_in(case / "forward.safetensors") if ".attn_" in key
]


def test_there_are_cases():
    assert any(recorded.cases(kind) for kind in ("forward", "checkpoint", "openmmlab")), f"none in {recorded.ROOT}"


@pytest.mark.parametrize("folder", recorded.unknown(), ids=recorded.name)
def test_kinds_of_cases_that_are_not_compared(folder):
    pytest.skip(f"{folder}: a kind of case that no parity test knows")


@pytest.mark.parametrize(("case", "tag"), INPUTS, ids=lambda value: value if isinstance(value, str) else value.name)
@torch.inference_mode()
def test_logits(case, tag):
    forward, model = tensors(case / "forward.safetensors"), recorded.original(case)
    images, expected = forward[f"{tag}.input"], forward[f"{tag}.logits"]
    encoder, grid = model.encoder, model.encoder.grid(*images.shape[-2:])
    if grid != encoder.table_grid and math.prod(grid) == math.prod(encoder.table_grid):
        # The original resamples its positions only where their number differs, so that an image of as many patches
        # in another shape gets them in the wrong places. We resample; its behaviour is that of a table of that shape.
        assert largest(model.pixel_logits(images), expected) > 1e-4
        encoder.table_grid = grid
    note(case, f"logits of {tag}", largest(model.pixel_logits(images), expected), 1e-4)


@pytest.mark.parametrize("case", FORWARD, ids=recorded.name)
@torch.inference_mode()
def test_encoder_tokens(case):
    forward, model = tensors(case / "forward.safetensors"), recorded.original(case)
    for tag in recorded.tags(case):
        if f"{tag}.encoder" in forward:
            found = model.encoder(forward[f"{tag}.input"])
            together = torch.cat([found.prefix, found.patches], 1)
            note(case, f"encoder tokens of {tag}", largest(together, forward[f"{tag}.encoder"]), 1e-4)


@pytest.mark.parametrize(("case", "key"), ATTENTION, ids=lambda value: value if isinstance(value, str) else value.name)
def test_attention(case, key):
    forward, model = tensors(case / "forward.safetensors"), recorded.original(case)
    tag, part, block = key.rsplit(".", 2)
    part = {"attn_enc": "encoder", "attn_dec": "decoder"}[part]
    calls = {}
    with capturing(model, lambda call: calls.update({(call.part, call.block): call})), torch.inference_mode():
        model(forward[f"{tag}.input"])
    found = calls[part, int(block)].rows(slice(None))  # B heads T T
    assert (found.sum(-1) - 1).abs().max() < 1e-5
    note(case, f"attention of {part} block {block}", largest(found, forward[key]), 1e-4)
    with torch.inference_mode():  # the model is as it was
        found = model.pixel_logits(forward[f"{tag}.input"])
    assert largest(found, forward[f"{tag}.logits"]) <= 1e-4


@pytest.mark.parametrize("case", recorded.cases("checkpoint"), ids=recorded.name)
@torch.inference_mode()
def test_a_checkpoint_as_the_original_writes_it(case):
    forward, model = tensors(case / "forward.safetensors"), segmenter.load(case)
    for tag in recorded.tags(case):
        found = model.pixel_logits(forward[f"{tag}.input"])
        note(case, f"logits of {tag}", largest(found, forward[f"{tag}.logits"]), 1e-4)
