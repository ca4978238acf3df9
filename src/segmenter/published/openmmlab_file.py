"""What OpenMMLab's files have in common, whatever their heads: the keys of the backbone, the configuration, `meta`.

Source: files and configurations of mmsegmentation 0.x and 1.x. The authors' SETR was made with 0.x: its files carry the
same `meta` with other keys. The bias of the patch embedding is used where a file has it; mmsegmentation 1.2 silently
drops it. Head counts, windows and scales are in the configuration text in `meta`; it is parsed, never run.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segmenter import atomic, config
from segmenter.checkpoints import encoders, keys
from segmenter.checkpoints.json_settings import is_number
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.model.folder import Description, description
from segmenter.model.segmenter import Segmenter
from segmenter.published import openmmlab_config
from segmenter.published.openmmlab_config import HEAD_WIDTH, WHOLE, Configuration, is_list

NORM_EPS = 1e-6
OURS = "vit_segmenter"  # our own section of `meta`, which OpenMMLab's code ignores
CHECKPOINT = "model.pth"
PATCHES = "backbone.patch_embed.projection.weight"
# mmsegmentation's own defaults, for what a configuration leaves out.
UNSTATED_EPS, UNSTATED_RESIZE = 1e-5, "bicubic"

# A block's names, theirs to timm's.
BLOCK = {
    "ln1": "norm1",
    "attn.attn.in_proj_": "attn.qkv.",
    "attn.attn.out_proj": "attn.proj",
    "ln2": "norm2",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}


class Defaults(NamedTuple):
    """What the published configurations of a layout state, for files without a configuration."""

    mean: tuple[float, ...]
    """Of red, green and blue, on the scale 0 to 255."""
    std: tuple[float, ...]
    position_resize: str
    drop_path: float
    stride: Callable[[int], int]
    """From a window's side to the stride between windows."""
    train: config.Train
    norm_eps: float = NORM_EPS
    """Of the encoder."""


def backbone(blocks: int) -> dict[str, TensorSource]:
    """Our names of the encoder's tensors to theirs, without the final norm."""
    found = {
        "encoder.vit.cls_token": TensorSource("backbone.cls_token"),
        "encoder.vit.pos_embed": TensorSource("backbone.pos_embed"),
        "encoder.vit.patch_embed.proj.weight": TensorSource(PATCHES),
        "encoder.vit.patch_embed.proj.bias": TensorSource("backbone.patch_embed.projection.bias"),
    }
    for index in range(blocks):
        found |= block(f"encoder.vit.blocks.{index}.", f"backbone.layers.{index}.")
    return found


def block(ours: str, theirs: str) -> dict[str, TensorSource]:
    """Our names of a transformer block's tensors to theirs."""
    found = {}
    for their_part, part in BLOCK.items():
        for kind in ("weight", "bias"):
            dot = "" if their_part.endswith("_") else "."
            found[f"{ours}{part.removesuffix('.')}.{kind}"] = TensorSource(f"{theirs}{their_part}{dot}{kind}")
    return found


def account(
    checkpoint: Checkpoint, report: LoadReport, names: Mapping[str, TensorSource], unused: tuple[str, ...],
    more: Collection[str] = (),
) -> Checkpoint:  # fmt: skip
    """The file with every key accounted for, as in `keys`; a missing bias of the patch embedding becomes zero.

    `more` are keys that are wanted besides those of `names`. Unless the configuration says that there is no such bias,
    as in mmsegmentation 1.2, the report lists that as assumed.
    """
    weight, bias = (names[f"encoder.vit.patch_embed.proj.{kind}"].key for kind in ("weight", "bias"))
    wanted = {source.key for source in names.values()}.union(more) - ({bias} - checkpoint.state.keys())
    keys.refuse_other_keys(checkpoint, report, wanted, unused)
    if bias in checkpoint.state:
        return checkpoint
    if Configuration(checkpoint.about.get("meta")).find("model.backbone.patch_bias") is not False:
        report.assumed.append(f"no bias of the patch embedding: {bias} is not in the file")
    width = keys.axis(checkpoint.path, checkpoint.state, weight, 0, 4)
    return replace(checkpoint, state=checkpoint.state | {bias: checkpoint.state[weight].new_zeros(width)})


