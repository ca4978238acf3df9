"""Proves that a point of a photo is found again in its window and patch, and that classes are looked at inside."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch

from segmenter import config
from segmenter.errors import UserError
from segmenter.inspection.places import (
    Box,
    class_id,
    refuse_outside_photo,
    widest_places,
    window_at,
    windows_on,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def photo(height: int, width: int) -> np.ndarray:
    """Red and green say where a pixel lies."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 0], 2).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    """Windows of 64 x 96, one every 64 x 96 pixels; patches of 16."""
    return tiny_models.small_model()


def test_windows_are_those_of_prediction(model):
    windows = windows_on(model, photo(100, 200), native=True)
    assert [window.box for window in windows] == [
        (y, x, y + 64, x + 96) for y in (0, 36) for x in (0, 96, 104)
    ]  # the last of a row and a column are shifted back to the border
    assert [(window.row, window.column) for window in windows] == [(y, x) for y in range(2) for x in range(3)]
    assert {(window.rows, window.columns, window.grid) for window in windows} == {(2, 3, (4, 6))}
    for window in windows:
        top, left = (int(side) for side in window.box[:2])
        assert torch.equal(window.pixels[0, :, 0], torch.arange(top, top + 64).to(torch.uint8))
        assert torch.equal(window.pixels[1, 0], torch.arange(left, left + 96).to(torch.uint8))


@pytest.mark.parametrize(
    ("size", "native"), [((100, 200), True), ((100, 200), False), ((30, 37), False), ((51, 7), True)]
)
def test_the_patch_of_a_point_holds_it(model, size, native):
    windows = windows_on(model, photo(*size), native)
    for at in [(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3), (size[0] - 1, 0)]:
        window = window_at(windows, at)
        box = window.patch_box(*window.patch(at))
        assert box.top <= at[0] + 0.5 <= box.bottom
        assert box.left <= at[1] + 0.5 <= box.right
        assert window.box.top <= box.top < box.bottom <= window.box.bottom + 1e-9
        assert all(place < side for place, side in zip(window.patch(at), window.grid, strict=True))


def test_of_the_windows_over_a_point_the_one_with_most_around_it_is_looked_at(model):
    overlapping = config.Inference(window=(64, 96), stride=(16, 16))
    windows = windows_on(model, photo(128, 192), native=True, inference=overlapping)
    window = window_at(windows, (64, 96))
    assert window.box == (32, 48, 96, 144)
    assert window_at(windows, (0, 0)).box == (0, 0, 64, 96)


def test_a_window_says_which_it_is(model):
    assert windows_on(model, photo(64, 96))[0].describe() == "the whole photo"
    last = windows_on(model, photo(100, 200), native=True)[-1]
    assert last.describe() == "window 6 of 6 (row 2 of 2, column 3 of 3): x 104 to 200, y 36 to 100"


def test_a_photo_that_is_scaled_keeps_its_own_coordinates(model):
    (window,) = windows_on(model, photo(128, 192))  # half of it is the window
    assert window.box == Box(0, 0, 128, 192)
    assert window.pixels.shape == (3, 64, 96)
    assert window.patch((127, 191)) == (3, 5)
    assert window.patch_box(3, 5) == Box(96, 160, 128, 192)


def test_an_enlarged_photo_keeps_its_own_coordinates(model):
    enlarging = replace(model.recipe.inference, enlarge=True)
    windows = windows_on(model, photo(32, 48), native=True, inference=enlarging)
    assert [window.box for window in windows] == [(0, 0, 32, 48)]
    assert windows[0].patch((31, 47)) == (3, 5)


def test_a_model_of_depth_sees_the_photo_whole():
    model = tiny_models.small_model("dpt_depth", depth=4)
    (window,) = windows_on(model, photo(64, 200), native=True)
    assert window.grid == (4, 13)
    assert window.patch_box(3, 12) == Box(48, 192, 64, 200)  # what is padding lies beyond the photo


@pytest.mark.parametrize("at", [(-1, 0), (0, -1), (30, 0), (0, 40), (500, 500)])
def test_a_point_outside_the_photo(at):
    with pytest.raises(
        UserError, match="lies outside the photo, which is 40 pixels wide and 30 high; give x from 0 to 39"
    ):
        refuse_outside_photo(at, (30, 40))
    refuse_outside_photo((29, 39), (30, 40))


def test_a_class_the_model_has_not():
    classes = tiny_models.classes(40)
    assert class_id(classes, "c7") == 7
    with pytest.raises(UserError, match="the model has no class 'c7x'; perhaps c7 or"):
        class_id(classes, "c7x")
    with pytest.raises(UserError, match=r"no class 'heaven'; it has c0, c1, .* and 20 more$"):
        class_id(classes, "heaven")


def test_the_widest_place_of_a_class_lies_in_it():
    labels = np.zeros((60, 90), np.uint8)
    labels[5:55, 5:85] = 1
    labels[15:45, 15:85] = 0  # a ring open at the right: its middle is not in it
    labels[20:31, 40:51] = 2
    found = widest_places(labels, 3)
    assert set(found) == {0, 1, 2}
    for label, at in found.items():
        assert labels[at] == label
    assert found[2] == (25, 45)
    assert list(widest_places(labels, 1)) == [0]


def test_a_large_photo_is_looked_at_coarsely():
    labels = np.zeros((3000, 4000), np.uint8)
    labels[1000:2000, 500:1500] = 3
    row, column = widest_places(labels, 2)[3]
    assert abs(row - 1500) < 40
    assert abs(column - 1000) < 40
    for size in ((1, 1), (1, 5000), (5000, 1)):
        at = widest_places(np.zeros(size, np.uint8), 1)[0]
        assert at[0] < size[0]
        assert at[1] < size[1]
