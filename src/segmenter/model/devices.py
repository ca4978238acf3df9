"""Where a model runs and in which precision it multiplies: from the names that users write to torch's."""

import re
from contextlib import AbstractContextManager, nullcontext

import torch

from segmenter.errors import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device of a name; `auto` is the best one available: CUDA, then MPS (Apple), then the CPU.

    Raises:
        UserError: there is no such device here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"there is no device {name!r}; write auto, cpu, cuda, cuda:1 (the second one) or mps")
    device = torch.device(name)
    if not {"cpu": True, "cuda": cuda, "mps": mps}[device.type]:
        raise UserError(f"there is no {device.type.upper()} device here for --device {name}; write --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UserError(f"there is no {name} here, the last CUDA device is cuda:{last}; write --device cuda:{last}")
    return device


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The precision in which a network multiplies; `auto` is bf16 where the device computes it natively, else fp32.

    Without native support bf16 is many times slower than fp32.

    Raises:
        UserError: there is no such precision, or this device does not really have it.
    """
    if name != "auto" and name not in PRECISIONS:
        raise UserError(f"there is no precision {name!r}; write auto or {' or '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":  # measured five times slower than fp32
        raise UserError("fp16 is for GPUs, CPUs compute it much slower than fp32; write --precision auto or fp32")
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        able = torch.cpu.get_capabilities() if "get_capabilities" in dir(torch.cpu) else {}
        native = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    else:  # not every Apple chip has it, and none reports it
        native = False
    return torch.bfloat16 if native else torch.float32


def multiplying_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """A context in which a network multiplies in this precision; its weights stay as they are."""
    if precision == torch.float32:  # keeps the caller's setting
        return nullcontext()
    return torch.autocast(device.type, precision)
