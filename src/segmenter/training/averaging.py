"""Moving averages of the weights, which follow quickly at first, so that short trainings have one of their own steps.

Source: the decay min(d, (1 + n) / (10 + n)) after n updates is TensorFlow's ExponentialMovingAverage's.
"""

from collections.abc import Callable

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segmenter.model.segmenter import Segmenter

Update = Callable[[list[Tensor], list[Tensor], Tensor | int], None]


def average(model: Segmenter, decay: float) -> AveragedModel:
    """An average of the model's weights, which `update_parameters` is called on after each update."""
    return AveragedModel(model, multi_avg_fn=warming_up(decay))


def steady(decay: float) -> Update:
    """One decay from the first update on: as in runs that earlier releases began."""
    return get_ema_multi_avg_fn(decay)


def warming_up(decay: float) -> Update:
    """A decay that grows to `decay`."""

    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(now)(averaged, current, updates)

    return update
