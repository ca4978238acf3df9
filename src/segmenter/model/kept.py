"""Values made of a weight for a size, kept as long as the weight stays as it is."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

LIMIT = 8  # values: a multi-scale prediction meets six sizes


class _Known(NamedTuple):
    weight: Tensor
    version: int
    value: Tensor


class Kept:
    """The last few values. A copy of the owner begins without any."""

    def __init__(self):
        self._known: dict[Hashable, _Known] = {}

    def get(self, weight: Tensor, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` makes of the weight for the key, or made before it changed; anew where gradients are wanted."""
        # In a compiled or exported graph nothing may be looked up; weights made in inference mode have no version.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference():
            return make()
        known = self._known.get(key)
        if known is None or known.weight is not weight or known.version != weight._version:
            self._known.pop(key, None)
            if len(self._known) == LIMIT:
                self._known.pop(next(iter(self._known)))
            known = self._known[key] = _Known(weight, weight._version, make())
        return known.value

    def clear(self) -> None:
        """Forgets all: for changes that leave no trace in a weight, as those of its `data`."""
        self._known.clear()

    def __reduce__(self) -> tuple:
        return Kept, ()
