"""Proves that a model folder holds all about a model, that damage is named, and that none is half written."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import classes, noise, recipe, small_model, stir

from segmenter import config, load
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model import folder as model_folder
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    """A saved model."""
    small_model("mask_transformer").save(tmp_path / "model")
    return tmp_path / "model"


def refused(folder) -> str:
    """The one sentence that says why the folder cannot be loaded."""
    with pytest.raises(UserError) as error:
        load(folder)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    assert str(folder) in text
    return text


def change(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- what is kept


def test_everything_about_a_model_survives(tmp_path):
    known = Classes(
        names=("straße", "tree", "a: b"),
        colors=((1, 2, 3), (255, 0, 0), (0, 0, 7)),
        values={0x010203: 0, 0xFFFFFF: 255},
        by_color=True,
    )
    settings = recipe("mask_transformer", crop=(48, 80), freeze=1, patch_size=8)
    settings.data.map = ("7:255",)
    settings.train.lr = 0.123
    settings.decoder.dropout = 0.1
    model = Segmenter(settings, known)
    model.mean, model.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    model.save(tmp_path)
    found = load(str(tmp_path))
    assert found.classes == known
    assert found.recipe == settings
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not found.training
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "config.json"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    found.save(tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_more_than_255_classes_survive(tmp_path):
    model = small_model(count=300)
    model.save(tmp_path)
    assert load(tmp_path).classes == model.classes
    assert load(tmp_path).classes.ignore == 65535


def test_where_the_first_weights_came_from_is_remembered_but_not_needed(folder):
    about = json.loads((folder / "config.json").read_text())
    about["recipe"]["encoder"]["pretrained"] = "/no/such/file.pth"
    about["network"]["encoder"] |= {"depth": None, "width": None, "heads": None}
    state = small_model("mask_transformer", depth=None, width=None, heads=None).state_dict()
    save_file(state, folder / "model.safetensors")
    change(folder, **about | {"sha256": []})  # as the refusal of changed weights says
    assert load(folder).recipe.encoder.pretrained == "/no/such/file.pth"


def test_a_setting_of_an_older_version_takes_its_default(folder):
    about = json.loads((folder / "config.json").read_text())
    del about["recipe"]["train"]["ema"]
    change(folder, recipe=about["recipe"])
    assert load(folder).recipe.train.ema == 0


# ---- damage


def test_there_is_no_folder(tmp_path):
    assert refused(tmp_path / "none") == (
        f"there is no model folder {tmp_path / 'none'}; give a folder that `segmenter train` wrote, a checkpoint file, "
        "or a name that `segmenter models` lists"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_is_missing(folder, name):
    (folder / name).unlink()
    text = refused(folder)
    assert text == f"{folder} is not a model folder: {name} is missing; `segmenter train` writes one"


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_the_weights_are_cut_off(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert refused(folder).startswith(f"{path} is damaged or cut off (")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"\xff\xfe\x00",
        b'{"format": 1}',
        b'{"format": 1, "classes": []}',
    ],
)
def test_the_description_is_damaged(folder, content):
    (folder / "config.json").write_bytes(content)
    assert f"{folder / 'config.json'} is damaged (" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": {"names": ["a"], "colors": [], "values": [], "by_color": False}},
        {"classes": {"names": ["a"], "colors": [[0, 0, 0]], "values": {}}},
        {"classes": None},
        {"mean": [0.5]},
        {"mean": None},
        {"std": ["a", "b", "c"]},
    ],
)
def test_a_part_of_the_description_is_damaged(folder, changes):
    change(folder, **changes)
    assert f"{folder / 'config.json'} is damaged (" in refused(folder)


@pytest.mark.parametrize("recipe", [{"train": {"stepps": 3, "lr": 0.25}, "new": 1}, {"train": {"steps": "many"}}, None])
def test_the_recipe_is_information_that_may_be_of_another_release(folder, recipe):
    before = load(folder)
    change(folder, recipe=recipe)
    after = load(folder)
    assert (after.recipe.encoder, after.recipe.decoder) == (before.recipe.encoder, before.recipe.decoder)
    assert after.recipe.inference == before.recipe.inference
    assert after.recipe.train.lr == (0.25 if recipe and "new" in recipe else config.Train().lr)


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        ("network", "decoder", {"name": "mask_transformer", "width": 3}, "decoder.width is set, but the decoder mask_"),
        ("network", "decoder", {"name": "mask"}, "decoder.name is 'mask'; choose linear or"),
        ("network", "image_size", [0, 64], "augment.crop is 0 64; write a value from 1 to 65536"),
        ("use", "short_side", -96, "augment.short_side is -96; write a value from 1 to 65536"),
        ("use", "max_ratio", 0, "augment.max_ratio is 0; write a value from 1 to 1e+06"),
        ("use", "stride", [0, 8], "inference.stride is 0 8; write a value from 1 to 65536"),
        ("use", "windows", [8, 8], "unknown setting inference.windows; did you mean inference.window?"),
    ],
)
def test_the_network_or_its_use_is_damaged(folder, part, key, value, text):
    about = json.loads((folder / "config.json").read_text())
    change(folder, **{part: about[part] | {key: value}})
    assert refused(folder).startswith(f"{folder / 'config.json'}: {text}")


@pytest.mark.parametrize("std", [[0.0, 1, 1], [float("nan"), 1, 1], [1, 1, float("inf")]])
def test_a_normalisation_that_cannot_be(folder, std):
    change(folder, std=std)
    assert "mean and std must be finite, and std above 0" in refused(folder)


def test_weights_that_are_not_finite(folder):
    state = load_file(folder / "model.safetensors")
    state["decoder.norm.weight"][3] = float("nan")
    save_file(state, folder / "model.safetensors")
    assert "decoder.norm.weight" in refused(folder)


def test_the_description_is_of_a_later_format(folder):
    change(folder, format=3)
    assert refused(folder) == f"{folder / 'config.json'} has format 3, this version reads up to 2; update segmenter"


def test_the_weights_lack_a_tensor_and_hold_another(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    state["decoder.extra"] = state.pop("decoder.norm.weight")
    save_file(state, path)
    text = refused(folder)
    assert text.startswith(f"{path} does not fit its config.json: 1 tensors are missing ['decoder.norm.weight'], ")
    assert "1 are unknown ['decoder.extra']; both files must come from one model" in text


def test_the_weights_are_those_of_a_model_of_other_classes(folder):
    change(folder, classes=classes(7).to_dict())
    text = refused(folder)
    assert "decoder.class_embeddings is (1, 5, 48), the model has (1, 7, 48)" in text


# ---- a full disk


def full_disk_at(monkeypatch, name: str) -> None:
    """Every file of this name is written in half, then there is no space left."""
    real_save, real_text = model_folder.save_file, model_folder.atomic.write_text

    def save(state, path, metadata):
        if name == "model.safetensors":
            path.write_bytes(b"half of the weights")
            raise OSError(errno.ENOSPC, "No space left on device")
        real_save(state, path, metadata)

    def write_text(path, text):
        if name == path.name:
            raise UserError(f"could not write {path} ([Errno 28] No space left on device)")
        real_text(path, text)

    monkeypatch.setattr(model_folder, "save_file", save)
    monkeypatch.setattr(model_folder.atomic, "write_text", write_text)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_full_disk_spares_the_model_from_before(folder, monkeypatch, name):
    before = load(folder)
    other = small_model("linear", count=9)
    stir(other)
    with monkeypatch.context() as patch:
        full_disk_at(patch, name)
        with pytest.raises(UserError, match=r"could not write .*No space left on device") as error:
            other.save(folder)
    assert "\n" not in str(error.value)
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "config.json"}
    after = load(folder)
    assert after.classes == before.classes
    assert after.recipe == before.recipe
    with torch.inference_mode():
        assert torch.equal(after(noise(1, 3, 64, 96)), before(noise(1, 3, 64, 96)))
    other.save(folder)  # with room again, it is replaced
    assert load(folder).classes == other.classes


def test_a_full_disk_leaves_no_half_model(tmp_path, monkeypatch):
    full_disk_at(monkeypatch, "model.safetensors")
    with pytest.raises(UserError, match="No space left on device"):
        small_model().save(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"could not write {tmp_path / 'file'}"):
        small_model().save(tmp_path / "file")


def test_others_may_read_the_files(tmp_path):
    old = os.umask(0o022)
    try:
        small_model().save(tmp_path / "model")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {"model.safetensors": 0o644, "config.json": 0o644}
