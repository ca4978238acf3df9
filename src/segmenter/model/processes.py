"""The processes of a training or an evaluation: one alone, or several that `accelerate launch` or `torchrun` started.

The recipe decides how a run computes. Accelerate also takes such settings from its own configuration, through
variables of the environment; what the recipe has a setting for is not taken from there, and other engines are refused.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, gather_object, reduce

from segmenter.errors import Said, UserError
from segmenter.model.devices import device_of
from segmenter.progress import say

IGNORED = {  # the value that changes nothing, and the setting that decides instead
    "ACCELERATE_MIXED_PRECISION": ("no", "train.precision"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "train.accumulate"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "train.compile"),
}
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "its parallelism configuration",
}

logger = logging.getLogger(__name__)


def device_here(name: str) -> torch.device:
    """Joins the other processes, if there are any; the device of this one: the named one, or its own of that kind.

    Raises:
        UserError: there is no such device here, or not one for each process; or accelerate is set to shard the model.
    """
    for variable, engine in ENGINES.items():
        if _is_set(variable):
            raise UserError(
                f"accelerate is set to use {engine} ({variable}), which is not used here; start it without (accelerate "
                "launch --multi_gpu), and write --train.shard true for weights that do not fit one device"
            )
    if name == "auto" and _is_set("ACCELERATE_USE_CPU"):  # accelerate launch --cpu
        name = "cpu"
    device = device_of(name)
    state = PartialState(cpu=device.type == "cpu")
    if device.type == "mps" and (count := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise UserError(f"{count} processes cannot share the MPS device; start one, or write --device cpu")
    if state.num_processes == 1:
        return device
    if device.index is not None:
        raise UserError(
            f"each of {state.num_processes} processes has a device of its own; write --device cuda instead of {device}"
        )
    return device if device.type == "cpu" else state.device  # which numbers CPUs


def accelerator() -> Accelerator:
    """What sums over the processes, with nothing that the recipe has a setting for; it moves nothing to a device."""
    for variable, (neutral, setting) in IGNORED.items():
        if (value := os.environ.get(variable, neutral)).lower() != neutral:
            logger.warning("%s is %s, which is not used: %s decides", variable, value, setting)
    return Accelerator(
        device_placement=False,
        mixed_precision="no",
        dynamo_backend="no",
        # Given as a number, it would give way to the environment.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def anywhere(flag: bool) -> bool:
    """Whether it holds in any of the processes, which must all ask."""
    state = PartialState()
    if state.num_processes == 1:
        return flag
    return bool(reduce(torch.tensor(float(flag), device=state.device), "sum"))


@contextmanager
def together() -> Iterator[None]:
    """What all processes do, each by itself: where one of them has a UserError, all end with it.

    Raises:
        UserError: as `end`.
    """
    error = None
    try:
        yield
    except UserError as found:
        error = found
    if anywhere(error is not None):
        end(error)


def end(error: UserError | None) -> NoReturn:
    """Ends all processes, which must all call it, after each of their errors has been printed once.

    Raises:
        UserError: always; where there are several processes, one that has been printed.
    """
    state = PartialState()
    if state.num_processes == 1 and error is not None:
        raise error
    found = [text for text in dict.fromkeys(gather_object(["" if error is None else str(error)])) if text]
    if state.is_main_process:
        for text in found:
            say(f"segmenter: {text}")
    state.wait_for_everyone()  # launchers kill the others as soon as one has ended
    raise Said("; ".join(found)) from error


def ends_with_the_others(method: Callable) -> Callable:
    """The method of a run (with its folder `out`) says so and raises a UserError when it loses another process."""

    @wraps(method)
    def watched(run, *arguments, **options):
        try:
            return method(run, *arguments, **options)
        except RuntimeError as error:
            if PartialState().num_processes == 1 or not _is_loss(error):
                raise
            told = (
                "another process of this training has ended: it was killed, ran out of memory, or says itself what is "
                f"wrong; go on from the last saved state with as many processes as you like: segmenter resume {run.out}"
            )
            say(f"segmenter: {told}")  # at once: the launcher may end this one too
            raise Said(told) from error

    return watched


def _is_loss(error: RuntimeError) -> bool:
    """Whether an error is that of a connection to another process; gloo has no class of its own for it."""
    return isinstance(error, torch.distributed.DistError) or bool(
        re.search(r"gloo|Connection (closed|reset)|Broken pipe", str(error))
    )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "y", "on", "t")
