"""What the published layouts of DPT have in common: one network under different names.

Source: DPT, arXiv 2103.13413, and recorded outputs of every layout. A layout is a table of module names; sizes are
read off the weights. Most files hold the encoder's final norm and a unit of the coarsest level for a coarser one; both
are unused, known, and left out.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

from segmenter import config
from segmenter.checkpoints import encoders, keys
from segmenter.checkpoints.encoders import Shape
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.data.classes import Classes, default_colors
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.errors import UserError
from segmenter.model.decoders.dpt import SCALES
from segmenter.model.folder import Description, description
from segmenter.model.segmenter import Segmenter
from segmenter.published.openmmlab_config import HEAD_WIDTH, WHOLE

HYBRID = "vit_base_r50_s16_384"
HYBRID_SHAPE = Shape(16, 768, 12, 12)
NORMALIZATION = ((0.5,) * 3, (0.5,) * 3)  # mean and std of red, green and blue on the scale 0 to 1
READOUTS = ("project", "add", "ignore")
DEPTH_SIDE, LABEL_SIDE = 384, 480  # pixels of the short side of a test image, as published


def modules(templates: Mapping[str, str]) -> dict[str, str]:
    """Our names of the decoder's modules to theirs.

    {level} counts from 0, the finest, {stage} likewise from 1, {order} from 0, the coarsest; {n} is a number in both.
    """
    return {
        ours.format(level=level, n=n): theirs.format(level=level, stage=level + 1, order=len(SCALES) - 1 - level, n=n)
        for (ours, theirs), level, n in product(templates.items(), range(len(SCALES)), range(5))
    }


class Names(NamedTuple):
    """A published layout's names, and what its files do not state."""

    title: str
    """In messages."""
    variant: str
    """Of the decoder."""
    encoder: Callable[[str], str]
    """timm's name of a tensor of the encoder to theirs."""
    blocks: str
    """Prefix of the keys of the encoder's blocks, before their numbers."""
    modules: Mapping[str, str]
    """Our names of the decoder's modules to theirs, by `modules`."""
    norm_eps: float
    position_resize: str
    unused: tuple[str, ...]
    """Prefixes of keys that are known to be unused."""

    def key(self, ours: str) -> str:
        """Our name of a tensor to theirs."""
        if ours.startswith("encoder.vit."):
            return self.encoder(ours.removeprefix("encoder.vit."))
        module, _, kind = ours.removeprefix("decoder.").rpartition(".")
        return f"{self.modules[module]}.{kind}"


class Settings(NamedTuple):
    """What the weights do not show; None: not stated."""

    heads: int | None = None
    taps: tuple[int, ...] | None = None
    readout: str | None = None
    image_size: tuple[int, int] | None = None
    short_side: int | None = None
    encoder: str | None = None
    """timm's name."""
    norm_eps: float | None = None
    names: tuple[str, ...] | None = None
    """Of the classes."""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    auxiliary: float = 0.4
    """Weight of the auxiliary decoder's loss."""
    ours: Mapping | None = None
    """Our own description of the whole model, in files that were written here."""


def settings_beside(checkpoint: Checkpoint) -> Settings:
    """The settings stated beside weights without a configuration: `num_heads`, `hooks`, `readout`.

    The names are the original DPT's. In the metadata of a .safetensors file the values are text.

    Raises:
        UserError: a value is impossible.
    """

    def value(name: str, wanted: str, fitting: Callable[[object], bool]):
        found = checkpoint.about.get(name)
        if isinstance(found, str):
            with suppress(ValueError, RecursionError):
                found = json.loads(found)
        if found is not None and not fitting(found):
            raise UserError(f"{checkpoint.path}: {name} beside the weights is {found!r}; write {wanted}")
        return found

    def naturals(found: object) -> bool:
        return isinstance(found, list | tuple) and all(type(block) is int and block >= 0 for block in found)

    hooks = value("hooks", "the blocks that are read, as 2, 5, 8, 11 in brackets", naturals)
    return Settings(
        heads=value("num_heads", "the attention heads, 1 or more", lambda found: type(found) is int and found > 0),
        taps=None if hooks is None else tuple(hooks),
        readout=value("readout", " or ".join(READOUTS), lambda found: found in READOUTS),
    )


