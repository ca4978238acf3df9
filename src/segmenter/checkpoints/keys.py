"""Accounts for every key of a published file: used, known to be unused, missing, or unknown.

A layout states for each tensor of our model its name in the file and how it is converted to ours.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segmenter.checkpoints.reading import Checkpoint, refuse_not_finite
from segmenter.errors import UserError, cleaned

BLOCK = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)
"""Tensors of a pre-norm transformer block as timm names them."""


LONGEST = 4000  # characters of a line of a report


class TensorSource(NamedTuple):
    """Where one of our tensors comes from."""

    key: str
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    """From the file's tensor to ours."""
    revert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    """From ours to the file's."""


@dataclass
class LoadReport:
    """What was used, left out and assumed when a published file was loaded."""

    layout: str
    used: int = 0
    """Tensors of the file that are in the model."""
    unused: list[str] = field(default_factory=list)
    """Tensors of the file that are known to be unused in this layout."""
    assumed: list[str] = field(default_factory=list)
    """What the file does not state and was taken from the published models."""
    placeholders: dict[str, int] = field(default_factory=dict)
    """Types in the file that were not constructed, and the count of each."""

    def lines(self) -> list[str]:
        """The report as text, one line per item."""
        found = [f"layout: {self.layout}; {self.used} tensors used"]
        if self.unused:
            found.append(f"known to be unused: {', '.join(self.unused)}")
        if self.assumed:
            found.append(f"assumed, as the file does not say: {'; '.join(self.assumed)}")
        if self.placeholders:
            kinds = ", ".join(f"{count} {name}" for name, count in self.placeholders.items())
            found.append(f"not constructed, as they hold no weights: {kinds}")
        return [cleaned(line, LONGEST) for line in found]  # the names are the file's


def refuse_other_keys(
    checkpoint: Checkpoint, report: LoadReport, wanted: Collection[str], known_unused: Iterable[str] = ()
) -> None:
    """Checks that the file has all wanted keys and no unknown ones, and fills the report.

    `known_unused` are prefixes of keys.

    Raises:
        UserError: keys are missing or unknown; the first of them and the counts are named.
    """
    found = {*checkpoint.state, *checkpoint.other}
    report.unused = sorted(key for key in found - set(wanted) if key.startswith(tuple(known_unused)))
    missing = sorted(set(wanted) - checkpoint.state.keys())
    unknown = sorted(found - set(wanted) - set(report.unused))
    if missing or unknown:
        parts = []
        if missing:
            parts.append(f"{len(missing)} of {len(wanted)} tensors are missing ({few(missing)})")
        if unknown:
            parts.append(f"{len(unknown)} are unknown ({few(unknown)})")
        raise UserError(
            f"{checkpoint.path} has the layout of {report.layout}, but {', and '.join(parts)}; "
            "take the whole file of one model"
        )
    report.used = len(wanted)
    report.placeholders = dict(checkpoint.placeholders)


def fill(model: nn.Module, checkpoint: Checkpoint, report: LoadReport, sources: Mapping[str, TensorSource]) -> None:
    """Loads the weights, as float32, into a model that was constructed on the meta device.

    Raises:
        UserError: a tensor's shape differs from the model's, or it holds values that are not finite.
    """
    refuse_not_finite(checkpoint.path, {source.key: checkpoint.state[source.key] for source in sources.values()})
    if odd := sorted(model.state_dict().keys() ^ sources.keys()):
        raise UserError(f"{checkpoint.path}: the settings beside it are those of another network ({few(odd)})")
    state, wrong = {}, []
    for name, wanted in model.state_dict().items():
        tensor = checkpoint.state[sources[name].key]
        try:
            state[name] = sources[name].convert(tensor).to(wanted.dtype).contiguous()
        except (RuntimeError, IndexError):  # not even the number of axes fits
            state[name] = tensor
        if state[name].shape != wanted.shape:
            wrong.append(f"{sources[name].key} is {tuple(tensor.shape)} and not {tuple(wanted.shape)}")
    if wrong:
        raise UserError(
            f"{checkpoint.path} has the layout of {report.layout}, but {len(wrong)} of {len(sources)} tensors do not "
            f"fit the shapes of the rest: {'; '.join(wrong[:3])}; take the whole file of one model"
        )
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise AssertionError("a tensor of the model is in no state dict")


def to_published(state: Mapping[str, Tensor], sources: Mapping[str, TensorSource]) -> dict[str, Tensor]:
    """A model's weights under a layout's names, as float32 (counters unchanged) on the CPU."""
    found = {source.key: source.revert(state[ours]).detach().cpu().contiguous() for ours, source in sources.items()}
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}


def few(names: Iterable[str]) -> str:
    """The first three names."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def depth(keys: Iterable[str], prefix: str) -> int:
    """Number of blocks of a transformer whose keys begin with `prefix` and an index."""
    found = (re.match(r"\d{1,3}(?!\d)", key.removeprefix(prefix)) for key in keys if key.startswith(prefix))
    return 1 + max((int(number[0]) for number in found if number), default=-1)


def axis(path: Path, state: Mapping[str, Tensor], key: str, dimension: int, axes: int) -> int:
    """Length of a tensor's axis.

    Raises:
        UserError: the tensor has another number of axes.
    """
    if state[key].ndim != axes or 0 in state[key].shape:
        raise UserError(f"{path}: {key} has the shape {tuple(state[key].shape)}, where {axes} axes are expected")
    return state[key].shape[dimension]


def on_meta() -> torch.device:
    """The device on which a model takes neither time nor memory until it gets its weights."""
    return torch.device("meta")
