"""Accounts for every key of a published file: used, known to be unused, missing, or unknown.

A layout says for each tensor of our model under which name the file has it and how it is turned into ours.
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


class Source(NamedTuple):
    """Where a tensor of ours comes from."""

    key: str
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    """What makes ours of the file's."""
    revert: Callable[[Tensor], Tensor] = lambda tensor: tensor
    """The way back."""


@dataclass
class Report:
    """What was made of a published file."""

    layout: str
    used: int = 0
    """Tensors of the file that are in the model."""
    unused: list[str] = field(default_factory=list)
    """Tensors of the file that this layout is known to carry without need."""
    assumed: list[str] = field(default_factory=list)
    """What the file does not say and was taken from what published models have."""
    placeholders: dict[str, int] = field(default_factory=dict)
    """Types in the file that were not constructed, and how often each occurs."""

    def lines(self) -> list[str]:
        """The same for people, a line each."""
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
    checkpoint: Checkpoint, report: Report, wanted: Collection[str], known_unused: Iterable[str] = ()
) -> None:
    """Does nothing but fill the report if the file has all wanted keys, and no others but known ones.

    `known_unused` are beginnings of keys.

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


def fill(model: nn.Module, checkpoint: Checkpoint, report: Report, sources: Mapping[str, Source]) -> None:
    """Gives a model that was made on the meta device its weights, as float32.

    Raises:
        UserError: a tensor has another shape than the model's, or holds values that are not finite.
    """
    refuse_not_finite(checkpoint.path, {source.key: checkpoint.state[source.key] for source in sources.values()})
    if odd := sorted(model.state_dict().keys() ^ sources.keys()):
        raise UserError(f"{checkpoint.path}: the settings beside it ask for another network than its keys ({few(odd)})")
    state, wrong = {}, []
    for name, wanted in model.state_dict().items():
        tensor = checkpoint.state[sources[name].key]
        try:
            state[name] = sources[name].convert(tensor).to(wanted.dtype).contiguous()
        except (RuntimeError, IndexError):  # not even the number of axes fits
            state[name] = tensor
        if state[name].shape != wanted.shape:
            wrong.append(f"{sources[name].key} is {tuple(tensor.shape)}, not as {tuple(wanted.shape)} asks for")
    if wrong:
        raise UserError(
            f"{checkpoint.path} has the layout of {report.layout}, but {len(wrong)} tensors have another shape than "
            f"the rest asks for: {'; '.join(wrong[:3])}; take the whole file of one model"
        )
    model.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise AssertionError("a tensor of the model is in no state dict")


def to_published(state: Mapping[str, Tensor], sources: Mapping[str, Source]) -> dict[str, Tensor]:
    """A model's weights under the names of a layout, as float32 (counters as they are) on the CPU."""
    found = {source.key: source.revert(state[ours]).detach().cpu().contiguous() for ours, source in sources.items()}
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in found.items()}


def few(names: Iterable[str]) -> str:
    """The first three names."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def depth(keys: Iterable[str], prefix: str) -> int:
    """Blocks of a transformer whose keys begin with `prefix` and a number."""
    found = (re.match(r"\d{1,3}(?!\d)", key.removeprefix(prefix)) for key in keys if key.startswith(prefix))
    return 1 + max((int(number[0]) for number in found if number), default=-1)


def stated_heads(checkpoint: Checkpoint) -> int | None:
    """Attention heads of the encoder, where `num_heads` lies beside the weights."""
    value = checkpoint.about.get("num_heads")
    if isinstance(value, str) and value.isdigit():  # the metadata of a .safetensors file are texts
        value = int(value)
    return value if type(value) is int and value > 0 else None


def axis(path: Path, state: Mapping[str, Tensor], key: str, dimension: int, axes: int) -> int:
    """Length of a tensor's axis.

    Raises:
        UserError: the tensor has not that many axes.
    """
    if state[key].ndim != axes or 0 in state[key].shape:
        raise UserError(f"{path}: {key} has the shape {tuple(state[key].shape)}, where {axes} axes are expected")
    return state[key].shape[dimension]


def on_meta() -> torch.device:
    """A model made on it takes no time and no memory before it has its weights."""
    return torch.device("meta")
