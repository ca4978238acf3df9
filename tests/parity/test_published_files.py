"""Proves that published files are recognised by their keys, accounted for key by key, and written back bit for bit."""

import argparse
import collections
import json
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import segmenter
from segmenter import config
from segmenter.checkpoints import encoders
from segmenter.checkpoints.reading import read
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import original
from segmenter.published.loading import load_published

pytestmark = pytest.mark.usefixtures("one_thread")


def small_model(decoder: str = "mask_transformer", name: str = "vit_tiny_patch16_384", **settings):
    """A small model with random weights that all matter."""
    sizes = {"width": 64, "heads": 2, "depth": 2, "norm_eps": 1e-5}
    recipe = config.Recipe(
        augment=config.Augment(short_side=64, crop=(64, 64)),
        encoder=config.Encoder(name, **sizes | settings),
        decoder=config.decoder(decoder),
        inference=config.Inference((64, 64), (48, 48), enlarge=True),
    )
    model = Segmenter(recipe, Classes(tuple("abcd"), default_colors(4))).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model


def assert_same(found, model):
    """Two models are the same bit for bit, in weights and in everything that is known of them."""
    assert found.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key
    assert (found.recipe, found.classes) == (model.recipe, model.classes)
    assert (found.mean, found.std) == (model.mean, model.std)
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        assert torch.equal(found(images), model(images))
    assert not found.training


