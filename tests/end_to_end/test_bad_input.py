"""Proves that every kind of bad input ends with one sentence that says what to do, and nothing is lost."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segmenter import recipes
from segmenter.data.dataset import EndlessSampler
from segmenter.model import folder as model_folder
from segmenter.published.loading import load
from segmenter.training import checkpoint

TINY = "vit_tiny_patch16_224"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_refused(told, *words: str) -> None:
    """One sentence with these words ends stderr, without traceback; only a list of findings is longer."""
    assert told.status == 1
    assert "Traceback" not in told.err
    message = told.err[told.err.index("segmenter: ") :]
    first, *rest = message.splitlines()
    assert all(line.startswith("- ") for line in rest), message
    assert first.endswith(":") == bool(rest), message
    for word in words:
        assert word in message, message


@pytest.fixture
def train(command, tiny_recipe, recipe_file, tmp_path):
    """Trains two steps with a data folder; more arguments may follow."""

    def run(root, *arguments, out: Path | None = None):
        path = recipe_file(tiny_recipe(root, decoder={"name": "linear"}, steps=2))
        out = tmp_path / "run" if out is None else out
        return command("train", "--config", path, "--out", out, *arguments)

    return run


@pytest.fixture
def spoilt(disc_folder, train, tmp_path):
    """Spoils a data folder, then checks that training refuses it with these words and makes no run folder."""

    def check(spoil, *words: str) -> None:
        root = disc_folder()
        spoil(root)
        before = contents(root)
        assert_refused(train(root), *(word.replace("ROOT", str(root)) for word in words))
        assert not (tmp_path / "run").exists()
        assert contents(root) == before

    return check


# ---- data


def test_a_folder_that_does_not_exist(train, tmp_path):
    root = tmp_path / "none"
    assert_refused(train(root), f"{root} does not exist", "data.root is the folder that holds")
    assert_refused(train(""), "data.root is empty; write the folder")


def test_no_images(spoilt):
    def spoil(root):
        for path in (root / "train" / "images").iterdir():
            path.rename(path.with_suffix(".txt"))

    spoilt(spoil, "ROOT/train/images holds train0.txt", "but no images (png, jpg")


def test_a_folder_of_something_else(spoilt):
    def spoil(root):
        shutil.rmtree(root)
        (root / "holiday").mkdir(parents=True)

    spoilt(spoil, "ROOT holds holiday/", "train/images and train/masks", "rename the folders")


def test_no_validation_images(spoilt):
    words = ("ROOT has no images in the split 'val'", "needs train and val")
    spoilt(lambda root: shutil.rmtree(root / "val"), *words)


def test_images_without_masks_are_listed(spoilt):
    def spoil(root):
        for i in (1, 3):
            (root / "train" / "masks" / f"train{i}.png").unlink()

    words = ("2 of 6 images in ROOT/train/images have no mask", "train1, train3", "rename or add the masks")
    spoilt(spoil, *words)


def test_masks_without_images_are_listed(spoilt):
    def spoil(root):
        for i in (0, 5):
            (root / "train" / "images" / f"train{i}.png").unlink()

    words = ("2 of 6 masks in ROOT/train/masks have no image", "train0, train5", "rename or add the images")
    spoilt(spoil, *words)


def test_a_mask_of_another_size(spoilt):
    def spoil(root):
        Image.fromarray(np.zeros((60, 64), np.uint8)).save(root / "train" / "masks" / "train2.png")

    words = ("train2.png is 64 x 64", "its mask ROOT/train/masks/train2.png is 60 x 64", "export the mask")
    spoilt(spoil, *words)


def test_a_mask_value_outside_the_classes(spoilt):
    def spoil(root):
        path = root / "train" / "masks" / "train4.png"
        mask = np.array(Image.open(path))
        mask[0, 0] = 7
        Image.fromarray(mask).save(path)

    words = ("ROOT/train/masks/train4.png holds the value 7", "3 classes (0 to 2)", "--data.map 7:255")
    spoilt(spoil, *words)


def test_what_the_message_says_cures_it(disc_folder, train, command):
    root = disc_folder()
    path = root / "train" / "masks" / "train4.png"
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(path)
    assert_refused(command("check", root), "holds the value 7", "--data.map 7:255")
    assert_refused(train(root), "--data.map 7:255")
    assert train(root, "--data.map", "7:255").status == 0


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("kept", [0, 20])
def test_an_empty_file_or_one_without_a_whole_header(spoilt, kind, kept):
    def spoil(root):
        path = root / "train" / kind / "train1.png"
        path.write_bytes(path.read_bytes()[:kept])

    what = "empty (0 bytes)" if kept == 0 else "broken or incomplete"
    spoilt(spoil, f"ROOT/train/{kind}/train1.png is {what}", "copy it again or remove it")


def test_a_truncated_mask(spoilt):
    def spoil(root):
        path = root / "val" / "masks" / "val1.png"
        path.write_bytes(path.read_bytes()[:-30])

    spoilt(spoil, "ROOT/val/masks/val1.png is broken or incomplete", "copy it again or remove it")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_stops_the_training_which_goes_on_when_it_is_whole(
    disc_folder, train, command, tmp_path, workers
):
    root, run = disc_folder(), tmp_path / "run"
    assert train(root, out=tmp_path / "whole").status == 0
    content = {path: path.read_bytes() for path in (root / "train" / "images").iterdir()}
    stream = iter(EndlessSampler(6, seed=0))
    third = [next(stream)[0] for _ in range(3)][2]  # with batches of two: in the second, not in the first
    used = root / "train" / "images" / f"train{third}.png"
    used.write_bytes(content[used][: len(content[used]) // 2])
    told = train(root, "--train.workers", str(workers))
    assert_refused(told, f"{used} is broken or incomplete", "copy it again or remove it")
    assert checkpoint.load_state(run)["step"] == 1
    used.write_bytes(content[used])
    assert command("resume", run).status == 0
    one, two = (checkpoint.load_state(folder)["model"] for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("- {name: a, id: 0}\n- {name: b, id: 0}\n- c", ("'a' and 'b' have the same id 0", "renumber one")),
        ("- {name: a, id: 0}\n- {name: b, id: 2}\n", ("no class has the id 1", "leave the ids out")),
        ("classes: [a, a, b]", ("two classes have the name 'a'", "rename one")),
        ("klasses: [a, b]", ("unknown key `klasses`", "did you mean `classes`?")),
        ("classes: [a, b", ("cannot be read as YAML",)),
        ("", ("no list `classes:`", "write one line a class")),
    ],
    ids=["same id", "missing id", "same name", "unknown key", "no yaml", "empty"],
)
def test_a_classes_yaml_that_cannot_be(spoilt, classes, words):
    spoilt(lambda root: (root / "classes.yaml").write_text(classes), "ROOT/classes.yaml", *words)


# ---- settings


@pytest.mark.parametrize(
    ("group", "key", "value", "words"),
    [
        ("encoder", "name", "vit_tinny_patch16_224", ("encoder.name", "'vit_tinny_patch16_224'", TINY)),
        ("encoder", "name", "resnet50", ("encoder.name", "resnet50")),
        ("decoder", "name", "mask", ("decoder.name is 'mask'", "choose linear or mask_transformer or setr_naive")),
        ("encoder", "nam", TINY, ("unknown setting encoder.nam", "did you mean encoder.name?")),
        ("train", "learning_rate", 0.1, ("unknown setting train.learning_rate", "known here: ")),
        ("trian", "lr", 0.1, ("unknown setting trian", "did you mean train?")),
        ("train", "steps", "many", ("train.steps is 'many'", "valid integer")),
        ("train", "steps", 1.5, ("train.steps is 1.5", "valid integer")),
        ("train", "lr", [1, 2], ("train.lr is [1, 2]", "valid number")),
        ("augment", "crop", 64, ("augment.crop is 64", "valid tuple")),
        ("augment", "crop", [64], ("augment.crop is [64]", "too few values")),
        ("train", "batch", 0, ("train.batch is 0", "write a value from 1 to")),
        ("train", "ema", 1.0, ("train.ema is 1.0", "from 0 to less than 1")),
        ("train", "lr", -1.0, ("train.lr is -1.0", "above 0")),
        ("train", "lr", float("nan"), ("train.lr is nan", "above 0")),
        ("train", "validate_every", 0, ("train.validate_every is 0", "write a value from 1 to")),
        ("train", "warmup", 4, ("train.warmup is 4", "train.steps is 4", "fewer")),
        ("train", "workers", -1, ("train.workers is -1", "write a value from 0 to 1000")),
        ("inference", "stride", [64, 65], ("inference.stride is 64 65", "smaller stride")),
        ("augment", "scale", [2.0, 0.5], ("augment.scale is 2.0 0.5", "smaller number first")),
        ("encoder", "heads", 5, ("encoder", "5", "heads")),
        ("encoder", "freeze", 3, ("encoder.freeze is 3", "2 blocks")),
        ("encoder", "pretrained", "none.pth", ("encoder", "none.pth")),
        ("train", "start", "nowhere", ("train.start: there is no model folder nowhere",)),
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)
def test_a_recipe_that_cannot_be(tmp_path, discs, tiny_recipe, command, group, key, value, words):
    content = yaml.safe_load(recipes.to_yaml(tiny_recipe(discs)))
    content.setdefault(group, {})[key] = value
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    told = command("train", "--config", path, "--out", tmp_path / "run")
    assert_refused(told, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [", ("wrong.yaml is not valid YAML",)),
        ("train", ("wrong.yaml holds no settings", "`lr: 0.001`")),
        ("train: 3", ("train holds no settings", "indented")),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, command, text, words):
    (tmp_path / "wrong.yaml").write_text(text)
    told = command("train", "--config", tmp_path / "wrong.yaml", "--out", tmp_path / "run")
    assert_refused(told, *words)


def test_an_unknown_encoder_on_the_command_line(discs, train, tmp_path):
    told = train(discs, "--encoder.name", "deit_tinny_patch16_224")
    assert_refused(told, "encoder.name", "deit_tinny_patch16_224", "deit_tiny_patch16_224")
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe(command, tmp_path):
    told = command("train", "--config", "camvit", "--out", tmp_path / "run")
    assert_refused(told, "there is no recipe camvit; perhaps camvid")


def test_a_traceback_is_shown_where_it_is_asked_for(command, tmp_path):
    for arguments in (("--debug", "resume", tmp_path), ("resume", tmp_path, "--debug")):
        told = command(*arguments)
        assert told.status == 1
        assert told.err.count("Traceback") == 1
        assert told.err.splitlines()[-1].startswith(f"segmenter: {tmp_path} is not a run folder")


# ---- output


def test_an_output_folder_that_holds_another_run(disc_run, discs, train, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "old")
    before = contents(run)
    told = train(discs, out=run)
    assert_refused(told, f"{run} holds another run", "choose another --out", f"segmenter resume {run}")
    assert contents(run) == before


def test_an_output_folder_that_holds_other_files(discs, train, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        assert_refused(train(discs, out=out), f"{out} is not an empty folder; choose another --out")
    told = train(discs, out=tmp_path / "full" / "thesis.txt" / "below")
    assert_refused(told, "could not write", "choose a folder")
    assert contents(tmp_path / "full") == {"thesis.txt": b"mine"}


def test_a_full_disk_while_saving_leaves_the_old_state_to_go_on_from(
    discs, tiny_recipe, recipe_file, command, tmp_path, monkeypatch
):
    recipe = recipe_file(tiny_recipe(discs, steps=6, save_every=2))
    assert command("train", "--config", recipe, "--out", tmp_path / "whole").status == 0
    run, save, saves = tmp_path / "run", torch.save, []

    def full(content: object, path: Path) -> None:
        saves.append(path)
        if len(saves) == 1:
            return save(content, path)
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.torch, "save", full)
    told = command("train", "--config", recipe, "--out", run)
    monkeypatch.undo()
    assert_refused(told, f"could not write {run / 'state.pt'}", "No space left on device): make room there")
    assert checkpoint.load_state(run)["step"] == 2
    assert not list(run.rglob("*.part"))
    assert command("resume", run).status == 0
    one, two = (checkpoint.load_state(folder)["model"] for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_full_disk_while_the_best_model_is_saved_spares_the_old_one(disc_run, discs, command, tmp_path, monkeypatch):
    run = shutil.copytree(disc_run, tmp_path / "run")
    recipe = recipes.read(str(run / "recipe.yaml"))
    recipe.train.steps = 40
    (run / "recipe.yaml").write_text(recipes.to_yaml(recipe))
    before = (run / "model.safetensors").read_bytes()

    def full(state: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_folder, "save_file", full)
    told = command("resume", run)
    assert_refused(told, "could not write", "model.safetensors", "No space left on device", "make room")
    assert (run / "model.safetensors").read_bytes() == before
    assert load(run).classes.names == ("ground", "red", "blue")
    assert not list(run.rglob("*.part"))


def test_a_full_disk_while_predicting(disc_run, discs, command, tmp_path, monkeypatch):
    def full(self, path, **options):
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    told = command("predict", disc_run, discs / "test" / "images", "--out", tmp_path / "out")
    assert_refused(told, "could not write", "test0.png", "No space left on device", "make room")
    assert contents(tmp_path / "out") == {}


# ---- models


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_model_folder_without_one_of_its_files(disc_run, discs, command, tmp_path, name, verb):
    run = shutil.copytree(disc_run, tmp_path / "run")
    (run / name).unlink()
    rest = (discs,) if verb == "evaluate" else (discs / "test" / "images", "--out", tmp_path / "out")
    told = command(verb, run, *rest)
    assert_refused(told, f"{run} is not a model folder: {name} is missing", "segmenter train")


def test_a_model_folder_that_does_not_exist(discs, command, tmp_path):
    assert_refused(command("evaluate", tmp_path / "none", discs), f"no model folder {tmp_path / 'none'}")


def test_weights_and_config_of_different_models(disc_run, discs, command, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    about = json.loads((run / "config.json").read_text())
    about["network"]["encoder"]["width"] = 96
    (run / "config.json").write_text(json.dumps(about))
    told = command("evaluate", run, discs)
    assert_refused(told, f"{run / 'model.safetensors'} does not fit its config.json", "(3, 48)", "(3, 96)")
    about["network"]["encoder"].update(width=48, depth=3)
    (run / "config.json").write_text(json.dumps(about))
    told = command("evaluate", run, discs)
    assert_refused(told, "does not fit its config.json", "missing", "both files must come from one model")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_of_a_model(disc_run, discs, command, tmp_path, name):
    run = shutil.copytree(disc_run, tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    assert_refused(command("evaluate", run, discs), f"{run / name} is damaged")


def test_a_state_that_is_missing_or_damaged(disc_run, command, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    content = (run / "state.pt").read_bytes()
    (run / "state.pt").write_bytes(content[: len(content) // 2])
    told = command("resume", run)
    assert_refused(told, "state.pt is damaged", "; train again into another folder")
    assert ". " not in told.err
    (run / "state.pt").unlink()
    assert_refused(command("resume", run), f"{run} has no state.pt to go on from")
    assert_refused(command("resume", tmp_path), f"{tmp_path} is not a run folder", "segmenter train --out")


def test_classes_changed_since_the_run_began(disc_run, disc_folder, command, tmp_path):
    run, root = shutil.copytree(disc_run, tmp_path / "run"), disc_folder()
    recipe = recipes.read(str(run / "recipe.yaml"))
    recipe.data.root = str(root)
    (run / "recipe.yaml").write_text(recipes.to_yaml(recipe))
    (root / "classes.yaml").write_text("classes: [ground, red, blue, green]")
    before = contents(run)
    words = ("state.pt does not fit", "size mismatch for decoder.head", "put back the recipe and the classes")
    assert_refused(command("resume", run), *words)
    assert contents(run) == before


# ---- evaluation and prediction


def test_photos_that_cannot_be_predicted(disc_run, discs, command, tmp_path):
    out = tmp_path / "out"
    told = command("predict", disc_run, "--out", out)
    assert_refused(told, "no images were named; give files, folders or globs")
    told = command("predict", disc_run, tmp_path / "*.png", "--out", out)
    assert_refused(told, "no image at", "give files, folders or globs")
    (tmp_path / "broken.jpg").write_bytes(b"")
    told = command("predict", disc_run, tmp_path / "broken.jpg", "--out", out)
    assert_refused(told, "broken.jpg is empty (0 bytes); copy it again or remove it")
    assert not out.exists()


def test_data_that_cannot_be_scored(disc_run, disc_folder, command):
    root = disc_folder()
    image = root / "test" / "images" / "test1.png"
    image.write_bytes(image.read_bytes()[:500])
    assert_refused(command("evaluate", disc_run, root), f"{image} is broken or incomplete", "copy it again")
    shutil.rmtree(root / "test")
    assert_refused(command("evaluate", disc_run, root, "--split", "test"), "there is no split 'test'")
    (root / "classes.yaml").write_text("classes: [ground, red, green]")
    told = command("evaluate", disc_run, root, "--split", "val")
    classes = "the classes 3 (ground, red, green), the model 3 (ground, red, blue)"
    assert_refused(told, classes, "--data.classes FILE")
