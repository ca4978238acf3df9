"""Runs a model in evaluation mode, whatever mode it is in, and restores that mode afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model into evaluation mode; on exit, also after an error, every module gets its mode back.

    Modes are recorded module by module, as training may keep some modules (batch norms) in evaluation mode.
    """
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):  # otherwise eval() would clear what is cached between predictions
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def in_evaluation_mode(model: nn.Module, results: Iterator[Result]) -> Iterator[Result]:
    """The results, each computed in evaluation mode and without gradients; in between the model has its own mode."""
    done = object()
    while True:
        with evaluating(model), torch.inference_mode():
            result = next(results, done)
        if result is done:
            return
        yield result
