"""The full B K H W tensor of pixel logits, for tests and small work."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample.bands import check
from segmenter.upsample.geometry import Geometry


def logits(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits (B*windows K h w) to pixel logits (B K H W float32), with gradient."""
    check(logits, geometry)
    logits = logits.float()
    if geometry.windows is None and geometry.final is None and not geometry.mirrored:
        height, width = geometry.kept
        return F.interpolate(
            logits, geometry.extent, mode="bilinear", align_corners=geometry.align_corners
        )[..., :height, :width]
    images = logits.unflatten(0, (-1, len(geometry.rows), len(geometry.columns)))  # B R C K h w
    rows, columns = (torch.stack(m).to(logits) for m in (geometry.rows, geometry.columns))  # R H h, C W w
    return torch.einsum("rYy,brckyx,cXx->bkYX", rows, images, columns)