class Weights:
    """Sizes of the network, read off its weights; 1 where the tensor that has them is missing."""

    def __init__(self, checkpoint: Checkpoint, layout: Names):
        self._checkpoint, self._layout = checkpoint, layout
        self.labels = layout.key("decoder.head.1.running_mean") in checkpoint.state
        self.auxiliary = layout.key("decoder.auxiliary.0.4.weight") in checkpoint.state if self.labels else False
        self.hybrid = self.has("encoder.vit.patch_embed.backbone.stem.conv.weight")
        self.patch = HYBRID_SHAPE.patch if self.hybrid else self.size("encoder.vit.patch_embed.proj.weight", 3, 4)
        widths = self.size("encoder.vit.patch_embed.proj.weight", 0, 4), self.size("encoder.vit.pos_embed", 2, 3)
        self.width = max(widths)  # lest it be 1 where only one of them is missing
        self.depth = keys.depth(checkpoint.state, layout.blocks)
        self.hidden = self.size("encoder.vit.blocks.0.mlp.fc1.weight", 0, 2)
        tokens = {name: layout.encoder(name) for name in ("pos_embed", "cls_token", "dist_token", "reg_token")}
        stems = {name: checkpoint.state[key] for name, key in tokens.items() if key in checkpoint.state}
        self.grid = encoders.position_grid(stems)
        self.fusion = self.size("decoder.narrow.0.weight", 0, 4)
        self.widths = tuple(self.size(f"decoder.narrow.{level}.weight", 1, 4) for level in range(len(SCALES)))
        self.project = self.has(f"decoder.reassemble.{len(SCALES) - 1}.readout.weight")
        self.classes = self.size("decoder.head.4.bias", 0, 1)
        units = [f"decoder.fusion.{level}.unit" for level in range(len(SCALES))]
        self.norm = any(self.has(f"{unit}.norm{n}.weight") for unit in units for n in (1, 2))
        self.bias = any(self.has(f"{unit}.conv{n}.bias") for unit in units for n in (1, 2))
        self.qkv_bias = any(self.has(f"encoder.vit.blocks.{index}.attn.qkv.bias") for index in range(self.depth))

    def has(self, ours: str) -> bool:
        """Whether the file has the tensor that we call `ours`."""
        return self._layout.key(ours) in self._checkpoint.state

    def size(self, ours: str, dimension: int, axes: int) -> int:
        """Length of an axis of the tensor that we call `ours`."""
        key = self._layout.key(ours)
        return keys.axis(self._checkpoint.path, self._checkpoint.state, key, dimension, axes) if self.has(ours) else 1


def model(
    checkpoint: Checkpoint, layout: Names, settings: Settings, auxiliary: bool = False
) -> tuple[Segmenter, LoadReport]:
    """The network of a file, in evaluation mode, and a report.

    Args:
        checkpoint: the file; every key counts.
        layout: its names.
        settings: what is known besides the weights.
        auxiliary: whether to load the auxiliary decoder, if the file has one.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    report, weights = LoadReport(layout.title), Weights(checkpoint, layout)
    with_auxiliary = auxiliary and weights.auxiliary
    if settings.ours is not None:
        about = description(settings.ours, f"the description beside {checkpoint.path}", "write it again")
    else:
        recipe = _recipe(checkpoint.path, layout, settings, weights, report)
        classes = _classes(settings, weights, report)
        about = Description(classes, *(settings.normalization or _assumed_normalization(report)), recipe)
    with keys.on_meta():
        network = Segmenter.from_description(about, with_auxiliary)
    names = sources(network, layout)
    last = network.decoder.taps[-1]
    unused = [*layout.unused, *(f"{layout.blocks}{index}." for index in range(last + 1, weights.depth))]
    if not with_auxiliary:
        unused.append(layout.modules["auxiliary.0.0"].rpartition(".")[0])
    keys.refuse_other_keys(checkpoint, report, {source.key for source in names.values()}, unused)
    keys.fill(network, checkpoint, report, names)
    return network.eval(), report


def sources(network: Segmenter, layout: Names) -> dict[str, TensorSource]:
    """Our names of a network's tensors to theirs."""
    return {ours: TensorSource(layout.key(ours)) for ours in network.state_dict()}


