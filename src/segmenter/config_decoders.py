"""The settings of each decoder: one dataclass each, so that no decoder has settings that it does not read."""

import difflib
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

from segmenter.errors import UserError
from segmenter.ranges import Channels, Fraction, Layers, NonNegative

Task = Literal["labels", "depth"]


@dataclass
class Linear:
    """Segmenter's point-wise linear decoder, which has no settings."""

    name: Literal["linear"] = "linear"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    task: ClassVar[Task] = "labels"


@dataclass
class MaskTransformer:
    """Segmenter's mask transformer."""

    name: Literal["mask_transformer"] = "mask_transformer"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    layers: Layers = 2
    """Number of blocks."""
    heads: Channels | None = None
    """Attention heads; empty: one for every 64 features."""
    dropout: Fraction = 0.0
    """Dropout; the published code trains with 0.1."""
    drop_path: Fraction = 0.0
    """Stochastic depth of the last block."""
    task: ClassVar[Task] = "labels"


@dataclass
class SetrUp:
    """SETR-Naive and SETR-PUP."""

    name: Literal["setr_naive", "setr_pup"] = "setr_naive"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    width: Channels = 256
    """Channels inside the heads."""
    taps: tuple[Layers, ...] = ()
    """Blocks of the encoder (0-based) that are read; empty: as published, spread over the depth.

    The last is the decoder's own, those before it are the auxiliary decoders'."""
    auxiliary: NonNegative = 0.4
    """Weight of the losses of the auxiliary decoders, which exist in training only; 0: none."""
    auxiliary_layers: Layers = 2
    """Convolutions of the auxiliary decoders in OpenMMLab's variant; Naive on Cityscapes has 1."""
    variant: Literal["original", "openmmlab"] = "original"
    """Implementation whose details are followed; set automatically when published weights are loaded."""
    task: ClassVar[Task] = "labels"


@dataclass
class SetrMla:
    """SETR-MLA."""

    name: Literal["setr_mla"] = "setr_mla"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    width: Channels = 256
    """Channels of the four maps."""
    head_width: Channels | None = None
    """Channels inside the four heads; empty: half of the width, as published."""
    taps: tuple[Layers, ...] = ()
    """Blocks of the encoder (0-based) that are read, four; empty: as published, spread over the depth."""
    auxiliary: NonNegative = 0.4
    """Weight of the losses of the auxiliary decoders, which exist in training only; 0: none."""
    variant: Literal["original", "openmmlab"] = "original"
    """Implementation whose details are followed; set automatically when published weights are loaded."""
    task: ClassVar[Task] = "labels"


DptVariant = Literal["own", "original", "openmmlab", "huggingface", "smp"]


@dataclass
class Dpt:
    """DPT for labels."""

    name: Literal["dpt"] = "dpt"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    width: Channels = 256
    """Channels of the fusion."""
    widths: tuple[Channels, ...] = ()
    """Channels of the four levels before the fusion, finest first; empty: as published for the encoder's width."""
    taps: tuple[Layers, ...] = ()
    """Blocks of the encoder (0-based) that are read; empty: as published, spread over the depth."""
    readout: Literal["project", "add", "ignore"] = "project"
    """Use of the class token: `project` mixes it with every patch, `add` adds it, `ignore` leaves it out."""
    norm: bool = True
    """Whether the residual units have batch norms."""
    bias: bool = False
    """Whether the residual units' convolutions have biases."""
    dropout: Fraction = 0.0
    """Dropout before the classifier; the published code trains with 0.1."""
    auxiliary: NonNegative = 0.4
    """Weight of the loss of the auxiliary decoder, which exists in training only; 0: none."""
    variant: DptVariant = "own"
    """Implementation whose details are followed; set automatically when published weights are loaded."""
    task: ClassVar[Task] = "labels"


@dataclass
class DptDepth:
    """DPT for depth."""

    name: Literal["dpt_depth"] = "dpt_depth"
    """linear, mask_transformer, setr_naive, setr_pup, setr_mla, dpt or dpt_depth; each has its own settings."""
    width: Channels = 256
    """Channels of the fusion."""
    widths: tuple[Channels, ...] = ()
    """Channels of the four levels before the fusion, finest first; empty: as published for the encoder's width."""
    taps: tuple[Layers, ...] = ()
    """Blocks of the encoder (0-based) that are read; empty: as published, spread over the depth."""
    readout: Literal["project", "add", "ignore"] = "project"
    """Use of the class token: `project` mixes it with every patch, `add` adds it, `ignore` leaves it out."""
    norm: bool = False
    """Whether the residual units have batch norms."""
    bias: bool = True
    """Whether the residual units' convolutions have biases."""
    non_negative: bool = True
    """Whether the output ends in a ReLU."""
    variant: DptVariant = "own"
    """Implementation whose details are followed; set automatically when published weights are loaded."""
    task: ClassVar[Task] = "depth"


Decoder = Linear | MaskTransformer | SetrUp | SetrMla | Dpt | DptDepth
DECODERS: dict[str, type[Decoder]] = {
    name: kind for kind in get_args(Decoder) for name in get_args(kind.__annotations__["name"])
}


def decoder(name: str, **settings) -> Decoder:
    """The settings of the decoder of a name.

    Raises:
        UserError: there is no such decoder, or it does not read one of the settings.
    """
    if name not in DECODERS:
        raise UserError(f"decoder.name is {name!r}; choose {' or '.join(DECODERS)}")
    for setting in settings:
        refuse_unread(name, setting)
    return DECODERS[name](name=name, **settings)


def readers(setting: str) -> list[str]:
    """The decoders that read a setting."""
    return [name for name, kind in DECODERS.items() if setting in (field.name for field in fields(kind))]


def refuse_unread(name: str, setting: str) -> None:
    """Checks that the decoder of a name reads a setting.

    Raises:
        UserError: it does not; the error names the decoders that do.
    """
    others = readers(setting)
    if name in others:
        return
    if others:
        raise UserError(
            f"decoder.{setting} is set, but the decoder {name} does not read it ({', '.join(others)} would); "
            "leave it out, or choose another decoder.name"
        )
    own = [field.name for field in fields(DECODERS[name])]
    near = difflib.get_close_matches(setting, own, n=1)
    hint = f"did you mean decoder.{near[0]}?" if near else f"known here: {', '.join(own)}"
    raise UserError(f"unknown setting decoder.{setting}; {hint}")
