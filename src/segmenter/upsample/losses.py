"""Cross-entropy between grid logits and pixel labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample.bands import check
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.pixels import logits as pixel_logits


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    geometry: Geometry,
    weight: Tensor | None = None,
    ignore: int = 255,
    smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor | tuple[Tensor, Tensor]:
    """Logits (B K h w) against labels (B H W) to the loss over pixels, as torch's cross_entropy.

    `weight` (K) counts classes, `ignore` is the label left out. `mean` is 0 with zero gradient where no pixel is
    valid; `sum` gives (sum, weight of the valid pixels), which add up over steps and devices.

    Raises:
        ValueError: logits or labels do not fit the geometry, or another reduction.
    """
    check(logits, geometry)
    wanted = (len(logits) // geometry.window_count, *geometry.size)
    if tuple(labels.shape) != wanted:
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit the pixels {wanted} of the geometry")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; choose 'mean' or 'sum'")
    valid = labels != ignore
    weight = torch.ones(logits.shape[1], device=logits.device) if weight is None else weight
    divisor = weight[labels[valid]].sum()
    total = F.cross_entropy(
        pixel_logits(logits, geometry),
        labels,
        weight=weight,
        ignore_index=ignore,
        label_smoothing=smoothing,
        reduction="sum",
    )
    if reduction == "sum":
        return total, divisor
    return total / divisor.clamp(min=torch.finfo(total.dtype).tiny)
