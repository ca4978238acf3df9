"""Proves that a geometry knows its size, that pixels are convex mixes of cells and of points, and what is refused."""

from itertools import chain

import numpy as np
import pytest
from composition import CASES, LARGE

from segmenter.upsample import Geometry


def test_size_is_the_last_thing_that_was_asked_for():
    assert Geometry((2, 3), (32, 48)).size == (32, 48)
    assert Geometry((2, 3), (32, 48), content=(30, 41)).size == (30, 41)
    windows = ((0, 10), (0, 20, 40))
    assert Geometry((2, 3), (32, 48), content=(30, 41), windows=windows).size == (40, 81)
    assert Geometry((2, 3), (32, 48), content=(30, 41), windows=windows, final=(7, 9)).size == (7, 9)
    assert Geometry((2, 3), (32, 48), windows=windows).window_count == 6
    assert Geometry((2, 3), (32, 48)).window_count == 1


ALL = {str(case.seed): case.geometry() for case in CASES} | LARGE


@pytest.mark.parametrize("geometry", ALL.values(), ids=ALL)
def test_every_pixel_is_a_convex_mix_of_cells(geometry):
    for axis, pixels in zip(geometry.axes, geometry.size, strict=True):
        cells, matrix = axis.matrix(slice(0, pixels))
        assert matrix.shape == (pixels, cells.stop - cells.start)
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
        some, part = axis.matrix(slice(pixels // 2, pixels))
        inside = slice(some.start - cells.start, some.stop - cells.start)
        np.testing.assert_array_equal(part, matrix[pixels // 2 :, inside])


@pytest.mark.parametrize("geometry", ALL.values(), ids=ALL)
def test_blocks_mix_the_same_cells(geometry):
    for axis, pixels in zip(geometry.axes, geometry.size, strict=True):
        blocks = axis.blocks
        weights = np.broadcast_to(blocks.weights, (blocks.count, blocks.length, blocks.size))
        mixed = np.zeros((blocks.count, blocks.length, len(axis.order)))
        for block in range(blocks.count):
            for cell, column in zip(blocks.cells[block], weights[block].T, strict=True):
                mixed[block, :, cell] += column
        under, matrix = axis.matrix(slice(0, pixels))
        mixed = mixed.reshape(-1, len(axis.order))[blocks.places]
        np.testing.assert_array_equal(mixed[:, under].astype(np.float32), matrix)
        assert not np.delete(mixed, np.r_[under], 1).any()


@pytest.mark.parametrize("geometry", ALL.values(), ids=ALL)
def test_pixels_lie_between_the_points_of_their_block(geometry):
    generator = np.random.default_rng(0)
    for axis, pixels in zip(geometry.axes, geometry.size, strict=True):
        blocks, points = axis.blocks, axis.blocks.points
        values = generator.normal(size=(len(axis.order), 100))
        at_points = (values[points.cells] * points.taps[..., None]).sum(1)
        under, matrix = axis.matrix(slice(0, pixels))
        at_pixels = matrix @ values[under]
        for block in range(blocks.count):
            here, inside = at_points[blocks.points_of(slice(block, block + 1))], slice(block, block + 1)
            assert len(here) == points.size
            assert (at_pixels[blocks.pixels(inside)] <= here.max(0) + 1e-5).all()
            assert (at_pixels[blocks.pixels(inside)] >= here.min(0) - 1e-5).all()


@pytest.mark.parametrize("geometry", ALL.values(), ids=ALL)
def test_every_pixel_has_its_own_place(geometry):
    for axis, pixels in zip(geometry.axes, geometry.size, strict=True):
        blocks = axis.blocks
        assert len(blocks.places) == pixels
        assert (np.diff(blocks.places) > 0).all()
        assert blocks.places[0] >= 0
        assert blocks.places[-1] < blocks.count * blocks.length
        assert sum(len(range(pixels)[blocks.pixels(slice(i, i + 1))]) for i in range(blocks.count)) == pixels


def test_a_large_photo_needs_little():
    windows = (tuple(range(0, 5489, 480)), tuple(range(0, 7489, 480)))
    for geometry in (
        Geometry((32, 32), (512, 512), windows=windows, final=(6000, 8000)),
        Geometry((32, 43), (512, 683), final=(6000, 8000)),
    ):
        for axis in geometry.axes:
            parts = [vars(part).values() for part in (axis, axis.blocks, axis.blocks.points)]
            assert sum(array.nbytes for array in chain(*parts) if isinstance(array, np.ndarray)) < 2e6


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
