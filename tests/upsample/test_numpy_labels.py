"""Proves that the labels in NumPy are those of torch and of the composition, and need no torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from composition import CASES, LARGE, assert_labels, composed, smooth

from segmenter import upsample
from segmenter.upsample import Geometry, numpy_labels

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = {str(case.seed): (case.geometry(), case.logits(case.geometry())) for case in CASES[::2]}
ALL |= {name: (geometry, smooth((geometry.window_count, 13, *geometry.grid))) for name, geometry in LARGE.items()}


@pytest.mark.parametrize(("geometry", "logits"), ALL.values(), ids=ALL)
def test_labels_are_those_of_the_composition(geometry, logits):
    found = numpy_labels.labels(logits.numpy(), geometry)
    assert found.dtype == (np.uint8 if logits.shape[1] <= 256 else np.uint16)
    assert_labels(torch.from_numpy(found.astype(np.int64)), logits, geometry)


@pytest.mark.parametrize("geometry", [Geometry((4, 8), (64, 128)), Geometry((16, 32), (32, 64))])
def test_the_first_class_wins_ties(geometry):
    logits = torch.randint(-3, 4, (2, 9, *geometry.grid), generator=torch.Generator().manual_seed(0)).float()
    found = numpy_labels.labels(logits.numpy(), geometry)
    assert np.array_equal(found, upsample.labels(logits, geometry).numpy())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("windows", [None, ((0, 40), (0, 33))])
def test_what_is_not_finite_stays_where_its_cell_has_weight(bad, windows):
    geometry = Geometry((4, 5), (64, 80), windows=windows)
    logits = torch.randn(geometry.window_count, 6, 4, 5, generator=torch.Generator().manual_seed(3))
    logits[0, 3, 2, 2] = bad
    found = numpy_labels.labels(logits.numpy(), geometry)
    expected = upsample.labels(logits, geometry).numpy()
    assert (found != expected).mean() < 1e-3  # rounding at near ties
    reach = composed((logits == bad) | logits.isnan(), geometry)[0, 3].numpy() > 0
    assert np.array_equal(found[0][reach], expected[0][reach])


def test_half_precision():
    geometry, logits = Geometry((4, 5), (64, 80)), smooth((1, 6, 4, 5)).half()
    assert np.array_equal(
        numpy_labels.labels(logits.numpy(), geometry), numpy_labels.labels(logits.float().numpy(), geometry)
    )


def test_how_much_is_done_at_once_changes_nothing(monkeypatch):
    geometry, logits = LARGE["grid finer than the pixels"], smooth((2, 6, 64, 70)).numpy()
    expected = numpy_labels.labels(logits, geometry)
    monkeypatch.setattr(numpy_labels, "BAND", 1)
    assert (numpy_labels.labels(logits, geometry) != expected).mean() < 1e-3


def test_wrong_shapes_are_refused():
    geometry = Geometry((4, 5), (64, 80), windows=((0, 8), (0,)))
    for shape in [(1, 3, 4, 5), (2, 3, 4, 4), (3, 4, 5)]:
        with pytest.raises(ValueError, match=r"do not fit a grid of \(4, 5\) with 2 windows an image"):
            numpy_labels.labels(np.zeros(shape, np.float32), geometry)


def test_torch_is_not_needed():
    code = """
import sys
sys.modules["torch"] = None  # importing it fails
import numpy as np
from segmenter.upsample import Geometry
from segmenter.upsample.numpy_labels import labels
logits = np.zeros((1, 3, 4, 5), np.float32)
logits[:, 2, :, 2:] = 1
print(labels(logits, Geometry((4, 5), (64, 80))).mean(), end=" ")
try:
    from segmenter.upsample import labels
except ImportError:
    print("no torch")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "1.4 no torch\n", ended.stderr
