"""Proves that files whose weights cannot be used are refused in a sentence."""

from pathlib import Path

import pytest
import torch
from test_published_files import small_model

import segmenter
from segmenter.errors import UserError
from segmenter.published import original

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def published(tmp_path) -> Path:
    """A good file of the original's layout."""
    original.write(small_model(), tmp_path)
    return tmp_path / "checkpoint.pth"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def refused(path: Path) -> str:
    """The one sentence that says why the file cannot be loaded."""
    with pytest.raises(UserError) as error:
        segmenter.load(path)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    assert str(path) in text
    return text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(published, value):
    state = weights(published)
    state["encoder.blocks.1.attn.proj.weight"][3, 5] = value
    torch.save({"model": state}, published)
    text = refused(published)
    assert "holds 1 values that are not finite in encoder.blocks.1.attn.proj.weight (1 of " in text


def test_unused_weights_that_are_not_finite_do_not_matter(published):
    state = weights(published)
    state["encoder.head.weight"].fill_(float("nan"))
    torch.save({"model": state}, published)
    segmenter.load(published)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("encoder.blocks.1.mlp.fc1.weight", (255, 64)),
        ("decoder.cls_emb", (1, 5, 64)),
        ("decoder.proj_patch", (64,)),
        ("encoder.norm.bias", ()),
        ("encoder.patch_embed.proj.weight", (64, 3, 8, 16)),
    ],
)
def test_a_tensor_of_a_wrong_shape(published, key, shape):
    torch.save({"model": weights(published) | {key: torch.zeros(shape)}}, published)
    text = refused(published)
    assert f"{key} is {shape} and not " in text
    assert "tensors do not fit the shapes of the rest" in text


def test_the_tensor_that_tells_the_width_has_a_wrong_shape(published):
    torch.save({"model": weights(published) | {"encoder.cls_token": torch.zeros(64)}}, published)
    assert "encoder.cls_token has the shape (64,), where 3 axes are expected" in refused(published)


def test_a_fifth_of_the_keys_is_missing(published):
    state = weights(published)
    for key in list(state)[::5]:
        del state[key]
    torch.save({"model": state}, published)
    text = refused(published)
    wanted = len(original.sources(2, 2, False))
    missing = wanted - sum(not key.startswith("encoder.head") for key in state)
    assert missing >= wanted // 6
    assert f"has the layout of the original Segmenter, but {missing} of {wanted} tensors are missing (" in text
    assert text.count("encoder.") + text.count("decoder.") == 3


def test_the_last_blocks_are_missing(published):
    # Without variant.yml a shorter network is all that the file tells of; with it they are missed.
    state = {key: value for key, value in weights(published).items() if not key.startswith("encoder.blocks.1.")}
    torch.save({"model": state}, published)
    assert "12 of 63 tensors are missing (encoder.blocks.1.attn.proj.bias, " in refused(published)
