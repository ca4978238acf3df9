"""How a grid of logits lies on the pixels that are wanted.

Enlarging, cropping the padding away, averaging overlapping windows and a final resize are all linear and separable:
any chain of them is sum_ij A_i @ grid_ij @ B_j.T with one thin matrix a row of windows (A_i) and a column (B_j).
Windows form a product grid, so that the number of windows over a pixel is a product too and folds into A and B.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Size of a last bilinear resize (align_corners=False); None: there is none."""
    mirrored: bool = False
    """The logits are of the left-right mirror image; the pixels are turned back."""
    align_corners: bool = False
    """How the grid is enlarged to the extent, as in torch's interpolate."""

    def __post_init__(self):
        sizes = [self.grid, self.extent, self.kept, *([self.final] if self.final else [])]
        if any(side < 1 for size in sizes for side in size):
            raise ValueError(f"every size of a Geometry must be at least 1 pixel or cell: {self}")
        if any(kept > extent for kept, extent in zip(self.kept, self.extent, strict=True)):
            raise ValueError(f"content {self.content} is larger than extent {self.extent}")
        for starts, side in zip(self.windows or (), self.kept, strict=False):
            ordered = sorted(starts)
            if ordered[:1] != [0] or any(after - before > side for before, after in pairwise(ordered)):
                raise ValueError(f"windows of {side} pixels at {starts} do not cover all pixels from 0 on")

    @property
    def kept(self) -> Size:
        """Pixels (H, W) of one window after cropping."""
        return self.content or self.extent

    @property
    def window_count(self) -> int:
        """Windows of one image; its logits are that many entries of the batch, row by row of windows."""
        return len(self.windows[0]) * len(self.windows[1]) if self.windows else 1

    @cached_property
    def rows(self) -> list[Tensor]:
        """A matrix (H h) for each row of windows."""
        return [matrix.float() for matrix in self._matrices(0)]

    @cached_property
    def columns(self) -> list[Tensor]:
        """A matrix (W w) for each column of windows."""
        matrices = [matrix.float() for matrix in self._matrices(1)]
        return [matrix.flip(0) for matrix in matrices] if self.mirrored else matrices

    @property
    def size(self) -> Size:
        """Pixels (H, W) of the result."""
        return self.final or self._canvas

    @property
    def _canvas(self) -> Size:
        if self.windows is None:
            return self.kept
        return tuple(max(starts) + side for starts, side in zip(self.windows, self.kept, strict=True))

    def _matrices(self, axis: int) -> list[Tensor]:
        kept, canvas = self.kept[axis], self._canvas[axis]
        window = _resize_matrix(self.grid[axis], self.extent[axis], self.align_corners)[:kept]  # kept cells
        if self.windows is None:
            matrices = [window]
        else:
            matrices, count = [], torch.zeros(canvas, 1, dtype=torch.float64)
            for start in self.windows[axis]:
                matrices.append(F.pad(window, (0, 0, start, canvas - start - kept)))
                count[start : start + kept] += 1
            matrices = [matrix / count for matrix in matrices]
        if self.final is None or self.final[axis] == canvas:
            return matrices
        resize = _resize_matrix(canvas, self.final[axis], align_corners=False)
        return [resize @ matrix for matrix in matrices]


def _resize_matrix(old: int, new: int, align_corners: bool) -> Tensor:
    """torch's linear interpolation from `old` to `new` samples as a matrix (new old), in float64."""
    identity = torch.eye(old, dtype=torch.float64)[None]
    return F.interpolate(identity, size=new, mode="linear", align_corners=align_corners)[0].T.contiguous()
