"""The rule by which shapes become pixels, and the run lengths of three formats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from segmenter.data.annotations.raster import draw, fill
from segmenter.data.annotations.record import BadShape, Bitmap, Outline, Shape, box, ellipse, turned
from segmenter.data.annotations.run_lengths import coco_mask, cvat_mask, label_studio_mask

SIZE = (40, 60)


def drawn(*forms, size=SIZE, orders=None) -> np.ndarray:
    """Labels (H W) of forms with the values 1, 2, 3, ... on 0."""
    labels = np.zeros(size, np.uint8)
    shapes = [Shape(i, form, f"shape {i}", orders[i] if orders else 0) for i, form in enumerate(forms)]
    assert list(draw(shapes, labels, range(1, len(forms) + 1), 255, False)) == []
    return labels


def ring(*points) -> np.ndarray:
    return np.array(points, dtype=np.float64)


def test_a_pixel_belongs_to_the_outline_that_its_centre_lies_in():
    labels = drawn(Outline((box(2, 3, 5, 7),)))
    wanted = np.zeros(SIZE, np.uint8)
    wanted[3:7, 2:5] = 1
    assert (labels == wanted).all()
    assert (drawn(Outline((box(2.4, 3.4, 5.4, 7.4),))) == wanted).all()
    assert (drawn(Outline((box(2.6, 3.6, 5.6, 7.6),)))[4:8, 3:6] == 1).all()


def test_a_common_edge_shares_its_pixels_out():
    left = ring([0, 0], [33.3, 0], [21.7, 40], [0, 40])
    right = ring([33.3, 0], [60, 0], [60, 40], [21.7, 40])
    both = [fill([one], SIZE) for one in (left, right)]
    covered = np.zeros(SIZE, int)
    for x, y, pixels in both:
        height, width = min(pixels.shape[0], SIZE[0] - y), min(pixels.shape[1], SIZE[1] - x)
        covered[y : y + height, x : x + width] += pixels[:height, :width]
    assert (covered == 1).all()


def test_holes_are_open_and_what_lies_below_shows():
    below = Outline((box(0, 0, 60, 40),))
    above = Outline((box(10, 10, 40, 30), box(20, 15, 30, 25)))
    labels = drawn(below, above)
    assert (labels[10:15, 10:40] == 2).all()
    assert (labels[15:25, 20:30] == 1).all()


def test_later_covers_earlier_and_higher_covers_lower():
    one, other = Outline((box(0, 0, 20, 20),)), Outline((box(10, 10, 30, 30),))
    assert drawn(one, other)[15, 15] == 2
    assert drawn(one, other, orders=[1, 0])[15, 15] == 1


def test_where_an_outline_crosses_itself_inside_twice_is_outside():
    star = ring([5, 20], [55, 20], [55, 30], [25, 30], [25, 5], [35, 5], [35, 35], [5, 35])
    labels = drawn(Outline((star,)))
    assert labels[10, 30] == 1
    assert labels[25, 30] == 0


def test_what_leaves_the_picture_is_cut_off():
    labels = drawn(Outline((box(-10, -10, 5, 5),)), Outline((box(55, 35, 80, 90),)))
    assert (labels[:5, :5] == 1).all()
    assert (labels[35:, 55:] == 2).all()
    assert (labels > 0).sum() == 50


@pytest.mark.parametrize("scale", [1, 1000])
def test_what_lies_outside_or_far_beyond_is_named(scale):
    shape = Shape(0, Outline((box(100 * scale, 0, 110 * scale, 5),)), "shape 7")
    said = list(draw([shape], np.zeros(SIZE, np.uint8), [1], 255, False))
    assert len(said) == 1
    assert "shape 7 lies from (" in said[0]
    assert "outside its picture of 40 x 60" in said[0]
    zigzag = ring(*[(x % 2 * 1e6, x) for x in range(60)])
    said = list(draw([Shape(0, Outline((zigzag,)), "shape 8")], np.zeros(SIZE, np.uint8), [1], 255, False))
    assert "shape 8 reaches or runs far beyond" in said[0]


def test_circles_and_turned_boxes():
    labels = drawn(Outline((ellipse(30, 20, 15, 10),)))
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    radius = np.sqrt(((columns + 0.5 - 30) / 15) ** 2 + ((rows + 0.5 - 20) / 10) ** 2)
    clear = np.abs(radius - 1) > 0.2 / 10  # corners are rounded to fifths of a pixel
    assert ((labels == 1) == (radius < 1))[clear].all()
    upright = turned(box(10, 10, 20, 14), (10, 10), 90)  # clockwise around the corner: it hangs down on the left
    assert np.allclose(upright, [[10, 10], [10, 20], [6, 20], [6, 10]])


corner = st.tuples(st.floats(0, SIZE[1], width=32), st.floats(0, SIZE[0], width=32))


@given(st.lists(corner, min_size=3, max_size=12))
def test_outlines_within_the_picture_are_drawn_as_pycocotools_does(points):
    found = drawn(Outline((ring(*points),)))
    packed = coco.frPyObjects([ring(*points).ravel().tolist()], *SIZE)[0]
    assert (found == coco_mask(packed["counts"].decode(), SIZE, SIZE)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1))
def test_run_lengths_that_pycocotools_packs_are_unpacked(seed, height, width, share):
    pixels = np.random.default_rng(seed).random((height, width)) < share
    packed = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
    size = (height, width)
    assert (coco_mask(packed["counts"].decode(), size, size) == pixels).all()
    assert (coco_mask(_plain(pixels.T), size, size) == pixels).all()
    assert (cvat_mask(", ".join(map(str, _plain(pixels))), size, size) == pixels).all()


def _plain(pixels: np.ndarray) -> list[int]:
    """Run lengths of pixels row by row, the first of what does not belong."""
    lengths, last = [0], False
    for pixel in pixels.ravel().tolist():
        if pixel != last:
            lengths.append(0)
            last = pixel
        lengths[-1] += 1
    return lengths


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([2399], "has run lengths for 2399 pixels, but 60 x 40 has 2400"),
        ([10**18, 2400], "pixels, but 60 x 40 has 2400"),
        ([-1, 2401], "has the run length -1, but none can be below 0"),
        ([1.0, 2399.0], "has the run lengths [1.0, 2399.0]; write whole numbers"),
        ([True], "write whole numbers"),
        (None, "has the run lengths None"),
        ("", "which are not COCO's compressed text"),
        ("\n\x00", "which are not COCO's compressed text"),
        ("PPPPPPPPPPPPPP0", "has a run length of more than 60 bits"),
        ("0P", "has run lengths that are cut off after 2 characters"),
        ("ooooooooo?", "has a run length that no picture reaches"),
        ("11", "has run lengths for 2 pixels, but 60 x 40 has 2400"),
    ],
)
def test_run_lengths_that_cannot_be_are_refused(counts, sentence):
    with pytest.raises(BadShape) as refused:
        coco_mask(counts, SIZE, SIZE)
    assert sentence in str(refused.value)


def test_a_bitmap_of_another_size_is_refused_before_it_is_made():
    huge = (10**6, 10**6)
    for decode, packed in ((coco_mask, [10**12]), (cvat_mask, "1000000000000"), (label_studio_mask, [0] * 20)):
        with pytest.raises(BadShape, match="1000000 x 1000000"):
            decode(packed, huge, SIZE)


@pytest.mark.parametrize(
    ("packed", "sentence"),
    [
        ([], "which are cut off"),
        ([256], "write a list of numbers from 0 to 255"),
        ("abc", "write a list of numbers from 0 to 255"),
        ([255] * 60, "but Label Studio writes 8"),
        ([255, 255, 255, 255, 0x38, 0, 0, 0], "has brush strokes for 1073741823 pixels, but 40 x 60 has 2400"),
        ([0, 0, 0x25, 0x80, 0x38, 0, 0, 0], "has brush strokes that are cut off or wrong after 0 pixels"),
    ],
)
def test_brush_strokes_that_cannot_be_are_refused(packed, sentence):
    with pytest.raises(BadShape) as refused:
        label_studio_mask(packed, SIZE, SIZE)
    assert sentence in str(refused.value)


def test_a_bitmap_is_cut_off_at_the_border():
    pixels = np.ones((10, 10), bool)
    labels = drawn(Bitmap(-5, 35, lambda size: pixels))
    assert (labels[35:, :5] == 1).all()
    assert labels.sum() == 25
