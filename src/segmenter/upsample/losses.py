"""Losses between grid logits and pixel labels. Their gradients are made with them, some blocks of pixels at a time."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from segmenter.upsample.cells import check, cuda_kernels
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.precision import exact
from segmenter.upsample.stream import Gradient, Row, Stream
from segmenter.upsample.threads import apart

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

    def work() -> tuple[Tensor, Tensor, Tensor | None]:
        stream = Stream(logits, labels, geometry, ignore)
        gradient = Gradient(stream) if wanted else None
        return *loss(stream, gradient), gradient.of_logits() if wanted else None

    with torch.no_grad():
        value, divisor, known = apart(logits.device, work)
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
    whole = weight.sum() * even

    def targets(labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weight of the pixels, and what their targets hold of the true class and of all classes together."""
        pixels = weight[labels] * counts
        true = (1 - smoothing) * pixels if even else pixels
        return pixels, true, true + whole * counts if even else true

    if kernels := cuda_kernels(weight.device):
        labels, counts = stream.places_of(*[slice(0, size) for size in stream.shape[:2]])
        pixels, true, every = targets(labels, counts)
        of_target, parts = (true, every, even * counts), gradient and gradient.parts
        loss = kernels.cross_entropy(stream.cells, stream.low, stream.geometry, labels, of_target, weight, parts)
        return loss, pixels.sum()

    def of_row(row: Row) -> Tensor:
        """The sums of a row of blocks."""
        pixels, true, every = targets(row.labels, row.counts)
        labels, rest, back = row.labels[..., None], even * row.counts, row.weights.mT
        share = true / every.clamp(min=TINY)  # of the true class in its pixel's target
        target, total, linear = pixels.new_zeros(3, *pixels.shape)
        slopes = gradient and gradient.of_row(row)
        for here, logits in row.chunks():
            torch.gather(logits, 2, labels[here], out=target[here][..., None])
            if even:
                torch.matmul(logits, weight, out=linear[here])
            powers = logits.exp_()
            torch.sum(powers, 2, out=total[here])
            if gradient is not None:
                powers.scatter_add_(2, labels[here], -(share[here] * total[here])[..., None])
                torch.bmm(back[here] * (every[here] / total[here])[:, None], powers, out=slopes[here])
        if even and gradient is not None:
            slopes -= (back @ rest[..., None]) * weight
        loss = every * total.log() - true * target - rest * linear
        return torch.stack([loss.sum(), pixels.sum()])

    return _added(stream.each_row(of_row)).unbind()


def _added(sums: list[Tensor]) -> Tensor:
    """Sums of all chunks, always added in the same order."""
    return torch.stack(sums).double().sum(0).float()


def _keep_hardest(stream: Stream, below: float, share: float) -> None:
    """Lets those pixels count no more that are neither hard nor among the share of the hardest.

    Source: online hard example mining, arXiv 1604.03540, as the field does it with pixels.
    """
    chance = stream.cells.new_empty(stream.shape)

    def look(row: Row) -> None:
        found = chance[row.where]
        for here, logits in row.chunks():
            target = logits.gather(2, row.labels[here][..., None])[..., 0]
            found[here] = target - logits.exp_().sum(2).log()
        found.masked_fill_(row.counts == 0, math.inf)

    stream.each_row(look)
    valid = chance[chance < math.inf]
    if len(valid):
        least = valid.kthvalue(max(1, math.ceil(share * len(valid)))).values
        stream.kept = (chance <= least) | (chance.exp() < below)


def _dice(stream: Stream, gradient: Gradient | None) -> tuple[Tensor, Tensor]:
    """The loss, and the number of pixels; adds up the gradient."""
    classes = stream.cells.shape[-1]

    def look(row: Row) -> Tensor:
        """Sums of p t, of p and of t of each class (3 K)."""
        found, common = stream.cells.new_zeros(2, classes)
        for here, logits in row.chunks():
            labels, powers = row.labels[here][..., None], logits.exp_()
            share = row.counts[here] / powers.sum(2)
            found += share.flatten() @ powers.flatten(0, 1)
            common.scatter_add_(0, labels.flatten(), (powers.gather(2, labels)[..., 0] * share).flatten())
        true = torch.bincount(row.labels[row.counts > 0], minlength=classes)
        return torch.stack([common, found, true])

    common, found, true = _added(stream.each_row(look))
    occurs, whole = (true > 0).float(), found + true + 1
    occurs /= occurs.sum().clamp(min=1)
    if gradient is not None:
        by_common, by_found = -2 * occurs / whole, occurs * (2 * common + 1) / whole**2
        stream.each_row(lambda row: _add_dice(gradient.of_row(row), row, by_common, by_found))
    return (occurs * (1 - (2 * common + 1) / whole)).sum(), true.sum()


def _add_dice(slopes: Tensor, row: Row, by_common: Tensor, by_found: Tensor) -> None:
    """Writes a row's gradient, from the loss's derivatives by the sums of p t and of p of each class (K)."""
    for here, logits in row.chunks():
        labels, powers = row.labels[here][..., None], logits.exp_()
        total = powers.sum(2, keepdim=True)
        true = by_common[labels] * powers.gather(2, labels)  # blocks L 1
        mean = (powers @ by_found[:, None] + true) / total
        powers *= by_found - mean
        powers.scatter_add_(2, labels, true)
        torch.bmm(row.weights[here].mT * (row.counts[here][..., None] / total).mT, powers, out=slopes[here])
