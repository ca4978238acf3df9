"""Data sets that other libraries wrote (see recording.py) give the pixels that those libraries make of them.

datumaro and Label Studio's SDK are matched but for rounding; labelme draws with Pillow and supervision with OpenCV,
which give an outline the pixels that it touches, so that there a line of pixels along the edges differs.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from segmenter.config import Data
from segmenter.data.layouts import open_labels

GOLDENS = Path(__file__).parents[2] / "goldens" / "annotations"
EXACT = ("datumaro_coco", "datumaro_voc", "label_studio")


def edges(labels: np.ndarray) -> np.ndarray:
    """Pixels (H W, bool) at most one away from another label, or from the picture's border."""
    border = np.ones(labels.shape, bool)
    border[1:-1, 1:-1] = False
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        border |= np.pad(differs, [(0, int(axis == i)) for i in (0, 1)])
        border |= np.pad(differs, [(int(axis == i), 0) for i in (0, 1)])
    return binary_dilation(border, np.ones((3, 3)))


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDENS.glob("*.zip")))
def test_pixels_are_those_of_the_library_that_wrote_them(name, tmp_path):
    with zipfile.ZipFile(GOLDENS / f"{name}.zip") as archive:
        archive.extractall(tmp_path)
    data = open_labels(Data(str(tmp_path)))
    truth = np.load(GOLDENS / f"{name}.npz")
    ids = np.array([data.classes.names.index(known) for known in truth["names"]], np.uint8)
    samples = [sample for split in data.splits.values() for sample in split]
    assert {sample.name for sample in samples} == {"p0", "p1", "p2"}
    for sample in samples:
        wanted, found = ids[truth[sample.name]], sample.target()
        assert len(np.unique(wanted)) == 4
        differs = wanted != found
        if name in EXACT:
            assert not differs.any()
        assert differs.mean() < 0.001
        assert not (differs & ~edges(wanted)).any()


def test_recorded_splits_are_kept(tmp_path):
    for name in ("datumaro_coco", "datumaro_cvat", "datumaro_voc"):
        with zipfile.ZipFile(GOLDENS / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        data = open_labels(Data(str(tmp_path / name)))
        assert {split: [sample.name for sample in samples] for split, samples in data.splits.items()} == {
            "train": ["p0"],
            "val": ["p1"],
            "test": ["p2"],
        }
