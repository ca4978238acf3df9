"""Where a model runs."""

import torch

from segmenter.errors import UserError


def device_of(name: str) -> torch.device:
    """The device of a name; `auto` is a CUDA device where there is one.

    Raises:
        UserError: there is no such device here.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"there is no CUDA device here for --device {name}; write --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
