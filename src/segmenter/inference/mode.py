"""A model as it answers: in evaluation mode, whatever mode it is in between."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode inside; afterwards, also after an error, every module has the mode it had.

    Modules are remembered one by one, as a training may keep some of them (batch norms) in evaluation mode.
    """
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):  # else what is kept between predictions would be forgotten
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def answered(model: nn.Module, results: Iterator[Result]) -> Iterator[Result]:
    """The results, each computed in evaluation mode and without gradients; between them the caller has the model."""
    done = object()
    while True:
        with evaluating(model), torch.inference_mode():
            result = next(results, done)
        if result is done:
            return
        yield result
