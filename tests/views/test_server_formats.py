"""Proves that test images become the files that the servers of ADE20K and Cityscapes take, values and names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmenter.cli import using
from segmenter.data.sets.named_classes import CITYSCAPES_IDS, named_classes
from segmenter.errors import UserError
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.views.pictures import predict_files
from segmenter.views.server_formats import Format

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tiny_recipe):
    """Makes an untrained model with the classes of a data set."""
    return lambda name: Segmenter(tiny_recipe("", decoder={"name": "linear"}), named_classes(name)).eval()


@pytest.fixture
def photos(tmp_path):
    """Makes photos of noise."""

    def make(*names: str) -> Path:
        generator = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(path)
        return tmp_path / "photos"

    return make


def test_the_command_offers_all_of_them():
    assert using.LabelFormat == Format


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/**/*.*"))


def test_ade20k(model, photos, tmp_path):
    network, root = model("ade20k"), photos("ADE_test_00000001.jpg", "ADE_test_00000002.jpg")
    predict_files(network, [str(root)], tmp_path / "out", overlays=False, format="ade20k")
    assert files(tmp_path / "out") == ["labels/ADE_test_00000001.png", "labels/ADE_test_00000002.png"]
    stored = Image.open(tmp_path / "out/labels/ADE_test_00000001.png")
    assert stored.mode == "L"
    assert np.array_equal(np.array(stored), predict(network, root / "ADE_test_00000001.jpg").labels + 1)


def test_cityscapes(model, photos, tmp_path):
    network = model("cityscapes")
    root = photos(*(f"{city}/{city}_000000_000019_leftImg8bit.png" for city in ("berlin", "bielefeld")))
    written = predict_files(network, [str(root)], tmp_path / "out", format="cityscapes")
    assert files(tmp_path / "out") == [
        "labels/berlin_000000_000019_pred_labelIds.png",
        "labels/bielefeld_000000_000019_pred_labelIds.png",
        "overlays/berlin/berlin_000000_000019_leftImg8bit.jpg",
        "overlays/bielefeld/bielefeld_000000_000019_leftImg8bit.jpg",
    ]
    stored = Image.open(written[0]["labels"])
    assert stored.mode == "L"
    labels = predict(network, written[0]["image"]).labels
    assert np.array_equal(np.array(stored), np.array(CITYSCAPES_IDS)[labels])
    assert set(np.unique(stored).tolist()) <= {7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33}


@pytest.mark.parametrize(("server", "classes"), [("ade20k", "cityscapes"), ("cityscapes", "ade20k")])
def test_another_models_classes_are_refused(model, photos, tmp_path, server, classes):
    expected = rf"--format {server} is for models with its \d+ classes .*, but this one has \d+ .*; leave --format out"
    with pytest.raises(UserError, match=expected):
        predict_files(model(classes), [str(photos("a.png"))], tmp_path / "out", format=server)
    assert not (tmp_path / "out").exists()


def test_a_name_that_cityscapes_could_not_place_is_refused(model, photos, tmp_path):
    with pytest.raises(UserError, match=r"^holiday is not the name of a Cityscapes image, such as berlin_000000_0"):
        predict_files(model("cityscapes"), [str(photos("holiday.png"))], tmp_path / "out", format="cityscapes")


def test_two_photos_with_one_name_for_the_server_are_refused(model, photos, tmp_path):
    root = photos("a/ADE_test_00000001.jpg", "b/ADE_test_00000001.jpg")
    expected = r"a/ADE_test_00000001.jpg and .*b/ADE_test_00000001.jpg would both be written as ADE_test_00000001.png"
    with pytest.raises(UserError, match=expected):
        predict_files(model("ade20k"), [str(root)], tmp_path / "out", format="ade20k")
