"""Proves that boundary IoU is that of a direct implementation of its definition, class by class."""

import math

import numpy as np
import pytest
from label_maps import patches
from scipy import ndimage

from segmenter.evaluation.boundaries import count_boundaries, near_contours, width_of

SQUARE = np.ones((3, 3))


def boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask's boundary as published: what `width` erosions take away, where nothing lies beyond the image."""
    padded = np.pad(mask, 1)
    return mask & ~ndimage.binary_erosion(padded, SQUARE, iterations=width)[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(40, 60), (7, 90), (1, 20), (31, 31)])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.06, 0.3])
def test_counts_are_those_of_the_published_definition(size, share):
    truth = patches(3, size, 4, ignore=1, cell=9)
    predicted = patches(4, size, 4, ignore=2, cell=9)
    width = max(1, round(share * math.hypot(*size)))
    found = {int(row["class"]): row for row in count_boundaries(truth, predicted, 255, share)}
    for label in range(4):
        masks = truth == label, predicted == label
        edges = [boundary(mask, width) for mask in masks]
        row = found[label]
        assert row["hits"] == (edges[0] & edges[1]).sum()
        assert row["true"] == edges[0].sum()
        assert row["predicted"] == edges[1].sum()


def test_ignored_pixels_have_no_contour_and_lie_in_no_class():
    truth, predicted, width = patches(5, (30, 40), 3, cell=8), patches(6, (30, 40), 3, ignore=0, cell=8), 3
    valid = truth != 255
    for labels in (truth, predicted):
        found = near_contours(labels, valid, width)
        for y, x in np.ndindex(labels.shape):
            square = (slice(max(y - width, 0), y + width + 1), slice(max(x - width, 0), x + width + 1))
            border = min(y, x, labels.shape[0] - 1 - y, labels.shape[1] - 1 - x) < width
            others = (labels[square] != labels[y, x]) & valid[square]
            assert found[y, x] == (valid[y, x] and (border or others.any()))


def test_a_shifted_square_is_worse_at_its_boundary():
    truth = np.zeros((100, 100), np.uint8)
    truth[20:80, 20:80] = 1
    predicted = np.roll(truth, 3, 1)
    row = count_boundaries(truth, predicted, 255, 0.02)[1]  # 3 pixels wide
    assert row["true"] == row["predicted"] == 60**2 - 54**2
    assert row["hits"] == 2 * 3 * 57  # rows above and below; the upright sides miss each other by their width
    assert count_boundaries(truth, truth, 255, 0.02)[1]["hits"] == row["true"]


def test_the_width_is_a_share_of_the_diagonal_and_at_least_a_pixel():
    assert width_of((720, 960), 0.02) == 24
    assert width_of((30, 40), 0.02) == 1
    assert width_of((10, 10), 0.001) == 1


def test_labels_of_16_bits():
    narrow, other = patches(3, (40, 60), 4, cell=9), patches(4, (40, 60), 4, ignore=2, cell=9)
    wide = np.where(narrow == 255, 65535, narrow.astype(int) + 500).astype(np.uint16)
    found = count_boundaries(wide, other.astype(np.uint16) + 500, 65535, 0.02)
    assert found["class"].tolist() == [500, 501, 502, 503]
    for name in ("true", "predicted", "hits"):
        assert found[name].tolist() == count_boundaries(narrow, other, 255, 0.02)[name].tolist()
