"""Proves that published encoders (Google's .npz, DeiT's .pth) become the recorded ones in another image size."""

import json

import numpy as np
import pytest
import recorded
import torch
from recorded import largest, note, tensors
from safetensors.torch import save_file

from segmenter import config
from segmenter.errors import UserError
from segmenter.model.encoder import Encoder
from segmenter.published.variant import NORM_EPS

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONES = recorded.cases("backbones")
FILES = [(case, path) for case in BACKBONES for path in sorted(case.iterdir()) if path.suffix in (".npz", ".pth")]
each_file = pytest.mark.parametrize(("case", "path"), FILES, ids=lambda path: path.name)
GOOGLE = [(case, path) for case, path in FILES if path.suffix == ".npz"]
google_file = pytest.mark.parametrize(("case", "path"), GOOGLE, ids=lambda path: path.name)


def encoder(case, path, **changes) -> tuple[Encoder, str]:
    """An encoder of the case's sizes from a file, and the kind it is."""
    facts = recorded.metadata(case / "expected.safetensors")
    kind = "vit" if path.suffix == ".npz" else "deit"
    settings = {
        "name": "vit_tiny_patch16_384" if kind == "vit" else "deit_tiny_distilled_patch16_224",
        "pretrained": str(path),
        "patch_size": int(facts["patch_size"]),
        "width": int(facts["d_model"]),
        "heads": int(facts["n_heads"]),
        "depth": int(facts[f"n_layers_{kind}"]),
        "norm_eps": NORM_EPS,
    }
    return Encoder(config.Encoder(**settings | changes), recorded.pair(json.loads(facts["image_size"]))).eval(), kind


def width_of(case) -> int:
    return int(recorded.metadata(case / "expected.safetensors")["d_model"])


@each_file
@torch.inference_mode()
def test_the_recorded_encoder(case, path):
    expected = tensors(case / "expected.safetensors")
    found, kind = encoder(case, path)
    vit = found.vit
    note(case, f"{kind}: positions", largest(vit.pos_embed, expected[f"{kind}.pos_embed"]), 1e-6)
    if kind == "vit":
        assert torch.equal(vit.blocks[0].attn.qkv.weight, expected["vit.qkv0.weight"])
        assert torch.equal(vit.blocks[0].attn.proj.weight, expected["vit.proj0.weight"])
    tokens = found(expected["vit.input"])
    features = torch.cat([tokens.prefix, tokens.patches], 1)
    note(case, f"{kind}: features", largest(features, expected[f"{kind}.features"]), 1e-4)


@each_file
def test_the_same_weights_in_other_wrappings(case, path, tmp_path):
    wanted = encoder(case, path)[0].state_dict()
    if path.suffix == ".npz":
        content = dict(np.load(path))
        other = tmp_path / "prefixed.npz"
        np.savez_compressed(other, **{f"opt/target/{key}": value for key, value in content.items()})
        others = [other]
    else:
        state = torch.load(path, weights_only=True)["model"]
        others = [tmp_path / "bare.pth", tmp_path / "old.pth", tmp_path / "timm.safetensors"]
        torch.save(state, others[0])
        torch.save({"model": state}, others[1], _use_new_zipfile_serialization=False)
        save_file({key: value.clone() for key, value in state.items()}, others[2])
    for other in others:
        found = encoder(case, other)[0].state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), other


@google_file
@pytest.mark.parametrize("kind", ["missing", "unknown", "axes", "shape", "not finite"])
def test_a_file_that_does_not_fit_is_refused(case, path, kind, tmp_path):
    width = width_of(case)
    key, value, text = {
        "missing": ("cls", None, r"has the layout of Google's \.npz, but 1 of \d+ tensors are missing \((.*/)?cls\)"),
        "unknown": ("Transformer/encoderblock_0/x", np.zeros(1, np.float32), r"1 are unknown \(.*encoderblock_0/x\)"),
        "axes": ("embedding/kernel", np.zeros((3, width), np.float32), "embedding/kernel has a wrong number of axes"),
        "shape": ("embedding/bias", np.zeros(width + 1, np.float32), r"does not fit vit_tiny_patch16_384 \(size mism"),
        "not finite": (
            "embedding/bias", np.full(width, np.inf, np.float32),
            rf"{width} values that are not finite in patch_embed\.proj\.bias",
        ),
    }[kind]  # fmt: skip
    content = dict(np.load(path))
    prefix = next(name for name in content if name.endswith("embedding/kernel")).removesuffix("embedding/kernel")
    content = {name: array for name, array in (content | {prefix + key: value}).items() if array is not None}
    np.savez(tmp_path / "changed.npz", **content)
    with pytest.raises(UserError, match=text) as error:
        encoder(case, tmp_path / "changed.npz")
    assert "\n" not in str(error.value)


@google_file
def test_heads_that_the_file_contradicts(case, path):
    heads = int(recorded.metadata(case / "expected.safetensors")["n_heads"])
    other = next(n for n in range(1, width_of(case) + 1) if n != heads and width_of(case) % n == 0)
    text = rf"has {heads} heads, vit_tiny_patch16_384 has {other}; set encoder\.heads"
    with pytest.raises(UserError, match=text):
        encoder(case, path, heads=other)