def network(
    checkpoint: Checkpoint, report: LoadReport, names: Mapping[str, TensorSource], depth: int, class_key: str,
    decoder: Callable[[int], config.Decoder], defaults: Defaults, auxiliary: bool = False,
) -> Segmenter:  # fmt: skip
    """The network of a file whose keys are accounted for, in evaluation mode.

    Args:
        checkpoint: the file.
        report: receives what had to be assumed.
        names: our names of all tensors to theirs.
        depth: blocks of the encoder.
        class_key: a vector with one number a class.
        decoder: gives its settings from the encoder's width; only called for files that were not written here.
        defaults: what the layout's configurations state.
        auxiliary: with the auxiliary decoders.

    Raises:
        UserError: shapes contradict each other or the configuration, values are not finite.
    """
    path, state = checkpoint.path, checkpoint.state
    weight = names["encoder.vit.patch_embed.proj.weight"].key
    width, patch = (keys.axis(path, state, weight, dimension, 4) for dimension in (0, 3))
    count = keys.axis(path, state, class_key, 0, 1)
    positions = keys.axis(path, state, "backbone.pos_embed", 1, 3) - 1
    meta = checkpoint.about.get("meta")
    section = meta.get(OURS) if isinstance(meta, Mapping) else None
    if isinstance(section, Mapping):
        known = description(section, f"{path}: meta.{OURS}", "write the file again")
    else:
        about = Configuration(meta)
        if about.find("model.backbone") is not None and weight == PATCHES:
            defaults = defaults._replace(norm_eps=UNSTATED_EPS, position_resize=UNSTATED_RESIZE)
        size = _image_size(about, path, positions, patch, report)
        recipe = _recipe(about, (width, patch, depth), size, defaults, report)
        recipe.decoder = decoder(width)
        known = Description(_classes(meta, count, report), *_normalization(about, defaults, report), recipe)
    with keys.on_meta():
        found = Segmenter.from_description(known, auxiliary)
    keys.fill(found, checkpoint, report, names)
    return found.eval()


def write(
    network: Segmenter, names: Mapping[str, TensorSource], folder: Path, parts: Mapping[str, dict | list],
    more: Mapping[str, Tensor] | None = None,
) -> list[str]:  # fmt: skip
    """Writes model.pth; returns the points in which OpenMMLab's code treats it differently.

    `parts` are sections of the model's configuration, merged into the backbone's where they have one; `more` are
    tensors that our network does not have.
    """
    classes, palette = list(network.classes.names), [list(color) for color in network.classes.colors]
    meta = {
        "CLASSES": classes,  # of 0.x
        "PALETTE": palette,
        "dataset_meta": {"classes": classes, "palette": palette},  # of 1.x
        "cfg": openmmlab_config.text(network, parts),
        OURS: network.describe().to_dict(),
    }
    content = {"meta": meta, "state_dict": keys.to_published(network.state_dict(), names) | dict(more or {})}
    atomic.write(folder / CHECKPOINT, lambda path: torch.save(content, path))
    found = [
        "the bias of the patch embedding is dropped by mmsegmentation from 1.2 on, unless the configuration has "
        "patch_bias=True, as in the file",
        "logits of an image whose size is not a multiple of the patch size are enlarged to the image, here to the "
        "padded image",
    ]
    if network.recipe.inference.enlarge:
        found.append("images smaller than the window are taken whole, here enlarged to it")
    return found


