"""Published encoders without a decoder: timm's state dicts, DeiT's .pth files, Google's .npz files.

Source of the layouts: the published Segmenter starts from the last two. Positions stay on the grid of the file: the
encoder resamples them bilinearly, as published, to the grid of its crop.
"""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segmenter.checkpoints.keys import LoadReport, depth, refuse_other_keys
from segmenter.checkpoints.reading import Checkpoint, read, refuse_not_finite
from segmenter.errors import UserError

GOOGLE = "Google's .npz"
CLASSIFIERS = ("head.", "head_dist.", "pre_logits.")
PREFIXES = ("opt/target/", "params/", "")


class Shape(NamedTuple):
    """Sizes of a plain vision transformer."""

    patch: int
    width: int
    heads: int
    depth: int
    distilled: bool = False


# The encoders of the published Segmenters; where timm has none of that name, the one of the same shape.
SHAPES = {
    "vit_tiny_patch16_384": Shape(16, 192, 3, 12),
    "vit_small_patch16_384": Shape(16, 384, 6, 12),
    "vit_small_patch32_384": Shape(32, 384, 6, 12),
    "vit_base_patch8_224": Shape(8, 768, 12, 12),
    "vit_base_patch16_384": Shape(16, 768, 12, 12),
    "vit_base_patch32_384": Shape(32, 768, 12, 12),
    "vit_large_patch16_384": Shape(16, 1024, 16, 24),
    "vit_large_patch32_384": Shape(32, 1024, 16, 24),
    "deit_tiny_distilled_patch16_224": Shape(16, 192, 3, 12, True),
    "deit_small_distilled_patch16_224": Shape(16, 384, 6, 12, True),
    "deit_base_distilled_patch16_384": Shape(16, 768, 12, 12, True),
    "deit_base_distilled_patch16_224": Shape(16, 768, 12, 12, True),
}


def timm_name(shape: Shape) -> str:
    """timm's name for an encoder of this shape; if there is none, a name whose shape must then be changed."""
    fallback = "deit_tiny_distilled_patch16_224" if shape.distilled else "vit_tiny_patch16_384"
    return next((name for name, known in SHAPES.items() if known == shape), fallback)


def changes(name: str, shape: Shape) -> dict[str, int | None]:
    """The fields of config.Encoder that give the encoder of this name the shape."""
    known = SHAPES.get(name)
    wanted = {"patch_size": shape.patch, "width": shape.width, "heads": shape.heads, "depth": shape.depth}
    if known is None:
        return wanted
    same = {"patch_size": known.patch, "width": known.width, "heads": known.heads, "depth": known.depth}
    return {key: None if same[key] == value else value for key, value in wanted.items()}


def is_google(keys: Collection[str]) -> bool:
    """Whether the keys are those of one of Google's files, or most of them."""
    return any(key.partition("Transformer/encoderblock")[0] in PREFIXES and "encoderblock" in key for key in keys)


def is_timm(keys: Collection[str]) -> bool:
    """Whether the keys are those of a vision transformer of timm or DeiT."""
    return any(key.startswith("blocks.") and ".attn.qkv." in key for key in keys)


class EncoderFile(NamedTuple):
    """An encoder's weights under timm's names (those of raw DINOv2 and similar unchanged), without the classifier."""

    state: dict[str, Tensor]
    heads: int | None = None
    """Attention heads, where the layout shows them."""


def read_encoder(path: str | Path) -> EncoderFile:
    """The weights of a file.

    Raises:
        UserError: as `read`; of Google's layout, also keys that are missing or unknown; values not finite.
    """
    checkpoint = read(path)
    if is_google(checkpoint.state):
        found = from_google(checkpoint)
    else:
        found = EncoderFile({k: v for k, v in checkpoint.state.items() if not k.startswith(CLASSIFIERS)})
    refuse_not_finite(checkpoint.path, found.state)
    return found