def _recipe(path: Path, layout: Names, settings: Settings, weights: Weights, report: LoadReport) -> config.Recipe:
    heads = settings.heads or _assumed_heads(weights.width, report)
    if weights.width % heads:
        raise UserError(f"{path}: {heads} attention heads do not divide the encoder's {weights.width} features")
    size = settings.image_size or _assumed_size(path, layout, weights, report)
    short_side = settings.short_side
    if short_side is None:
        short_side = LABEL_SIDE if weights.labels else DEPTH_SIDE
        report.assumed.append(f"images with a short side of {short_side} pixels, taken whole")
    taps, readout = settings.taps, settings.readout
    if taps is None:
        report.assumed.append("the published blocks are read: the last of each quarter of the depth")
    if readout is None:
        readout = "project" if weights.project else "ignore"
        if not weights.project:
            report.assumed.append("the class token is not read: the file has no projections for it and no `add`")
    encoder = _encoder(settings, weights, heads)
    same = {"variant": layout.variant, "width": weights.fusion, "widths": weights.widths, "taps": taps or ()}
    same |= {"readout": readout, "norm": weights.norm, "bias": weights.bias}
    return config.Recipe(
        augment=config.Augment(short_side=short_side, crop=size),
        encoder=replace(encoder, norm_eps=settings.norm_eps or layout.norm_eps, position_resize=layout.position_resize),
        decoder=_decoder(weights.labels, settings.auxiliary if weights.auxiliary else 0.0, same),
        inference=config.Inference(window=WHOLE, stride=WHOLE),
    )


def _decoder(labels: bool, auxiliary: float, same: dict) -> config.Dpt | config.DptDepth:
    """The settings of DPT for labels or for depth; `same` are those of both."""
    return config.Dpt(dropout=0.1, auxiliary=auxiliary, **same) if labels else config.DptDepth(**same)


def _encoder(settings: Settings, weights: Weights, heads: int) -> config.Encoder:
    shape = Shape(weights.patch, weights.width, heads, weights.depth)
    name = settings.encoder or (HYBRID if weights.hybrid else encoders.timm_name(shape))
    changes = encoders.changes(name, shape)
    if weights.hybrid:
        known = HYBRID_SHAPE._asdict()
        fields = {"width": weights.width, "heads": heads, "depth": weights.depth}
        changes = {field: value for field, value in fields.items() if known[field] != value}
    ratio = weights.hidden / weights.width
    changes |= {"mlp_ratio": None if ratio == 4 else ratio, "qkv_bias": None if weights.qkv_bias else False}
    return config.Encoder(name=name, **changes)


def _assumed_heads(width: int, report: LoadReport) -> int:
    heads = max(1, width // HEAD_WIDTH)
    report.assumed.append(f"{heads} attention heads in the encoder, one for every {HEAD_WIDTH} features")
    return heads


def _assumed_size(path: Path, layout: Names, weights: Weights, report: LoadReport) -> tuple[int, int]:
    if weights.grid is None:
        raise UserError(f"{path}: the positions in {layout.encoder('pos_embed')} form no square; take a published file")
    side = weights.grid[0] * weights.patch
    report.assumed.append(f"a square crop of {side} pixels, for {weights.grid[0]} x {weights.grid[1]} positions")
    return side, side


def _assumed_normalization(report: LoadReport) -> tuple[tuple[float, ...], tuple[float, ...]]:
    report.assumed.append("the normalisation mean = std = 0.5")
    return NORMALIZATION


def _classes(settings: Settings, weights: Weights, report: LoadReport) -> Classes:
    if not weights.labels:
        return DEPTH_CLASSES
    if settings.names is not None and len(settings.names) == weights.classes:
        return Classes(settings.names, default_colors(weights.classes))
    report.assumed.append(f"{weights.classes} classes without names")
    return Classes(tuple(f"class {index}" for index in range(weights.classes)), default_colors(weights.classes))
