"""Proves that connected regions are those that a search from pixel to pixel finds, and two libraries."""

import numpy as np
import pytest
from label_maps import flooded, patches
from scipy import ndimage
from skimage.measure import label

from segmenter.evaluation.components import components, regions


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


@pytest.mark.parametrize("size", [(40, 57), (1, 30), (30, 1), (1, 1), (2, 2), (33, 3)])
@pytest.mark.parametrize("cell", [1, 4])
def test_regions_are_those_of_flooding(size, cell):
    for seed in range(5):
        labels = patches(seed, size, 3, cell=cell)
        found, wanted = regions(labels), flooded(labels)
        assert np.array_equal(found.ids(), wanted)  # numbers too: in the order of the first pixels
        assert found.areas.tolist() == np.bincount(wanted.ravel()).tolist()
        assert found.classes.tolist() == [labels[wanted == number][0] for number in range(len(found))]


def test_regions_are_those_of_scipy_on_a_larger_map():
    labels = patches(1, (300, 411), 12, cell=9)
    found = regions(labels)
    for value in np.unique(labels):
        wanted, count = ndimage.label(labels == value, np.ones((3, 3)))
        ours = found.ids()[labels == value]
        pairs = np.unique(np.stack([wanted[labels == value], ours]), axis=1)
        assert pairs.shape[1] == count == (found.classes == value).sum()


def spiral(side: int) -> np.ndarray:
    """A path one pixel wide that winds to the middle, which few rounds of neighbours joining would not follow."""
    labels, place, step = np.zeros((side, side), np.uint8), (0, 0), (0, 1)
    labels[place] = 1
    while True:
        for _ in range(2):
            ahead = [(place[0] + n * step[0], place[1] + n * step[1]) for n in (1, 2)]
            inside = [0 <= y < side and 0 <= x < side for y, x in ahead]
            if inside[0] and not labels[ahead[0]] and not (inside[1] and labels[ahead[1]]):
                place = ahead[0]
                labels[place] = 1
                break
            step = (step[1], -step[0])
        else:
            return labels


@pytest.mark.parametrize("turns", range(4))
def test_a_long_winding_region_is_one(turns):
    labels = np.rot90(spiral(61), turns)
    wanted = ndimage.label(labels == 1, np.ones((3, 3)))[1] + ndimage.label(labels == 0, np.ones((3, 3)))[1]
    assert len(regions(labels)) == wanted
    assert (regions(labels).classes == 1).sum() == 1


def test_corners_touch():
    assert len(regions(np.eye(50, dtype=np.uint8))) == 2  # what lies beside the line meets across it
    board = np.indices((8, 8)).sum(0).astype(np.uint8) % 2
    assert len(regions(board)) == 2
    assert len(regions(np.flip(np.eye(50, dtype=np.uint16), 1))) == 2


def test_instances_are_regions_wherever_they_lie():
    for seed in range(5):
        labels = patches(seed, (30, 41), 3)
        instances = np.random.default_rng(seed).integers(-2, 4, labels.shape).clip(0)
        assert np.array_equal(regions(labels, instances).ids(), flooded(labels, instances))
    assert np.array_equal(regions(labels, np.zeros(labels.shape, np.int32)).ids(), regions(labels).ids())


def test_instances_with_large_numbers_and_labels_stay_apart():
    labels = np.array([[65535, 65535, 0, 65534]], np.uint16)
    instances = np.array([[2**31 - 1, 2**31 - 2, 2**31 - 1, 1]], np.int32)
    assert regions(labels, instances).areas.tolist() == [1, 1, 1, 1]
    assert regions(labels, instances).classes.tolist() == labels[0].tolist()
