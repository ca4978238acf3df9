"""Proves that connected regions are those that a search from pixel to pixel finds."""

import numpy as np
import pytest
from skimage.measure import label

from segmenter.evaluation.components import components


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5), (40, 61)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_skimage_finds_them(shape, count):
    for seed in range(5):
        values = np.random.default_rng(seed).integers(-1, count, shape)
        found, number = components(values)
        expected, known = label(values + 1, background=0, connectivity=2, return_num=True)
        assert number == known
        pairs = np.unique(np.stack([found, expected]).reshape(2, -1), axis=1)
        assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))  # one number for one number
        assert np.array_equal(found == 0, values < 0)


def test_a_region_may_wind_and_numbers_go_from_the_top():
    values = np.array([[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    found, number = components(values)
    assert found.tolist() == (values + 1).tolist()  # they touch at corners
    assert number == 2
    spiral = np.array([[0, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    assert components(np.where(spiral == 0, 0, -1))[1] == 1


def test_nothing_is_no_region():
    found, number = components(np.full((3, 4), -1))
    assert number == 0
    assert not found.any()


def test_rows_do_not_touch_round_the_edge():
    assert components(np.array([[-1, 0], [-1, -1], [0, -1]]))[1] == 2
    assert components(np.array([[-1, -1, 0], [0, -1, -1]]))[1] == 2
