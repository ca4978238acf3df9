"""Proves that a model starts from another one's weights where they fit, and takes over nothing by mistake."""

from contextlib import suppress

import pytest
import torch
from tiny_models import classes, noise, recipe, small_model, stir

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.model.timm_models import resample_patch_embed
from segmenter.model.transfer import transfer

pytestmark = pytest.mark.usefixtures("one_thread")

PATCHES, POSITIONS = "encoder.vit.patch_embed.proj.weight", "encoder.vit.pos_embed"


def source(decoder: str = "mask_transformer", **settings) -> Segmenter:
    model = small_model(decoder, **settings)
    stir(model)
    return model


def other(decoder: str = "mask_transformer", count: int = 5, **settings) -> Segmenter:
    """A model of other weights than the source."""
    torch.manual_seed(9)
    return Segmenter(recipe(decoder, **settings), classes(count)).eval()


def snapshot(model: Segmenter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "beit_base_patch16_224"])
def test_the_same_kind_of_model_is_taken_over_whole(decoder, name):
    old, new = source(decoder, name=name), other(decoder, name=name)
    before = snapshot(old)
    assert transfer(old, new) == []
    assert torch.equal(new(noise(1, 3, 70, 90)), old(noise(1, 3, 70, 90)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in old.state_dict().items())
    with torch.no_grad():
        new.decoder.get_parameter(new.decoder.class_dependent[0]).zero_()
    assert old.decoder.state_dict()[old.decoder.class_dependent[0]].any()  # a copy, not the same memory


def test_patches_and_positions_are_resampled_to_another_patch_size_and_crop():
    old, new = source(crop=(64, 96)), other(crop=(48, 80), patch_size=8)
    assert transfer(old, new) == []
    before, after = old.state_dict(), new.state_dict()
    torch.testing.assert_close(after[PATCHES], resample_patch_embed(before[PATCHES], [8, 8]))
    image = before[POSITIONS][:, 1:].mT.unflatten(2, (4, 6))
    image = torch.nn.functional.interpolate(image, (6, 10), mode="bilinear")
    torch.testing.assert_close(after[POSITIONS][:, 1:], image.flatten(2).mT)
    assert torch.equal(after[POSITIONS][:, 0], before[POSITIONS][:, 0])
    assert all(torch.equal(t, before[n]) for n, t in after.items() if n not in (PATCHES, POSITIONS))
    assert new(noise(1, 3, 48, 80)).shape == (1, 5, 6, 10)


def test_another_crop_alone_changes_no_result_much():
    # The larger table is the smaller one resized, as the smaller model does it on larger images.
    old, new = source(crop=(64, 96)), other(crop=(128, 96))
    transfer(old, new)
    images = noise(1, 3, 128, 96)
    torch.testing.assert_close(new(images), old(images), atol=1e-4, rtol=1e-4)


def test_relative_positions_are_resampled_to_another_patch_size():
    old, new = (make(name="beit_base_patch16_224", **size) for make, size in ((source, {}), (other, {"patch_size": 8})))
    assert transfer(old, new) == []
    before, after = (model.state_dict()["encoder.relative_tables.1"] for model in (old, new))
    assert before.shape == (27 * 27 + 3, 3)
    assert after.shape == (55 * 55 + 3, 3)
    assert torch.equal(after[-3:], before[-3:])
    image = before[:-3].mT.reshape(1, 3, 27, 27)
    expected = torch.nn.functional.interpolate(image, (55, 55), mode="bilinear")
    torch.testing.assert_close(after[:-3], expected.flatten(2)[0].mT)


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize("names", [("c0", "c1", "c2", "c3", "other"), ("c0", "c1", "c2")])
def test_with_other_classes_what_depends_on_them_is_new(decoder, names):
    old = source(decoder)
    torch.manual_seed(9)
    new = Segmenter(recipe(decoder), Classes(names, tuple((i, i, i) for i in range(len(names)))))
    first, before = snapshot(new), old.state_dict()
    kept = transfer(old, new)
    assert kept == [f"decoder.{name}" for name in new.decoder.state_dict() if name in new.decoder.class_dependent]
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, first[name] if name in kept else before[name])


def test_another_decoder_is_new():
    old, new = source("linear"), other("mask_transformer")
    first = snapshot(new)
    kept = transfer(old, new)
    assert kept == [name for name in first if name.startswith("decoder.")]
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, first[name] if name in kept else old.state_dict()[name])


def test_an_encoder_that_ends_before_the_model_s_is_refused():
    # What reads the first blocks alone has no others, whatever encoder.depth says.
    old = source(config.SetrUp(width=12, taps=(0, 1)), depth=4)
    for decoder in ("linear", "dpt"):
        new = other(decoder, depth=4)
        first = snapshot(new)
        with pytest.raises(UserError) as error:
            transfer(old, new)
        assert str(error.value) == (
            "train.start: the encoder there ends with block 1, the last that its decoder setr_naive reads, but "
            f"{decoder} needs the blocks up to 3: start from another model, or write encoder.depth: 2"
        )
        assert all(torch.equal(tensor, first[name]) for name, tensor in new.state_dict().items())
    short = other("linear", depth=2)  # as the sentence says
    assert all(name.startswith(("decoder.", "encoder.norm.")) for name in transfer(old, short))


@pytest.mark.parametrize("decoder", ["linear", "setr_naive", "setr_mla", "dpt", "dpt_depth"])
@pytest.mark.parametrize("changes", [{}, {"crop": (48, 80), "patch_size": 8}, {"depth": 3}])
def test_the_source_stays_as_it_was(decoder, changes):
    old = source("dpt", depth=4)
    before, described, images = snapshot(old), old.describe().to_dict(), noise(1, 3, 64, 96)
    answer = old(images)
    new = other(decoder, **{"depth": 4} | changes)
    with suppress(UserError):  # a refusal leaves it alone too
        transfer(old, new)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in old.state_dict().items())
    assert old.describe().to_dict() == described
    assert torch.equal(old(images), answer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"name": "deit_tiny_distilled_patch16_224"}),
        ({"name": "deit_tiny_distilled_patch16_224"}, {}),
        ({}, {"name": "vit_small_patch16_dinov3"}),
        ({"name": "beit_base_patch16_224"}, {}),
        ({}, {"width": 96}),
        ({}, {"depth": 3}),
        ({"depth": 3}, {}),
    ],
)
def test_another_encoder_is_refused(old, new):
    old, new = source(**old), other(**new)
    first = snapshot(new)
    with pytest.raises(UserError) as error:
        transfer(old, new)
    text = str(error.value)
    names = (old.recipe.encoder.name, new.recipe.encoder.name)
    assert text.startswith("train.start: the model has {}, which does not fit {}".format(*names))
    assert text.endswith("give both the same encoder.name, depth and width")
    assert all(torch.equal(tensor, first[name]) for name, tensor in new.state_dict().items())
