"""The one rule by which shapes become pixels, whatever the format.

A pixel belongs to an outline if its centre lies inside (even-odd rule: where an outline crosses itself, inside twice is
outside), as pycocotools draws polygons: corners are rounded to fifths of a pixel first. So two outlines with a common
edge share its pixels out, and none is given twice. Holes are taken out by the same rule. What lies above covers what
lies below; what leaves the picture is cut off at its border.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pycocotools import mask as coco

from segmenter.data.annotations.record import BadShape, Bitmap, Shape
from segmenter.data.annotations.run_lengths import coco_mask

FIFTHS = 5  # of a pixel, pycocotools' grid
LONGEST = 2**21  # pixels that an outline may run in all: pycocotools keeps several numbers for each fifth


def draw(
    shapes: Sequence[Shape], labels: np.ndarray, values: Sequence[int], ignore: int, relative: bool
) -> Iterator[str]:
    """Draws shapes into labels (H W), each with the value of its label; `ignore` has the label IGNORED.

    What cannot be drawn is yielded as a sentence: a shape wholly outside, or whose pixels cannot be decoded.
    """
    scale = np.array(labels.shape[::-1] if relative else (1, 1), dtype=np.float64)
    for shape in sorted(shapes, key=lambda shape: shape.order):
        value = ignore if shape.label < 0 else values[shape.label]
        try:
            if isinstance(shape.form, Bitmap):
                left, top, pixels = shape.form.left, shape.form.top, shape.form.decode(labels.shape)
            else:
                left, top, pixels = fill([ring * scale for ring in shape.form.rings], labels.shape)
            _paste(labels, left, top, pixels, value)
        except BadShape as error:
            yield f"{shape.where} {error}"


def fill(rings: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[int, int, np.ndarray]:
    """Left, top and the pixels (h w, bool) of a polygon with holes, in a frame around it.

    Raises:
        BadShape: it lies wholly outside a picture of `size`, or runs a longer way than pycocotools can count.
    """
    grids = [np.floor(ring * FIFTHS + 0.5).astype(np.int64) for ring in rings]
    low, high = grids[0].min(0), grids[0].max(0)
    height, width = size
    if high[0] < 0 or high[1] < 0 or low[0] > FIFTHS * width or low[1] > FIFTHS * height:
        corner = f"from ({low[0] / FIFTHS:g}, {low[1] / FIFTHS:g}) to ({high[0] / FIFTHS:g}, {high[1] / FIFTHS:g})"
        raise BadShape(f"lies {corner}, outside its picture of {height} x {width} (height x width)")
    length = sum(int(np.abs(np.diff(grid, axis=0, append=grid[:1])).sum()) for grid in grids)
    # What lies outside on the left is cut off; on the right pycocotools' own frame does it.
    start = np.maximum(low // FIFTHS, -LONGEST)
    stop = np.minimum(-(-high // FIFTHS) + 1, (width, height))
    frame = stop - start
    if length > FIFTHS * LONGEST or (frame.clip(1).prod() > 4 * max(height * width, 2**16)):
        raise BadShape(f"reaches or runs far beyond its picture of {height} x {width} (height x width)")
    if (frame <= 0).any():
        return 0, 0, np.zeros((0, 0), bool)
    pixels = _inside(grids[0], start, frame)
    for hole in grids[1:]:
        pixels &= ~_inside(hole, start, frame)
    return int(start[0]), int(start[1]), pixels


def _inside(grid: np.ndarray, start: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The pixels (h w, bool) of a frame whose centres lie inside a ring of N 2 fifths of pixels."""
    if len(grid) < 3:
        return np.zeros(frame[::-1], bool)
    flat = ((grid - FIFTHS * start) / FIFTHS).ravel().tolist()
    size = (int(frame[1]), int(frame[0]))
    packed = coco.frPyObjects([flat], *size)[0]["counts"].decode("ascii")
    return coco_mask(packed, size, size)


def _paste(labels: np.ndarray, left: int, top: int, pixels: np.ndarray, value: int) -> None:
    """Sets the pixels (h w) of a frame at (left, top), as far as it lies on the labels."""
    right, bottom = min(left + pixels.shape[1], labels.shape[1]), min(top + pixels.shape[0], labels.shape[0])
    inner = pixels[max(-top, 0) : max(bottom - top, 0), max(-left, 0) : max(right - left, 0)]
    part = labels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inner.size:
        part[inner] = value
