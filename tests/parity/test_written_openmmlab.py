"""Proves that a model written in OpenMMLab's layout comes back bit for bit, and that its tools can read the file."""

import pytest
import torch
from test_published_files import assert_same, small_model

import segmenter
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import openmmlab
from segmenter.published.loading import load_published
from segmenter.published.openmmlab_config import Configuration

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])


@BOTH
@pytest.mark.parametrize("name", ["vit_tiny_patch16_384", "vit_base_patch8_224"])
def test_round_trip(decoder, name, tmp_path):
    model = small_model(decoder, name)
    openmmlab.write(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.pth"]
    assert_same(segmenter.load(tmp_path / "out"), model)
    assert_same(segmenter.load(tmp_path / "out" / "model.pth"), model)


@BOTH
def test_round_trip_of_what_the_layout_cannot_say(decoder, tmp_path):
    model = small_model(decoder, norm_eps=None, drop_path=0.3, dropout=0.1)
    model.classes = Classes(("straße", "b", "c", "d"), ((1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 0)), values={9: 255})
    model.mean, model.std = (0.1, 0.2, 0.3), (0.4, 0.5, 1 / 3)
    model.recipe.inference.window = (64, 96)
    model.recipe.train.lr, model.recipe.data.map = 1e-5, ("7:255",)
    openmmlab.write(model, tmp_path)
    assert_same(segmenter.load(tmp_path), model)


def test_a_decoder_with_other_heads(tmp_path):
    settings = small_model().recipe
    settings.decoder.heads = 2
    model = Segmenter(settings, small_model().classes).eval()
    openmmlab.write(model, tmp_path)
    assert_same(segmenter.load(tmp_path), model)


@BOTH
@torch.inference_mode()
def test_the_part_of_our_own_is_not_needed(decoder, tmp_path):
    model = small_model(decoder, position_resize="bicubic")
    openmmlab.write(model, tmp_path)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    del content["meta"]["vit_segmenter"]
    torch.save(content, tmp_path / "model.pth")
    found, report = load_published(tmp_path / "model.pth")
    images = torch.randn(1, 3, 50, 70)
    assert torch.equal(found(images), model(images))
    assert found.recipe.encoder == model.recipe.encoder
    assert (found.recipe.augment.crop, found.classes) == (model.recipe.augment.crop, model.classes)
    assert (found.recipe.inference.window, found.recipe.inference.stride) == ((64, 64), (48, 48))
    assert (found.mean, found.std) == (model.mean, model.std)
    assert not [text for text in report.assumed if "short side" not in text]


@BOTH
def test_the_file_is_one_of_openmmlab_s(decoder, tmp_path):
    model = small_model(decoder)
    differences = " | ".join(openmmlab.write(model, tmp_path))
    content = torch.load(tmp_path / "model.pth", weights_only=True)  # tensors and plain containers only
    assert content.keys() == {"meta", "state_dict"}
    meta, state = content["meta"], content["state_dict"]
    assert meta["CLASSES"] == meta["dataset_meta"]["classes"] == list("abcd")
    assert meta["PALETTE"] == meta["dataset_meta"]["palette"] == [list(color) for color in model.classes.colors]
    about = Configuration(meta)
    assert about.pair("model.backbone.img_size") == (64, 64)
    assert about.find("model.backbone.norm_cfg") == {"type": "LN", "eps": 1e-5}
    assert about.find("model.data_preprocessor.mean") == [127.5] * 3
    assert about.find("model.test_cfg") == {"mode": "slide", "crop_size": [64, 64], "stride": [48, 48]}
    assert "patch_bias=True" in differences
    assert "here enlarged" in differences
    if decoder == "linear":
        assert state["decode_head.conv_seg.weight"].shape == (4, 64, 1, 1)
        assert about.find("model.decode_head.type") == "FCNHead"
    else:
        ours = model.state_dict()["decoder.project_patches"]
        assert torch.equal(state["decode_head.patch_proj.weight"], ours.T)
        assert about.natural("model.decode_head.num_layers") == 2


def test_a_damaged_part_of_our_own(tmp_path):
    openmmlab.write(small_model(), tmp_path)
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    content["meta"]["vit_segmenter"]["mean"] = [0.5]
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"meta\.vit_segmenter is damaged \(.*3 numbers each.*\); write the file again"):
        segmenter.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["deit_tiny_distilled_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"]
)
def test_what_the_layout_has_not_is_refused(name, tmp_path):
    with torch.device("meta"):
        model = segmenter.create(name, decoder="linear", classes=4, image_size=56)
    with pytest.raises(UserError, match=r"differs from OpenMMLab's Segmenter in .*; save the model in our own layout"):
        openmmlab.write(model, tmp_path)
    assert not list(tmp_path.iterdir())
