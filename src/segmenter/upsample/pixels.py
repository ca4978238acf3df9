"""The full B K H W tensor of pixel logits, for tests and small work."""

import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample.cells import check
from segmenter.upsample.geometry import Geometry


def logits(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits (B*windows K h w) to pixel logits (B K H W float32), with gradient, by torch's own operations."""
    check(logits, geometry)
    height, width = geometry.window_size
    pixels = F.interpolate(
        logits.float(), geometry.extent, mode="bilinear", align_corners=geometry.align_corners
    )[..., :height, :width]  # fmt: skip
    if geometry.windows is not None:
        pixels = _averaged(pixels.unflatten(0, (-1, geometry.window_count)), geometry)
    if geometry.final is not None:
        pixels = F.interpolate(pixels, geometry.final, mode="bilinear")
    return pixels.flip(-1) if geometry.mirrored else pixels


def _averaged(windows: Tensor, geometry: Geometry) -> Tensor:
    """Pixels of windows (B windows K H W) to their mean on the canvas (B K H W)."""
    corners = [(top, left) for top in geometry.windows[0] for left in geometry.windows[1]]
    bottom, right = (max(starts) + side for starts, side in zip(geometry.windows, geometry.window_size, strict=True))
    total = windows.new_zeros(len(windows), windows.shape[2], bottom, right)
    count = windows.new_zeros(bottom, right)
    for number, (top, left) in enumerate(corners):
        here = (..., slice(top, top + geometry.window_size[0]), slice(left, left + geometry.window_size[1]))
        total[here] += windows[:, number]
        count[here] += 1
    return total / count
