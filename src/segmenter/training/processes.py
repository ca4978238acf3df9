"""The processes of a training: one alone, or several that `accelerate launch` or `torchrun` started.

The recipe decides how a run computes. Accelerate also takes such settings from its own configuration, through
variables of the environment; what the recipe has a setting for is not taken from there, and other engines are refused.
"""

import logging
import os

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin

from segmenter.errors import UserError
from segmenter.model.devices import device_of

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
                f"accelerate is set to use {engine} ({variable}), but every process keeps the whole model here; "
                "start it without: accelerate launch --multi_gpu"
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
    return state.device


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


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "y", "on", "t")
