"""What the losses over blocks and over tiles share: options, the choice of hard pixels, Dice from its sums."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class CrossEntropy:
    """The options of `losses.cross_entropy`."""

    weight: Tensor | None
    """Of the classes (K float32); None: 1."""
    smoothing: float
    hard: float | None
    hard_share: float


class LossAndGradient(NamedTuple):
    """A loss with its gradient."""

    loss: Tensor
    divisor: Tensor
    """Weight of the pixels that count."""
    gradient: Tensor | None
    """Of the logits, with their shape; None: not wanted."""


def added(sums: list[Tensor]) -> Tensor:
    """Sums over parts of the pixels, added up in the order given."""
    return torch.stack(sums).sum(0)


def hardest(chances: Tensor, options: CrossEntropy) -> Tensor | None:
    """Which pixels count, by the logarithm of their true class's probability, infinite where none counts; None: all.

    Source: online hard example mining, arXiv 1604.03540, as the field does it with pixels.
    """
    valid = chances[chances < math.inf]
    if not len(valid):
        return None
    least = valid.kthvalue(max(1, math.ceil(options.hard_share * len(valid)))).values
    return (chances <= least) | (chances.exp() < options.hard)


def dice_of(common: Tensor, found: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of p t, of p and of t of each class (K) to the loss, the pixels, and derivatives by the first two (K)."""
    occurs, whole = (true > 0).float(), found + true + 1
    occurs /= occurs.sum().clamp(min=1)
    loss = (occurs * (1 - (2 * common + 1) / whole)).sum()
    return loss, true.sum(), -2 * occurs / whole, occurs * (2 * common + 1) / whole**2
