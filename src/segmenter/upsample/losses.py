"""Losses between grid logits and pixel labels. Their gradients are made with them, some blocks of pixels at a time."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from segmenter.upsample.cells import check, cuda_kernels
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.stream import Chunk, Gradient, Stream

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
        ValueError: logits or labels do not fit the geometry, a label is no class, or another reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; choose {', '.join(map(repr, REDUCTIONS))}")
    weight = torch.ones(logits.shape[1]) if weight is None else weight
    weight = weight.to(logits.device, torch.float32)
    loss = partial(_cross_entropy, weight=weight, smoothing=smoothing, hard=hard, hard_share=hard_share)
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
        ValueError: logits or labels do not fit the geometry, or a label is no class.
    """
    return _with_gradient(_dice, logits, labels, geometry, ignore)[0]


@exact
def _with_gradient(
    loss: Callable, logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int
) -> tuple[Tensor, Tensor]:
    """A loss that autograd knows, and the weight of the pixels in it."""
    _check(logits, labels, geometry, ignore)
    wanted = logits.requires_grad and torch.is_grad_enabled()
    with torch.no_grad():
        stream = Stream(logits, labels, geometry, ignore)
        gradient = Gradient(stream) if wanted else None
        value, divisor = loss(stream, gradient)
        known = gradient.of_logits() if wanted else None
    return (_Known.apply(logits, value, known) if wanted else value), divisor


class _Known(torch.autograd.Function):
    """A loss of logits whose gradient is known already."""

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
    least, most = (int(label) for label in labels.masked_fill(labels == ignore, 0).aminmax())
    if least < 0 or most >= logits.shape[1]:
        wrong = least if least < 0 else most
        raise ValueError(f"the labels hold {wrong}, but there are {logits.shape[1]} classes, and {ignore} is ignored")


def _cross_entropy(
    stream: Stream,
    gradient: Gradient | None,
    weight: Tensor,
    smoothing: float,
    hard: float | None,
    hard_share: float,
) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of the losses and of the weights; adds up the gradient of the first."""
    if hard is not None:
        _keep_hardest(stream, hard, hard_share)
    even = smoothing / len(weight)  # what each class has of the target wherever it is not the true one
    pixel_weights = weight[stream.labels] * stream.counts
    divisor = pixel_weights.sum()
    true, rest = (1 - smoothing) * pixel_weights, even * stream.counts
    every = true + weight.sum() * rest
    if kernels := cuda_kernels(weight.device):
        target, parts = (true, every, rest), gradient and gradient.parts
        loss = kernels.cross_entropy(stream.cells, stream.low, stream.geometry, stream.labels, target, weight, parts)
        return loss, divisor
    share = true / every.clamp(min=TINY)  # of the true class in its pixel's target
    loss = weight.new_zeros(())
    for chunk in stream:
        labels, of_all = chunk.of(stream.labels)[..., None], chunk.of(every)
        target = chunk.logits.gather(2, labels)[..., 0]
        if even:
            loss -= (chunk.of(rest) * (chunk.logits @ weight)).sum()
        powers = chunk.logits.exp_()
        total = powers.sum(2)
        loss += (of_all * total.log() - chunk.of(true) * target).sum()
        if gradient is None:
            continue
        powers.scatter_add_(2, labels, -(chunk.of(share) * total)[..., None])
        gradient.add(chunk, of_all / total, powers)
        if even:
            gradient.add_same(chunk, -chunk.of(rest), weight)
    return loss, divisor


def _keep_hardest(stream: Stream, below: float, share: float) -> None:
    """Lets those pixels count no more that are neither hard nor among the share of the hardest.

    Source: online hard example mining, arXiv 1604.03540, as the field does it with pixels.
    """
    chance = torch.full_like(stream.counts, math.inf)
    for chunk in stream:
        target = chunk.logits.gather(2, chunk.of(stream.labels)[..., None])[..., 0]
        here = chance[chunk.where]
        here.copy_((target - chunk.logits.exp_().sum(2).log()).view(here.shape))
    valid = chance[stream.counts > 0]
    if len(valid):
        least = valid.kthvalue(max(1, math.ceil(share * len(valid)))).values
        stream.counts *= (chance <= least) | (chance.exp() < below)


def _dice(stream: Stream, gradient: Gradient | None) -> tuple[Tensor, Tensor]:
    """The loss, and the number of pixels; adds up the gradient."""
    classes = stream.cells.shape[-1]
    common, found = stream.cells.new_zeros(2, classes)  # sums of p t and of p
    for chunk in stream:
        labels, counts = chunk.of(stream.labels)[..., None], chunk.of(stream.counts)
        powers = chunk.logits.exp_()
        powers *= (counts / powers.sum(2))[..., None]
        found += powers.sum((0, 1))
        # By way of a tensor as large as the chunk, so that the order of the sum is always the same.
        common += torch.zeros_like(powers).scatter_(2, labels, powers.gather(2, labels)).sum((0, 1))
    labels = torch.where(stream.counts > 0, stream.labels, classes).flatten()
    true = torch.bincount(labels, minlength=classes + 1)[:classes].float()
    occurs, whole = (true > 0).float(), found + true + 1
    occurs /= occurs.sum().clamp(min=1)
    if gradient is not None:
        by_common, by_found = -2 * occurs / whole, occurs * (2 * common + 1) / whole**2
        for chunk in stream:
            _add_dice(gradient, chunk, stream, by_common, by_found)
    return (occurs * (1 - (2 * common + 1) / whole)).sum(), true.sum()


def _add_dice(gradient: Gradient, chunk: Chunk, stream: Stream, by_common: Tensor, by_found: Tensor) -> None:
    """Adds a chunk's gradient, from the loss's derivatives by the sums of p t and of p of each class (K)."""
    labels, counts = chunk.of(stream.labels)[..., None], chunk.of(stream.counts)
    powers = chunk.logits.exp_()
    total = powers.sum(2, keepdim=True)
    true = by_common[labels] * powers.gather(2, labels)  # n L 1
    mean = (powers @ by_found[:, None] + true) / total
    powers *= by_found - mean
    gradient.add(chunk, counts / total[..., 0], powers.scatter_add_(2, labels, true))