# ---- the original's layout, written and read


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_384", "deit_tiny_distilled_patch16_224", "vit_base_patch8_224"])
def test_round_trip(decoder, name, tmp_path):
    model = small_model(decoder, name)
    assert original.write(model, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pth", "variant.yml"}
    assert_same(segmenter.load(tmp_path), model)
    assert_same(segmenter.load(tmp_path / "checkpoint.pth"), model)


def test_round_trip_of_what_the_layout_cannot_say(tmp_path):
    model = small_model(norm_eps=None, position_resize="bicubic", drop_path=0.3)
    model.classes = Classes(("straße", "b", "c", "d"), ((1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 0, 0)), values={9: 255})
    model.mean, model.std = (0.1, 0.2, 0.3), (0.4, 0.5, 1 / 3)
    model.recipe.inference.window, model.recipe.inference.enlarge = (64, 96), False
    model.recipe.train.lr, model.recipe.data.map = 1e-5, ("7:255",)
    differences = " | ".join(original.write(model, tmp_path))
    for part in ("eps 1e-05, here 1e-06", "bicubic", "normalisation", "taken whole", "square windows"):
        assert part in differences
    assert_same(segmenter.load(tmp_path), model)


def test_the_files_are_those_of_the_original(tmp_path):
    model = small_model("mask_transformer", "deit_tiny_distilled_patch16_224")
    original.write(model, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["model"]
    # Its loading is strict and knows the classifiers of ImageNet.
    assert {"encoder.head.weight", "encoder.head_dist.bias", "decoder.proj_patch"} <= state.keys()
    assert state["encoder.head.weight"].shape == (1000, 64)
    assert torch.equal(state["decoder.proj_patch"], model.state_dict()["decoder.project_patches"])
    text = (tmp_path / "variant.yml").read_text()
    assert "!!python/tuple" in text
    net = yaml.load(text, Loader=yaml.FullLoader)["net_kwargs"]
    assert net["image_size"] == (64, 64)
    assert (net["backbone"], net["n_heads"], net["n_layers"], net["distilled"]) == (
        "deit_tiny_distilled_patch16_224", 2, 2, True
    )  # fmt: skip
    assert net["decoder"]["name"] == "mask_transformer"


def test_patch_8_has_the_original_s_name(tmp_path):
    original.write(small_model("linear", "vit_base_patch8_224"), tmp_path)
    assert yaml.load((tmp_path / "variant.yml").read_text(), Loader=yaml.FullLoader)["net_kwargs"]["backbone"] == (
        "vit_base_patch8_384"
    )


def test_the_section_of_our_own_is_not_needed(tmp_path):
    model = small_model()
    original.write(model, tmp_path)
    content = yaml.load((tmp_path / "variant.yml").read_text(), Loader=yaml.FullLoader)
    del content["vit_segmenter"]
    (tmp_path / "variant.yml").write_text(yaml.dump(content))
    found = segmenter.load(tmp_path)
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        assert torch.equal(found(images), model(images))
    assert found.recipe.encoder == model.recipe.encoder
    assert found.recipe.augment == model.recipe.augment
    assert found.recipe.train.optimizer == "sgd"
    assert found.mean == pytest.approx((0.5,) * 3)
    assert found.classes.names == ("class 0", "class 1", "class 2", "class 3")


def test_without_variant_it_is_said_what_was_assumed(tmp_path):
    model = small_model(heads=1)
    original.write(model, tmp_path)
    (tmp_path / "variant.yml").unlink()
    found, report = load_published(tmp_path / "checkpoint.pth")
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        assert torch.equal(found(images), model(images))
    text = "\n".join(report.lines())
    for part in ("1 attention heads", "square crop of 64 pixels", "windows of", "normalisation of vit"):
        assert part in text
    assert "known to be unused: encoder.head.bias, encoder.head.weight" in text


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "beit_base_patch16_224"])
def test_what_the_original_has_not_is_refused(name, tmp_path):
    with torch.device("meta"):
        model = segmenter.create(name, decoder="linear", classes=4, image_size=56)
    with pytest.raises(UserError, match=r"differs from the original Segmenter in .*; save the model in our own layout"):
        original.write(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_heads_than_the_original_s_are_refused(tmp_path):
    model = small_model()
    model.recipe.decoder.heads = 2
    with pytest.raises(UserError, match="the mask transformer's heads differ from the original's"):
        original.write(model, tmp_path)


# ---- recognised by content


def test_names_of_files_mean_nothing(tmp_path):
    model = small_model()
    original.write(model, tmp_path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "download (3).bin").write_bytes((tmp_path / "checkpoint.pth").read_bytes())
    (other / "variant.yml").write_bytes((tmp_path / "variant.yml").read_bytes())
    assert_same(segmenter.load(other / "download (3).bin"), model)
    state = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["model"]
    save_file(state, other / "weights.pth")
    assert_same(segmenter.load(other / "weights.pth"), model)
    torch.save({"model": state}, other / "weights.pth", _use_new_zipfile_serialization=False)
    assert_same(segmenter.load(other / "weights.pth"), model)
    np.savez(other / "weights.pth.npz", **{key: value.numpy() for key, value in state.items()})
    (other / "weights.pth").unlink()
    assert_same(segmenter.load(other), model)  # the only checkpoint in the folder


def test_a_folder_of_our_own_and_its_weights(tmp_path):
    model = small_model()
    model.save(tmp_path / "ours")
    assert_same(segmenter.load(tmp_path / "ours"), model)
    assert_same(segmenter.load(tmp_path / "ours" / "model.safetensors"), model)
    (tmp_path / "ours" / "model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match=r"holds the weights of a model folder; name it model\.safetensors again"):
        segmenter.load(tmp_path / "alone.safetensors")


def test_an_encoder_alone_is_no_model(tmp_path):
    vit = small_model().encoder.vit
    save_file({key: value.contiguous() for key, value in vit.state_dict().items()}, tmp_path / "vit.safetensors")
    with pytest.raises(UserError, match=r"holds an encoder without a decoder.*--encoder\.pretrained"):
        segmenter.load(tmp_path / "vit.safetensors")


def test_an_unknown_layout(tmp_path):
    save_file({"layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"none of the known layouts \(our own model folder; .*layer1\.0\.conv1"):
        segmenter.load(tmp_path / "resnet.safetensors")


# ---- keys


@pytest.fixture
def published(tmp_path):
    """A file of the original's layout, its weights and a way to change them."""
    original.write(small_model(), tmp_path)
    path = tmp_path / "checkpoint.pth"
    state = torch.load(path, weights_only=True)["model"]

    def write(**changes):
        found = {key: value for key, value in (state | changes).items() if value is not None}
        torch.save({"model": found}, path)
        return path

    return write


def test_every_key_is_accounted_for(published):
    path = published(**{"encoder.extra": torch.zeros(2), "decoder.blocks.7.norm1.weight": torch.zeros(2)})
    with pytest.raises(UserError) as error:
        segmenter.load(path)
    assert "original Segmenter, but" in str(error.value)
    assert "tensors are missing" in str(error.value)  # blocks 2 to 7 of the decoder
    assert "1 are unknown (encoder.extra)" in str(error.value)


def test_what_is_no_tensor_is_not_passed_over(published):
    with pytest.raises(UserError, match=r"1 are unknown \(encoder\.depth\)"):
        segmenter.load(published(**{"encoder.depth": 12}))


def test_missing_classifiers_do_not_matter(published):
    path = published(**{"encoder.head.weight": None, "encoder.head.bias": None})
    assert load_published(path)[1].unused == []


def test_half_precision_becomes_single(published):
    path = published()
    state = read(path).state
    torch.save({"model": {key: value.half() for key, value in state.items()}}, path)
    model = segmenter.load(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.encoder.norm.weight, state["encoder.norm.weight"].half().float())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_heads": 3}, "n_heads is 3, which does not divide the encoder's 64 features"),
        ({"n_heads": "two"}, "net_kwargs.n_heads is 'two'"),
        ({"image_size": (96, 64)}, r"image_size is \(96, 64\) in patches of 16 pixels, but .* has 16 positions"),
        ({"n_layers": 3}, r"12 of \d+ tensors are missing \(encoder\.blocks\.2\."),
        ({"normalization": "imagenet"}, "normalization is 'imagenet'; known are vit and deit"),
    ],
)
def test_a_variant_that_contradicts_the_weights(published, change, text):
    path = published()
    variant = path.parent / "variant.yml"
    content = yaml.load(variant.read_text(), Loader=yaml.FullLoader)
    del content["vit_segmenter"]
    content["net_kwargs"] |= change
    variant.write_text(yaml.dump(content))
    with pytest.raises(UserError, match=text):
        segmenter.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "net_kwargs: !!python/object/apply:os.system ['touch executed']",
        "net_kwargs: !!python/name:os.system ''",
        "{",
        "- a list",
        "net_kwargs: {? [a] : b}",
        "\0",
        "[" * 2000,
    ],
)
def test_a_damaged_variant(published, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = published()
    (path.parent / "variant.yml").write_text(text)
    with pytest.raises(UserError, match=r"variant\.yml .*or move it away to do without it"):
        segmenter.load(path)
    assert not (tmp_path / "executed").exists()


# ---- what files carry besides weights


def make_type(module: str, name: str) -> type:
    """A type of a package that is not installed, as it was where the file was written."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))

    def mean(self):
        return 0

    mean.__module__, mean.__qualname__ = module, f"{name}.mean"
    bases = (dict,) if name.endswith(("Dict", "Config")) else ()
    kind = type(name, bases, {"__module__": module, "mean": mean})
    setattr(sys.modules[module], name, kind)
    return kind


@pytest.fixture
def foreign_types():
    """OpenMMLab's types while a file is written; they are gone when it is read."""
    before = set(sys.modules)
    yield make_type
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("old", [False, True])
def test_harmless_types_become_reported_placeholders(published, foreign_types, old):
    path = published()
    history = foreign_types("mmengine.logging.history_buffer", "HistoryBuffer")()
    history.values = np.arange(5, dtype=np.float64)
    history.methods = {"mean": type(history).mean}
    settings = foreign_types("mmengine.config.config", "ConfigDict")(a=1)
    content = {
        "state_dict": read(path).state,
        "message_hub": {"log_scalars": {"train/loss": history, "lr": history}, "settings": settings},
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/tmp")),
        "numbers": [np.float64(3.5), np.array([[1, 2], [3, 4]], order="F"), np.dtype("f4"), np.array(["text"])],
        "plain": [1, 2.5, "text", None, True, b"bytes", b"", {1, 2}, frozenset({3}), (), 2**80, 1j, bytearray(b"x")],
        "order": collections.OrderedDict(a=1, b=2),
        "counts": collections.Counter("aab"),
        "lists": collections.defaultdict(list, a=[1]),
        "torch": [torch.float32, torch.Size([1, 2]), torch.device("cpu"), torch.nn.Parameter(torch.ones(2))],
        "scalar": torch.tensor(3),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmengine"]:
        del sys.modules[name]
    checkpoint = read(path)
    assert checkpoint.placeholders == {
        "argparse.Namespace": 1,
        "mmengine.config.config.ConfigDict": 1,
        "mmengine.logging.history_buffer.HistoryBuffer": 1,
        "pathlib.PurePosixPath": 1,
    }
    about = checkpoint.about
    assert about["plain"] == content["plain"]
    assert about["order"] == {"a": 1, "b": 2}
    assert about["counts"] == {"a": 2, "b": 1}
    assert about["lists"] == {"a": [1]}
    assert about["numbers"][0] == 3.5
    assert about["numbers"][1].value.tolist() == [[1, 2], [3, 4]]
    assert about["torch"][:2] == [torch.float32, (1, 2)]
    model, report = load_published(path)
    assert not model.training
    assert "not constructed, as they hold no weights: 1 argparse.Namespace" in "\n".join(report.lines())
    assert not [name for name in sys.modules if name.partition(".")[0] == "mmengine"]


def test_a_distributed_network_s_names(published):
    path = published()
    state = read(path).state
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    assert read(path).state.keys() == state.keys()


def test_arguments_in_the_metadata_of_a_safetensors_file(tmp_path):
    model = small_model("linear", heads=4)
    original.write(model, tmp_path)
    state = read(tmp_path / "checkpoint.pth").state
    net = {"n_heads": 4, "image_size": [64, 64], "normalization": "vit"}
    path = tmp_path / "alone" / "weights.safetensors"
    path.parent.mkdir()
    save_file(state, path, {"net_kwargs": json.dumps(net)})
    assert segmenter.load(path).encoder.vit.blocks[0].attn.num_heads == 4
    save_file(state, path, {"net_kwargs": "{"})
    assert segmenter.load(path).encoder.vit.blocks[0].attn.num_heads == 1


def test_names_of_encoders_are_those_of_timm():
    for name, shape in encoders.SHAPES.items():
        with torch.device("meta"):
            model = segmenter.create(name, decoder="linear", classes=2, image_size=shape.patch * 4)
        encoder = model.encoder
        found = (encoder.patch_size, encoder.width, encoder.vit.blocks[0].attn.num_heads, encoder.depth)
        assert (*found, "dist_token" in dict(encoder.vit.named_parameters())) == tuple(shape)
        assert encoders.changes(name, shape) == dict.fromkeys(("patch_size", "width", "heads", "depth"))
