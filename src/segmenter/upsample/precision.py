"""Exact float32 products, whatever precision the caller has set for its network."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def _exactly() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with ExitStack() as stack:
            for device in filter(torch.is_autocast_enabled, DEVICES):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


def exact(function: Callable) -> Callable:
    """Runs a function outside autocast and torch.compile, and without TF32 or bf16 in products of float32."""

    @functools.wraps(function)
    def wrapped(*arguments, **options):
        with _exactly():
            return function(*arguments, **options)

    return torch.compiler.disable(wrapped)
