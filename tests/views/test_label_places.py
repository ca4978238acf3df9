"""Proves that names on a map stand on nothing: no other name, no dot, and hardly ever a line to a dot."""

import numpy as np
import pytest

from segmenter.views.label_places import places

DOT = 4.0


SIDE = 1040


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether boxes (M 4) overlap others (N 4): M N."""
    first, second = np.asarray(boxes)[:, None], np.asarray(others)[None]
    return ((first[..., :2] < second[..., 2:]) & (second[..., :2] < first[..., 2:])).all(-1)


@pytest.mark.parametrize("crowd", ["blob", "two groups", "line", "one place"])
@pytest.mark.parametrize("count", [1, 2, 60, 150])
def test_names_stand_on_nothing(crowd, count):
    generator = np.random.default_rng(count)
    points = generator.normal(size=(count, 2)) * 190 + SIDE / 2
    if crowd == "two groups":
        points = generator.normal(size=(count, 2)) * 60 + generator.choice([250.0, 750.0], (count, 1))
    elif crowd == "line":
        points[:, 1] = SIDE / 2
    elif crowd == "one place":
        points = SIDE / 2 + generator.normal(size=(count, 2))
    points = points.clip(40, SIDE - 40)
    sizes = np.stack([generator.uniform(15, 80, count), np.full(count, 8.5)], 1)
    found = places(points, sizes, (SIDE, SIDE), DOT, np.empty((0, 2)))
    boxes = np.array([place.box for place in found])
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE
    assert overlap(boxes, boxes).sum() == count  # each with itself
    assert not overlap(boxes, np.concatenate([points - DOT + 0.01, points + DOT - 0.01], 1)).any()
    if crowd == "blob":
        lines = [np.linspace(*place.line, 30)[:-1] for place in found if place.line]
        crossed = sum(overlap(boxes, np.tile(line, 2)).any(1).sum() for line in lines)
        assert crossed <= count // 15


def test_a_lone_point_has_its_name_beside_it_and_no_line():
    (place,) = places(np.array([[50.0, 50.0]]), np.array([[30.0, 8.0]]), (100, 100), DOT, np.empty((0, 2)))
    assert place.line is None
    assert 50 + DOT < place.box[0] < 60


def test_names_spare_what_is_asked_where_there_is_room():
    point, size = np.array([[50.0, 50.0]]), np.array([[30.0, 8.0]])
    (plain,) = places(point, size, (100, 100), DOT, np.empty((0, 2)))
    middle = np.array([[(plain.box[0] + plain.box[2]) / 2, (plain.box[1] + plain.box[3]) / 2]])
    (sparing,) = places(point, size, (100, 100), DOT, middle)
    assert not overlap([sparing.box], np.tile(middle, 2)).any()


def test_a_name_without_room_has_no_place():
    assert places(np.array([[5.0, 5.0]]), np.array([[30.0, 8.0]]), (10, 10), DOT, np.empty((0, 2))) == [None]
