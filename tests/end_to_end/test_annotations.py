"""Annotated folders in the commands: `data` writes them as masks, `check` and `train` take them as they are."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmenter
from segmenter.config import Data
from segmenter.training.loop import train

NAMES = ("red", "blue")


@pytest.fixture
def annotated(tmp_path, draw) -> Path:
    """A folder of COCO JSON: pictures of discs, whose masks are given as plain run lengths."""
    root, generator = tmp_path / "export", np.random.default_rng(0)
    (root / "photos").mkdir(parents=True)
    images, annotations = [], []
    for number in range(12):
        image, mask = draw(generator, (64, 64))
        Image.fromarray(image).save(root / f"photos/p{number:02}.png")
        np.save(root / f"p{number:02}.npy", mask)
        images.append({"id": number, "file_name": f"p{number:02}.png", "height": 64, "width": 64})
        for label in (1, 2):
            pixels = (mask == label).T.ravel()
            starts = np.flatnonzero(np.diff(pixels, prepend=False))
            counts = np.diff(starts, prepend=0, append=pixels.size).tolist()
            entry = {"id": len(annotations), "image_id": number, "category_id": label, "iscrowd": 0}
            annotations.append(entry | {"segmentation": {"size": [64, 64], "counts": counts}})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    for split, numbers in (("train", range(10)), ("val", range(10, 12))):
        own = [[one for one in found if one.get("image_id", one["id"]) in numbers] for found in (images, annotations)]
        content = {"images": own[0], "annotations": own[1], "categories": categories}
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("as_zip", [False, True])
def test_data_writes_images_masks_and_classes(as_zip, annotated, tmp_path, command):
    source = annotated
    if as_zip:
        source = tmp_path / "export.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in annotated.rglob("*"):
                archive.write(path, path.relative_to(annotated))
    out = tmp_path / "out"
    answer = command("data", source, "--out", out)
    assert answer.status == 0, answer.err
    words = "(COCO JSON): train 10, val 2 images; 3 classes, unlabelled pixels are background"
    assert answer.out.splitlines()[0] == f"{source} {words}"
    assert f"{out}: train 10, val 2 images with masks" in answer.out
    data = segmenter.open_data(out)
    assert data.classes.names == ("background", *NAMES)
    for split in ("train", "val"):
        for sample in data.split(split):
            assert (sample.target() == np.load(annotated / f"{sample.name}.npy")).all()
            assert sample.image_path.read_bytes() == (annotated / f"photos/{sample.name}.png").read_bytes()
    assert command("check", out).out.endswith("ready to train\n")
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == sorted({"export", "out", source.name})


def test_data_writes_into_an_empty_folder_alone(annotated, tmp_path, command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    answer = command("data", annotated, "--out", tmp_path / "out")
    assert answer.status == 1
    assert "out is not empty; choose a new folder for --out" in answer.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_faults_end_the_command_with_all_their_sentences(annotated, tmp_path, command):
    path = annotated / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][3]["category_id"] = 7
    content["images"][9]["file_name"] = "gone.png"
    path.write_text(json.dumps(content))
    answer = command("data", annotated, "--out", tmp_path / "out")
    assert answer.status == 1
    assert "has 2 faults; correct them, or leave them out with --data.skip-faults:" in answer.err
    assert "annotation 3 has the category 7" in answer.err
    assert "image 9 is 'gone.png'" in answer.err
    assert not (tmp_path / "out").exists()
    answer = command("data", annotated, "--out", tmp_path / "out", "--data.skip-faults")
    assert answer.status == 0, answer.err
    assert "warning: 2 faults are left out" in answer.out


def test_check_and_train_take_annotations_as_they_are(annotated, tmp_path, command, tiny_recipe):
    answer = command("check", annotated)
    assert answer.status == 0, answer.err
    assert answer.out.endswith("ready to train\n")
    assert "blue" in answer.out
    recipe = tiny_recipe(annotated, decoder={"name": "linear"}, steps=2)
    recipe.train.class_weights = "median_frequency"
    train(recipe, tmp_path / "run")
    model = segmenter.load(tmp_path / "run")
    assert model.classes.names == ("background", *NAMES)
    scores = segmenter.evaluate(model, Data(str(annotated)), split="val")
    assert scores.confusion.sum() == 2 * 64 * 64


def test_a_model_is_scored_with_what_its_data_left_unlabelled(annotated, tmp_path, command, tiny_recipe):
    recipe = tiny_recipe(annotated, decoder={"name": "linear"}, steps=2)
    recipe.data.unlabelled = "ignore"
    train(recipe, tmp_path / "run")
    model = segmenter.load(tmp_path / "run")
    assert model.classes.names == NAMES
    labelled = sum(np.count_nonzero(np.load(annotated / f"p{number}.npy")) for number in (10, 11))
    assert segmenter.evaluate(model, annotated, split="val").confusion.sum() == labelled
    answer = command("evaluate", tmp_path / "run", annotated, "--split", "val")
    assert answer.status == 0, answer.err


def test_check_names_what_cannot_be_drawn(annotated, command):
    Image.new("RGB", (64, 65)).save(annotated / "photos/p03.png")
    answer = command("check", annotated)
    assert answer.status == 1
    assert "p03.png is 65 x 64 (height x width), but its mask" in answer.err
