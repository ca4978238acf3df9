"""Proves that a geometry knows its size, its matrices are convex mixes, and one that cannot be is refused."""

import pytest
import torch
from composition import CASES

from segmenter.upsample import Geometry

pytestmark = pytest.mark.usefixtures("one_thread")


def test_size_is_the_last_thing_that_was_asked_for():
    assert Geometry((2, 3), (32, 48)).size == (32, 48)
    assert Geometry((2, 3), (32, 48), content=(30, 41)).size == (30, 41)
    windows = ((0, 10), (0, 20, 40))
    assert Geometry((2, 3), (32, 48), content=(30, 41), windows=windows).size == (40, 81)
    assert Geometry((2, 3), (32, 48), content=(30, 41), windows=windows, final=(7, 9)).size == (7, 9)
    assert Geometry((2, 3), (32, 48), windows=windows).window_count == 6
    assert Geometry((2, 3), (32, 48)).window_count == 1


@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: str(case.seed))
def test_every_pixel_is_a_convex_mix_of_cells(case):
    geometry = case.geometry()
    for matrices, pixels, cells in zip(
        (geometry.rows, geometry.columns), geometry.size, geometry.grid, strict=True
    ):
        assert all(matrix.shape == (pixels, cells) for matrix in matrices)
        assert all((matrix >= 0).all() for matrix in matrices)
        torch.testing.assert_close(sum(matrix.sum(1) for matrix in matrices), torch.ones(pixels))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"grid": (0, 4)}, "at least 1 pixel or cell"),
        ({"extent": (0, 4)}, "at least 1 pixel or cell"),
        ({"content": (0, 4)}, "at least 1 pixel or cell"),
        ({"final": (3, 0)}, "at least 1 pixel or cell"),
        ({"content": (33, 4)}, r"content \(33, 4\) is larger than extent"),
        ({"windows": ((0, 33), (0,))}, r"windows of 32 pixels at \(0, 33\) do not cover"),
        ({"windows": ((0,), (-1, 3))}, "do not cover"),
        ({"windows": ((0,), ())}, "do not cover"),
    ],
)
def test_what_cannot_be_is_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        Geometry(**({"grid": (2, 3), "extent": (32, 48)} | wrong))
