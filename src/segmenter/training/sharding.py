"""Weights, gradients and optimiser state shared out over the processes, for encoders that do not fit one device.

Source: ZeRO, arXiv 1910.02054, as torch's `fully_shard` (FSDP2) has it: every process keeps a part of each tensor, and
the whole of a block only while it computes with it. What is saved is always whole, so that any number of processes,
sharing out or not, goes on from it.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from segmenter.model.segmenter import Segmenter


def share_out(root: nn.Module, model: Segmenter, device: torch.device) -> None:
    """Keeps this process's part of every parameter of `root`, which holds the model or is it, on the device.

    Block by block, so that no device ever holds the whole.
    """
    # Nothing changes the logits in place, which is what torch warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in model.encoder.vit.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    root.to(device)  # what is no parameter


def whole(content: object, keep: bool = True) -> object:
    """Containers with their shared-out tensors whole, on the CPU; every process must call it.

    With `keep` off they become None: for processes that only take part.
    """
    if isinstance(content, DTensor):
        full = content.full_tensor()
        return full.cpu() if keep else None
    if isinstance(content, Mapping):
        return {key: whole(value, keep) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [whole(value, keep) for value in content]
    return content


def assembled(model: Segmenter, device: torch.device) -> Segmenter:
    """The whole model on this process's device, to validate and save; every process must call it."""
    copy = Segmenter.from_description(model.describe(), auxiliary=True)
    copy.load_state_dict(whole(model.state_dict()))
    return copy.to(device)


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Takes over a whole state; of what is shared out, this process's part."""
    now = module.state_dict()
    module.load_state_dict({name: _as(now.get(name), value) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """As `load`, of an optimiser's state."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[name] = _as(parameter, value)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, or all of it where it is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _as(like: Tensor | None, value: Tensor) -> Tensor:
    """A whole tensor, shared out as `like` is."""
    if not isinstance(like, DTensor):
        return value
    # Every process has read the same file: nothing needs to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
