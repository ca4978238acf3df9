"""Losses over blocks of pixels: logits at the places of some blocks at a time, and the gradient of their cells."""

import math

import torch
from torch import Tensor

from segmenter.upsample.cells import cuda_kernels
from segmenter.upsample.formulas import CrossEntropy, LossAndGradient, added, dice_of, hardest
from segmenter.upsample.geometry import Geometry
from segmenter.upsample.stream import Gradient, Row, Stream

TINY = torch.finfo(torch.float32).tiny


def cross_entropy(
    logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, options: CrossEntropy, wanted: bool
) -> LossAndGradient:
    """Logits (B*windows K h w) against labels (B H W) to sums over pixels and, if `wanted`, the gradient."""
    stream = Stream(logits, labels, geometry, ignore)
    if options.hard is not None:
        stream.selected = hardest(_chances(stream), options)
    gradient = Gradient(stream) if wanted else None
    loss, divisor = _cross_entropy(stream, gradient, options)
    return LossAndGradient(loss, divisor, gradient and gradient.of_logits())


def dice(logits: Tensor, labels: Tensor, geometry: Geometry, ignore: int, wanted: bool) -> LossAndGradient:
    """The same for the soft Dice loss; its divisor is the number of pixels."""
    stream = Stream(logits, labels, geometry, ignore)
    loss, pixels, *derivatives = dice_of(*_dice_sums(stream))
    if not wanted:
        return LossAndGradient(loss, pixels, None)
    gradient = Gradient(stream)
    stream.each_row(lambda row: _add_dice(gradient.of_row(row), row, *derivatives))
    return LossAndGradient(loss, pixels, gradient.of_logits())


def _cross_entropy(stream: Stream, gradient: Gradient | None, options: CrossEntropy) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of the losses and of the weights; writes the gradient of the first."""
    weight, smoothing = options.weight, options.smoothing
    if weight is None:
        weight = stream.cells.new_ones(stream.cells.shape[-1])
    even = smoothing / len(weight)  # each class's share of the target where it is not the true one
    whole = weight.sum() * even

    def targets(labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weight of the pixels, and the shares of the true class and of all classes together in their targets."""
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
        """The sums over a row of blocks."""
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

    return added(stream.each_row(of_row)).unbind()


def _chances(stream: Stream) -> Tensor:
    """Logarithm of the true class's probability at all places (B blocks blocks L), infinite where none counts."""
    chance = stream.cells.new_empty(stream.shape)

    def look(row: Row) -> None:
        found = chance[row.where]
        for here, logits in row.chunks():
            target = logits.gather(2, row.labels[here][..., None])[..., 0]
            found[here] = target - logits.exp_().sum(2).log()
        found.masked_fill_(row.counts == 0, math.inf)

    stream.each_row(look)
    return chance


def _dice_sums(stream: Stream) -> Tensor:
    """Sums of p t, of p and of t of each class (3 K)."""
    classes = stream.cells.shape[-1]

    def look(row: Row) -> Tensor:
        found, common = stream.cells.new_zeros(2, classes)
        for here, logits in row.chunks():
            labels, powers = row.labels[here][..., None], logits.exp_()
            share = row.counts[here] / powers.sum(2)
            found += share.flatten() @ powers.flatten(0, 1)
            common.scatter_add_(0, labels.flatten(), (powers.gather(2, labels)[..., 0] * share).flatten())
        true = torch.bincount(row.labels[row.counts > 0], minlength=classes)
        return torch.stack([common, found, true])

    return added(stream.each_row(look))


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