def heads(about: Configuration, part: str, width: int, report: LoadReport) -> int:
    """Attention heads of a part of the model, `backbone` or `decode_head`."""
    found = about.natural(f"model.{part}.num_heads")
    if found is None:
        found = max(1, width // HEAD_WIDTH)
        report.assumed.append(f"{found} attention heads in the {part}, one for every {HEAD_WIDTH} features")
    if width % found:
        raise UserError(f"the configuration of the file says {found} heads in the {part}, which do not divide {width}")
    return found


def _image_size(about: Configuration, path: Path, positions: int, patch: int, report: LoadReport) -> tuple[int, int]:
    """Height and width of the training crop, on whose grid the positions lie."""
    size = about.pair("model.backbone.img_size")
    if size is not None and math.prod(side // patch for side in size) == positions:
        return size
    side = math.isqrt(max(positions, 0))
    if side < 1 or side**2 != positions:
        raise UserError(
            f"{path}: backbone.pos_embed has {positions} positions, which form no square, and the file carries no "
            "configuration that says how they lie"
        )
    report.assumed.append(f"a square crop of {side * patch} pixels, for {positions} positions")
    return side * patch, side * patch


def _recipe(
    about: Configuration, encoder: tuple[int, int, int], size: tuple[int, int], defaults: Defaults, report: LoadReport
) -> config.Recipe:
    width, patch, depth = encoder
    shape = encoders.Shape(patch, width, heads(about, "backbone", width, report), depth)
    name = encoders.timm_name(shape)
    resize = about.find("model.backbone.interpolate_mode")
    short_side, max_ratio = _scale(about, size, report)
    window, stride = _windows(about, size, defaults, report)
    return config.Recipe(
        augment=config.Augment(short_side=short_side, max_ratio=max_ratio, crop=size),
        encoder=config.Encoder(
            name=name,
            norm_eps=about.number("model.backbone.norm_cfg.eps", defaults.norm_eps),
            drop_path=about.number("model.backbone.drop_path_rate", defaults.drop_path),
            dropout=about.number("model.backbone.drop_rate", 0.0),
            position_resize=resize if resize in ("bilinear", "bicubic") else defaults.position_resize,
            **encoders.changes(name, shape),
        ),
        train=replace(defaults.train),
        inference=config.Inference(window=window, stride=stride),
    )


def _scale(about: Configuration, size: tuple[int, int], report: LoadReport) -> tuple[int, float]:
    """Short side of a test image, and how many times longer the other may be."""
    steps = about.find("test_pipeline")
    for step in steps if isinstance(steps, list) else []:
        sides = step.get("img_scale", step.get("scale")) if isinstance(step, dict) else None
        if is_list(sides, 2) and all(type(side) is int and side > 0 for side in sides):
            return min(sides), max(sides) / min(sides)
    report.assumed.append(f"images with a short side of {min(size)} pixels, and at most 4 times that")
    return min(size), 4.0


def _windows(
    about: Configuration, size: tuple[int, int], defaults: Defaults, report: LoadReport
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and stride of the test configuration, which is a separate section in early files."""
    for place in ("model.test_cfg", "test_cfg"):
        if about.find(f"{place}.mode") == "whole":
            return WHOLE, WHOLE
        window, stride = about.pair(f"{place}.crop_size"), about.pair(f"{place}.stride")
        if window is not None and stride is not None:
            return window, stride
    stride = tuple(map(defaults.stride, size))
    report.assumed.append(f"windows of {size} pixels every {stride}, as the published configurations have them")
    return size, stride


def _normalization(
    about: Configuration, defaults: Defaults, report: LoadReport
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for place in ("model.data_preprocessor", "data_preprocessor", "img_norm_cfg"):
        values = [about.find(f"{place}.{name}") for name in ("mean", "std")]
        if all(is_list(value, 3) and all(is_number(part) and part > 0 for part in value) for value in values):
            return tuple(tuple(part / 255 for part in value) for value in values)
    report.assumed.append(f"the normalisation mean {defaults.mean}, std {defaults.std}")
    return tuple(tuple(part / 255 for part in value) for value in (defaults.mean, defaults.std))


def _classes(meta: object, count: int, report: LoadReport) -> Classes:
    """Names and colours of `meta`: CLASSES and PALETTE in 0.x, the same below dataset_meta in 1.x."""
    places = [meta, meta.get("dataset_meta")] if isinstance(meta, Mapping) else []
    about: dict[str, object] = {}
    for place in places:
        if isinstance(place, Mapping):
            about |= {str(key).lower(): value for key, value in place.items()}
    names, palette = about.get("classes"), about.get("palette")
    if not is_list(names, count) or not all(isinstance(name, str) for name in names):
        names = [f"class {index}" for index in range(count)]
        report.assumed.append(f"{count} classes without names")
    good = is_list(palette, count) and all(
        is_list(color, 3) and all(type(part) is int and 0 <= part <= 255 for part in color) for color in palette
    )
    colors = tuple(tuple(color) for color in palette) if good else default_colors(count)
    return Classes(tuple(name.strip() for name in names), colors)  # ADE20K's list has "bed "
