"""Proves that the mistakes people make with data sets are found before training, and the classes counted rightly."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmenter import config
from segmenter.data.check import LabelReport, check_labels, median_frequency_weights
from segmenter.data.classes import Classes, default_colors
from segmenter.data.findings import GENERATED, Finding
from segmenter.data.layouts import open_labels
from segmenter.data.samples import DataSet
from segmenter.errors import UserError

RNG = np.random.default_rng(0)


def pair(root: Path, name: str, values: list[list[int]], size: tuple[int, int] | None = None):
    """One image (noise, or all of one size alike) and one mask."""
    labels = np.array(values, np.uint8)
    image = RNG.integers(0, 256, (*(size or labels.shape), 3), dtype=np.uint8)
    for folder, picture in (("images", image), ("masks", labels)):
        path = root / Path(name).parent / folder / f"{Path(name).name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "classes.yaml").write_text("classes: [sky, road]")
    pair(tmp_path, "train/a", [[0, 1, 1, 1]])
    pair(tmp_path, "train/b", [[0, 0, 255, 255]])
    pair(tmp_path, "val/c", [[0, 1]])
    return tmp_path


def opened(root: Path) -> DataSet:
    return open_labels(config.Data(root=str(root)))


def texts(report: LabelReport, severity: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.severity == severity]


def test_clean_data_has_no_findings_and_is_counted(root):
    report = check_labels(opened(root))
    assert report.findings == []
    assert report.pixel_counts["train"].tolist() == [3, 3]
    assert report.pixel_counts["val"].tolist() == [1, 1]
    assert report.image_pixels["train"].tolist() == [6, 4]
    assert report.ignored == {"train": 2, "val": 0}
    report.refuse_errors()
    assert report.table().splitlines() == [
        "class         train       val",
        "sky          37.50%    50.00%",
        "road         37.50%    50.00%",
        "(ignored)    25.00%     0.00%",
    ]


def test_values_without_class_are_told_once_a_value(root):
    pair(root, "train/d", [[7, 1]])
    pair(root, "train/e", [[7, 8]])
    report = check_labels(opened(root))
    folder = f"{root}/train/masks"
    assert texts(report, "error") == [
        f"2 masks ({folder}/d.png, {folder}/e.png) hold the value 7, but there are 2 classes (0 to 1); add the class "
        "to classes.yaml or map it: --data.map 7:255",
        f"{folder}/e.png holds the value 8, but there are 2 classes (0 to 1); add the class to classes.yaml or map "
        "it: --data.map 8:255",
    ]
    with pytest.raises(UserError) as error:
        report.refuse_errors()
    assert str(error.value).startswith(f"the data cannot be trained on:\n- 2 masks ({folder}/d.png")
    assert str(error.value).count("\n- ") == 2


def test_unreadable_files_and_sizes_that_differ(root):
    (root / "train/images/a.png").write_bytes(b"")
    (root / "train/masks/b.png").write_bytes(b"no picture")
    pair(root, "val/d", [[0, 1]], size=(2, 2))
    assert texts(check_labels(opened(root)), "error") == [
        f"{root}/train/images/a.png is empty (0 bytes); copy it again or remove it",
        f"{root}/train/masks/b.png is not a readable picture (png, jpg, jpeg, webp, tif, tiff, bmp)",
        f"{root}/val/images/d.png is 2 x 2 (height x width), but its mask {root}/val/masks/d.png is 1 x 2; "
        "export the mask at the image's size",
    ]


def test_ten_errors_of_a_kind_are_written_out(root):
    for i in range(13):
        pair(root, f"train/x{i:02}", [[0, 1]], size=(3, 3))
    errors = texts(check_labels(opened(root)), "error")
    assert len(errors) == 11
    assert errors[-1] == "and 3 more sizes that differ"


def test_classes_that_are_never_learnt(root):
    (root / "classes.yaml").write_text("classes: [sky, road, sea]")
    assert texts(check_labels(opened(root)), "warning") == [
        "no training mask holds class 2 (sea), but 25% of the pixels are ignored; if 255 means it: --data.map 255:2"
    ]
    pair(root, "train/b", [[0, 1]])
    assert texts(check_labels(opened(root)), "warning") == ["no training mask holds class 2 (sea)"]


def test_masks_that_teach_nothing(root):
    pair(root, "train/d", [[255, 255]])
    assert texts(check_labels(opened(root)), "warning") == [
        "train: 1 of 3 masks hold nothing but ignored pixels (d); they teach nothing: label them or remove them"
    ]


def test_masks_stored_with_loss(root):
    Image.open(root / "val/masks/c.png").convert("L").save(root / "val/masks/c.jpg", quality=100)
    (root / "val/masks/c.png").unlink()
    assert (
        f"val: 1 masks are JPEG files ({root}/val/masks/c.jpg), which changes values at edges; export them as PNG"
    ) in texts(check_labels(opened(root)), "warning")


def test_images_of_val_and_test_that_are_also_in_train(root):
    os.link(root / "train/images/a.png", root / "val/images/z.png")
    Image.fromarray(np.zeros((1, 4), np.uint8)).save(root / "val/masks/z.png")
    assert texts(check_labels(opened(root)), "warning") == [
        f"1 images of val are also in train ({root}/val/images/z.png = {root}/train/images/a.png); scores there come "
        "out too high: remove one of each pair"
    ]


def test_a_test_split_without_masks_is_no_error(root):
    (root / "test/images").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(root / "test/images/t.png")
    report = check_labels(opened(root))
    assert report.findings == []
    assert report.pixel_counts["test"].tolist() == [0, 0]


def test_of_generated_samples_a_few_are_counted():
    class Drawn:
        name = "drawn"

        def target(self):
            return np.zeros((2, 2), np.uint8)

    data = DataSet(Classes(("a",), default_colors(1)), {"train": [Drawn()] * (GENERATED + 50)}, "drawn")
    assert check_labels(data).pixel_counts["train"].tolist() == [4 * GENERATED]


def test_weights_are_median_frequency_over_frequency():
    counts = {"train": np.array([300, 50, 0, 10])}
    in_images = {"train": np.array([400, 400, 0, 100])}
    report = LabelReport([], Classes(tuple("abcd"), default_colors(4)), counts, in_images, {"train": 0})
    weights = median_frequency_weights(report)  # frequencies 0.75, 0.125, none, 0.1: the median is 0.125
    np.testing.assert_allclose(weights, [0.125 / 0.75, 1, 1, 1.25], rtol=1e-6)
    assert weights.dtype == np.float32


def test_warnings_alone_do_not_refuse():
    LabelReport([Finding("warning", "x")], Classes(("a",), default_colors(1)), {}, {}, {}).refuse_errors()