def from_google(checkpoint: Checkpoint) -> EncoderFile:
    """Google's names and axes to timm's.

    Raises:
        UserError: keys are missing or unknown, or a tensor has the wrong number of axes.
    """
    state = checkpoint.state
    prefix = next(p for p in PREFIXES if any(key.startswith(f"{p}Transformer/") for key in state))
    sources = _google_sources(depth(state, f"{prefix}Transformer/encoderblock_"))
    wanted = [f"{prefix}{key}" for keys, _ in sources.values() for key in keys]
    unused = [f"{prefix}{name}" for name in ("head/", "pre_logits/")]
    report = LoadReport(GOOGLE)
    if prefix == "opt/target/":
        unused += ["opt/state/"]  # the optimiser's
    refuse_other_keys(checkpoint, report, wanted, unused)
    found = {}
    for name, (keys, convert) in sources.items():
        try:
            found[name] = convert(*(state[f"{prefix}{key}"].float() for key in keys)).contiguous()
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(str(tuple(state[f"{prefix}{key}"].shape)) for key in keys)
            raise UserError(f"{checkpoint.path}: {prefix}{keys[0]} has a wrong number of axes: {shapes}") from error
    first = state.get(f"{prefix}Transformer/encoderblock_0/MultiHeadDotProductAttention_1/out/kernel")
    return EncoderFile(found, None if first is None else first.shape[0])


def _google_sources(blocks: int) -> Mapping[str, tuple[tuple[str, ...], Callable[..., Tensor]]]:
    """From our names to the file's keys and the function that makes one tensor of theirs."""

    def same(tensor: Tensor) -> Tensor:
        return tensor

    def turned(tensor: Tensor) -> Tensor:
        return tensor.mT

    sources = {
        "cls_token": (("cls",), same),
        "pos_embed": (("Transformer/posembed_input/pos_embedding",), same),
        "patch_embed.proj.weight": (("embedding/kernel",), lambda t: t.permute(3, 2, 0, 1)),  # P P 3 D to D 3 P P
        "patch_embed.proj.bias": (("embedding/bias",), same),
        "norm.weight": (("Transformer/encoder_norm/scale",), same),
        "norm.bias": (("Transformer/encoder_norm/bias",), same),
    }
    for index in range(blocks):
        theirs, ours = f"Transformer/encoderblock_{index}/", f"blocks.{index}."
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        parts = [f"{attention}{part}/" for part in ("query", "key", "value")]
        sources |= {
            f"{ours}norm1.weight": ((f"{theirs}LayerNorm_0/scale",), same),
            f"{ours}norm1.bias": ((f"{theirs}LayerNorm_0/bias",), same),
            f"{ours}norm2.weight": ((f"{theirs}LayerNorm_2/scale",), same),
            f"{ours}norm2.bias": ((f"{theirs}LayerNorm_2/bias",), same),
            # Kernels are D x heads x features a head; ours are rows of [queries; keys; values].
            f"{ours}attn.qkv.weight": (tuple(f"{p}kernel" for p in parts), _rows),
            f"{ours}attn.qkv.bias": (tuple(f"{p}bias" for p in parts), lambda *t: torch.cat([x.flatten() for x in t])),
            # heads x features a head x D
            f"{ours}attn.proj.weight": ((f"{attention}out/kernel",), lambda t: t.flatten(0, -2).mT),
            f"{ours}attn.proj.bias": ((f"{attention}out/bias",), same),
        }
        for number in (0, 1):
            dense, layer = f"{theirs}MlpBlock_3/Dense_{number}/", f"{ours}mlp.fc{number + 1}."
            sources |= {f"{layer}weight": ((f"{dense}kernel",), turned), f"{layer}bias": ((f"{dense}bias",), same)}
    return sources


def _rows(*kernels: Tensor) -> Tensor:
    return torch.cat([kernel.flatten(1).mT for kernel in kernels])


def position_grid(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """The square grid of the positions in a state dict with timm's names; None if it cannot be determined."""
    if "pos_embed" not in state or state["pos_embed"].ndim != 3:
        return None
    rows = state["pos_embed"].shape[1]
    prefix = sum(state[name].shape[1] for name in ("cls_token", "dist_token", "reg_token")
                 if name in state and state[name].ndim == 3)  # fmt: skip
    for count in sorted({prefix, min(prefix, 1), 0}, reverse=True):  # some models have no positions for prefix tokens
        side = math.isqrt(max(rows - count, 0))
        if side and side**2 == rows - count:
            return side, side
    return None
