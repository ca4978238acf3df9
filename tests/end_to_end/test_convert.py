"""Proves that `segmenter convert` writes every layout there and back, says what it did, and refuses what cannot be."""

import shutil
from pathlib import Path

import pytest
import torch

from segmenter import config
from segmenter.data.classes import Classes, default_colors
from segmenter.model.segmenter import Segmenter
from segmenter.published import catalogue, known_layouts, original
from segmenter.published.catalogue import File, Published
from segmenter.published.loading import load

FILES = {
    "segmenter": ["config.json", "model.safetensors"],
    "original": ["checkpoint.pth", "variant.yml"],
    "openmmlab": ["model.pth"],
}


@pytest.fixture
def model() -> Segmenter:
    recipe = config.Recipe(
        augment=config.Augment(short_side=64, crop=(64, 64)),
        encoder=config.Encoder("vit_tiny_patch16_384", width=64, heads=1, depth=2, norm_eps=1e-5),
        inference=config.Inference((64, 64), (48, 48), enlarge=True),
    )
    torch.manual_seed(0)
    return Segmenter(recipe, Classes(tuple("abcd"), default_colors(4))).eval()


def assert_same(found: Segmenter, model: Segmenter) -> None:
    assert (found.recipe, found.classes, found.mean, found.std) == (model.recipe, model.classes, model.mean, model.std)
    assert found.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_through_every_layout_and_back(model, tmp_path, command):
    model.save(tmp_path / "start")
    last = tmp_path / "start"
    for layout in ("original", "openmmlab", "original", "segmenter"):
        out = tmp_path / f"{last.name}-{layout}"
        told = command("convert", last, "--out", out, "--layout", layout)
        assert told.status == 0, told.err
        assert sorted(path.name for path in out.iterdir()) == FILES[layout]
        assert told.out.startswith(f"read {last}\nlayout: ")
        assert told.out.endswith(f"wrote {out} ({', '.join(FILES[layout])}) in the layout {layout}\n")
        last = out
    assert_same(load(last), model)


def test_it_says_what_was_used_left_out_and_assumed(model, tmp_path, command):
    original.write(model, tmp_path / "files")
    (tmp_path / "files" / "variant.yml").unlink()
    told = command("convert", tmp_path / "files" / "checkpoint.pth", "--out", tmp_path / "out")
    assert told.status == 0
    read, layout, unused, assumed, wrote = told.out.splitlines()
    assert read == f"read {tmp_path / 'files' / 'checkpoint.pth'}"
    assert layout == f"layout: the original Segmenter; {len(model.state_dict())} tensors used"
    assert unused == "known to be unused: encoder.head.bias, encoder.head.weight"
    assert assumed.startswith("assumed, as the file does not say: ")
    assert "1 attention heads in the encoder" in assumed
    assert wrote == f"wrote {tmp_path / 'out'} (config.json, model.safetensors) in the layout segmenter"


def test_what_the_layout_cannot_say_is_told(model, tmp_path, command):
    model.recipe.encoder.position_resize = "bicubic"
    model.save(tmp_path / "model")
    told = command("convert", tmp_path / "model", "--out", tmp_path / "out", "--layout", "original")
    assert "other code that reads the layout original differs: positions resampled bilinearly, here" in told.out


def test_a_layout_without_the_decoder(model, tmp_path, command):
    model.save(tmp_path / "model")
    told = command("convert", tmp_path / "model", "--out", tmp_path / "out", "--layout", "huggingface")
    assert told.status == 1
    assert told.err == (
        f"segmenter: {tmp_path / 'model'} has the decoder mask_transformer, which the layout huggingface does not "
        "have; choose --layout segmenter or original or openmmlab\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_layout_that_there_is_not(model, tmp_path, command):
    model.save(tmp_path / "model")
    for name in ("openmlab", "smp"):  # the second is only read
        told = command("convert", tmp_path / "model", "--out", tmp_path / "out", "--layout", name)
        assert told.status == 2
        names = "segmenter or original or openmmlab or huggingface"
        assert told.err == f"segmenter: models cannot be written in a layout {name!r}; choose --layout {names}\n"
        assert not (tmp_path / "out").exists()


def test_help_names_every_layout_that_models_are_written_in(command):
    told = command("convert", "--help")
    assert all(name in told.out for name in known_layouts.written_layouts())


def test_a_name_and_a_decoder_belong_to_one_layout():
    found = [(layout.NAME, decoder) for layout in known_layouts.LAYOUTS for decoder in layout.WRITES]
    assert len(set(found)) == len(found)
    assert all((layout.write is None) is (not layout.WRITES) for layout in known_layouts.LAYOUTS)


@pytest.mark.parametrize("layout", ["original", "openmmlab"])
def test_an_encoder_that_the_layout_has_not(tmp_path, command, layout):
    recipe = config.Recipe(
        augment=config.Augment(short_side=56, crop=(56, 56)),
        encoder=config.Encoder("vit_small_patch14_dinov2", width=64, heads=1, depth=1),
        decoder=config.Linear(),
    )
    Segmenter(recipe, Classes(("a", "b"), default_colors(2))).save(tmp_path / "model")
    told = command("convert", tmp_path / "model", "--out", tmp_path / "out", "--layout", layout)
    assert told.status == 1
    assert "vit_small_patch14_dinov2 with linear differs from " in told.err
    assert told.err.endswith("; save the model in our own layout instead (segmenter)\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_what_is_there_is_not_written_over(model, tmp_path, command, taken):
    model.save(tmp_path / "model")
    out = tmp_path / "out"
    if taken == "folder":
        out.mkdir()
    (out / "notes.txt" if taken == "folder" else out).write_text("mine")
    told = command("convert", tmp_path / "model", "--out", out)
    assert told.status == 1
    assert told.err == f"segmenter: {out} is not an empty folder; choose another --out\n"
    assert [path.name for path in out.iterdir()] == ["notes.txt"] if taken == "folder" else out.read_text() == "mine"


def test_a_model_by_its_name(model, tmp_path, command, monkeypatch, discs):
    monkeypatch.setenv("SEGMENTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    files = (File("variant.yml"), File("checkpoint.pth"))
    row = Published("seg-x", "vit_tiny_patch16_384", "mask_transformer", "X", 64, 1, 2, 3, "http://127.0.0.1:9/", files)
    monkeypatch.setattr(catalogue, "PUBLISHED", (row,))

    told = command("convert", "seg-x", "--out", tmp_path / "out")
    assert told.status == 1
    folder = tmp_path / "cache" / "seg-x"
    assert "127.0.0.1:9 cannot be reached: " in told.err
    assert told.err.endswith(f"put variant.yml and checkpoint.pth into {folder} yourself\n")

    original.write(model, tmp_path / "files")
    shutil.copytree(tmp_path / "files", folder, dirs_exist_ok=True)
    assert command("convert", "seg-x", "--out", tmp_path / "out").status == 0
    assert_same(load(tmp_path / "out"), model)
    photo = next(Path(discs, "test", "images").iterdir())
    assert command("predict", "seg-x", photo, "--out", tmp_path / "labels").status == 0
    told = command("predict", "seg-y", photo, "--out", tmp_path / "labels")
    assert told.err.endswith("a name that `segmenter models` lists; perhaps seg-x\n")
