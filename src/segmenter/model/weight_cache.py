"""Values computed from a weight for a size, such as resampled positions, kept while the weight does not change."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

LIMIT = 8  # values: a multi-scale prediction meets six sizes


class _Entry(NamedTuple):
    weight: Tensor
    version: int
    value: Tensor


class WeightCache:
    """The last few values. A copy of the owner starts with an empty cache."""

    def __init__(self):
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, weight: Tensor, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The value of `make` for this key, computed again if the weight has changed or gradients are wanted."""
        # A compiled or exported graph must not look anything up; weights made in inference mode have no version.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference():
            return make()
        known = self._entries.get(key)
        if known is None or known.weight is not weight or known.version != weight._version:
            self._entries.pop(key, None)
            if len(self._entries) == LIMIT:
                self._entries.pop(next(iter(self._entries)))
            known = self._entries[key] = _Entry(weight, weight._version, make())
        return known.value

    def clear(self) -> None:
        """Forgets all values: for changes that a weight's version does not show, such as those of its `data`."""
        self._entries.clear()

    def __reduce__(self) -> tuple:
        return WeightCache, ()
