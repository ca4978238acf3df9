"""How a grid of logits lies on the pixels wanted; imports NumPy alone.

Enlarging, cropping the padding away, averaging overlapping windows and a final resize are all linear and separable:
any chain of them is rows @ grid @ columns.T with thin matrices, each of which `Axis` holds as a few cells a pixel.
Windows form a product grid, so that their cells along an axis are those of one long axis, and the number of windows
over a pixel is a product too and folds into the weights.

The terms of this folder, along an axis of three cells of 8 pixels each, of whose 24 pixels 20 are kept:

    cells        0       1       2       logits of the grid, each in the middle of its 8 pixels
    pixels       ####++++++++--------    each a convex mix of the cells beside it
    blocks  |....####|++++++++|--------| pixels that mix the same cells: 0 and 0, 0 and 1, 1 and 2
    places   01234567 01234567 01234567  of a block; those without a pixel (.) are not used
    points  0        0        1        2 what a block's pixels lie between: here cells, elsewhere ends of runs

A *part* is some rows of blocks whose labels are found together, a *band* some rows of pixels, a *tile* some columns
of a band. A *piece* is whichever of them a thread takes next.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from segmenter.upsample.axis import Axis, make_axis

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Grid (h, w) of logits to pixels (H, W); everything is height before width."""

    grid: Size
    """Cells of the logits, of one window where there are several."""
    extent: Size
    """Pixels that the grid covers, padding included."""
    content: Size | None = None
    """Pixels kept of the extent, from the top left; None: all."""
    windows: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """First row of each row of windows and first column of each column of windows; overlaps are averaged."""
    final: Size | None = None
    """Size of a last bilinear resize (align_corners=False); None: no resize."""
    mirrored: bool = False
    """The logits belong to the left-right mirror image; the pixels are mirrored back."""
    align_corners: bool = False
    """How the grid is enlarged to the extent, as in torch's interpolate."""

    def __post_init__(self):
        sizes = [self.grid, self.extent, self.window_size, *([self.final] if self.final else [])]
        if any(side < 1 for size in sizes for side in size):
            raise ValueError(f"every size of a Geometry must be at least 1 pixel or cell: {self}")
        if any(side > extent for side, extent in zip(self.window_size, self.extent, strict=True)):
            raise ValueError(f"content {self.content} is larger than extent {self.extent}")
        for starts, side in zip(self.windows or (), self.window_size, strict=False):
            ordered = sorted(starts)
            if ordered[:1] != [0] or any(after - before > side for before, after in pairwise(ordered)):
                raise ValueError(f"windows of {side} pixels at {starts} do not cover all pixels from 0 on")

    @property
    def window_size(self) -> Size:
        """Pixels (H, W) of one window after cropping."""
        return self.content or self.extent

    @property
    def window_grid(self) -> Size:
        """Rows and columns of windows."""
        return (len(self.windows[0]), len(self.windows[1])) if self.windows else (1, 1)

    @property
    def window_count(self) -> int:
        """Windows of one image; its logits are that many entries of the batch, row by row of windows."""
        return self.window_grid[0] * self.window_grid[1]

    @property
    def size(self) -> Size:
        """Pixels (H, W) of the result."""
        return self.final or self._canvas

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        """The pixels along the rows and along the columns."""
        return tuple(
            make_axis(
                self.grid[i],
                self.extent[i],
                self.window_size[i],
                tuple(self.windows[i]) if self.windows else (0,),
                self.final[i] if self.final else None,
                self.mirrored and i == 1,
                self.align_corners,
            )
            for i in (0, 1)
        )

    @property
    def _canvas(self) -> Size:
        if self.windows is None:
            return self.window_size
        return tuple(max(starts) + side for starts, side in zip(self.windows, self.window_size, strict=True))
