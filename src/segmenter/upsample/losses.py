"""Losses between grid logits and pixel labels, computed together with their gradients, some pixels at a time."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from segmenter.upsample import block_losses, pixel_losses
from segmenter.upsample.cells import check
from segmenter.upsample.formulas import CrossEntropy, LossAndGradient
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.threads import each, in_own_thread

TINY = torch.finfo(torch.float32).tiny
REDUCTIONS = ("mean", "sum", "all_pixels")


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    geometry: Geometry,
    weight: Tensor | None = None,
    ignore: int = 255,
    smoothing: float = 0.0,
    reduction: str = "mean",
    hard: float | None = None,
    hard_share: float = 1 / 16,
) -> Tensor | tuple[Tensor, Tensor]:
    """Logits (B*windows K h w) against labels (B H W) to the loss over pixels, as torch's cross_entropy.

    Args:
        weight: of the classes (K).
        ignore: the label left out.
        smoothing: share of the target spread evenly over all classes (0 to 1).
        reduction: `mean` over the valid pixels, by their weights, and 0 with zero gradient where there are none;
            `sum` gives (sum, weight of the valid pixels), which add up over steps and devices; `all_pixels` divides
            by the number of all pixels, valid or not.
        hard: only pixels whose true class has less than this probability (0 to 1) count as valid ...
        hard_share: ... and, of all that were valid, this share with the least in any case.

    Raises:
        ValueError: logits or labels do not fit the geometry, a label is not a class, or the reduction is unknown.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; choose {', '.join(map(repr, REDUCTIONS))}")
    weight = None if weight is None else weight.to(logits.device, torch.float32)
    options = CrossEntropy(weight, smoothing, hard, hard_share)
    loss = partial(_implementation(logits, geometry).cross_entropy, options=options)
    total, divisor = _with_gradient(loss, logits, labels, geometry, ignore)
    if reduction == "sum":
        return total, divisor
    if reduction == "all_pixels":
        return total / labels.numel()
    return total / divisor.clamp(min=TINY)


def dice(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int = 255) -> Tensor:
    """Logits (B*windows K h w) against labels (B H W) to the soft Dice loss (0 to 1).

    1 - (2 sum p t + 1) / (sum p + sum t + 1), with probabilities p and targets t over all valid pixels of the batch,
    averaged over the classes that occur in the labels; 0 with zero gradient where none does.
    Source: V-Net, arXiv 1606.04797, without its squares and with the usual 1 that steadies small classes.

    Raises:
        ValueError: logits or labels do not fit the geometry, or a label is not a class.
    """
    return _with_gradient(_implementation(logits, geometry).dice, logits, labels, geometry, ignore)[0]


@exact
def _with_gradient(
    loss: Callable, logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int
) -> tuple[Tensor, Tensor]:
    """A loss that autograd can differentiate, and the weight of the pixels in it."""
    wanted = logits.requires_grad and torch.is_grad_enabled()

    def work() -> LossAndGradient:
        _check(logits, labels, geometry, ignore)
        return loss(logits, labels, geometry, ignore=ignore, wanted=wanted)

    with torch.no_grad():
        value, divisor, gradient = in_own_thread(logits.device, work)
    return (_Precomputed.apply(logits, value, gradient) if wanted else value), divisor


def _implementation(logits: Tensor, geometry: Geometry) -> ModuleType:
    """The module that computes the losses: by blocks or, where that is slower, by torch's own operations."""
    return pixel_losses if pixel_losses.suits(logits, geometry) else block_losses


class _Precomputed(torch.autograd.Function):
    """A loss of logits whose gradient has already been computed."""

    @staticmethod
    def forward(ctx, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative: take its gradient without create_graph=True")
        return (upstream * ctx.saved_tensors[0]).to(ctx.dtype), None, None


def _check(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int) -> None:
    check(logits, geometry)
    wanted = (len(logits) // geometry.window_count, *geometry.size)
    if tuple(labels.shape) != wanted:
        raise ValueError(f"labels of shape {tuple(labels.shape)} do not fit the pixels {wanted} of the geometry")
    ranges = each(lambda part: part.masked_fill(part == ignore, 0).aminmax(), labels)
    least, most = int(min(low for low, _ in ranges)), int(max(high for _, high in ranges))
    if least < 0 or most >= logits.shape[1]:
        wrong = least if least < 0 else most
        raise ValueError(f"the labels hold {wrong}, but there are {logits.shape[1]} classes, and {ignore} is ignored")
