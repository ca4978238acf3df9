"""The layout of OpenMMLab's Segmenter (mmsegmentation 0.x and 1.x): mask transformer and linear (FCN) head.

Source: the published configurations and files of Segmenter, arXiv 2105.05633, there. Constants of the layout: layer
norms of eps 1e-6 in the encoder and 1e-5 in the decoder, positions resampled bicubically, the two projections stored
as the weights of linear layers (the transpose of the original's), no classifiers. The bias of the patch embedding is
used where the file has it; mmsegmentation 1.2 drops it in silence. There, stochastic depth acts on the MLP alone,
which matters in training only. Head counts and windows stand in the configuration text that files carry in `meta`;
it is parsed, never run.
"""

import ast
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from segmenter import config
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.model.published import backbones, keys
from segmenter.model.published.keys import Report, Source
from segmenter.model.published.reading import Checkpoint
from segmenter.model.segmenter import Segmenter

NAME = "OpenMMLab's Segmenter"
NORM_EPS = 1e-6
HEAD_WIDTH = 64
PATCH_BIAS = "backbone.patch_embed.projection.bias"
MASK_HEAD = tuple(f"decode_head.{name}" for name in ("cls_emb", "dec_proj", "patch_proj", "classes_proj", "mask_norm"))
UNUSED = ("auxiliary_head.", "data_preprocessor.")
LONGEST_TEXT = 2**20
WHOLE = (2**16, 2**16)  # a window that holds any image: mode "whole"

# A block's names, theirs to timm's.
BLOCK = {
    "ln1": "norm1",
    "attn.attn.in_proj_": "attn.qkv.",
    "attn.attn.out_proj": "attn.proj",
    "ln2": "norm2",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}


def recognise(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    backbone = any(name.startswith("backbone.layers.") for name in names)
    head = {name for name in names if name.startswith("decode_head.")}
    linear = head <= {f"decode_head.conv_seg.{kind}" for kind in ("weight", "bias")}
    return backbone and bool(head) and (linear or any(name.startswith(MASK_HEAD) for name in head))


def sources(depth: int, layers: int | None) -> dict[str, Source]:
    """Our names to theirs; `layers` is None for the linear head."""
    found = {
        "encoder.vit.cls_token": Source("backbone.cls_token"),
        "encoder.vit.pos_embed": Source("backbone.pos_embed"),
        "encoder.vit.patch_embed.proj.weight": Source("backbone.patch_embed.projection.weight"),
        "encoder.vit.patch_embed.proj.bias": Source(PATCH_BIAS),
        "encoder.norm.weight": Source("backbone.ln1.weight"),
        "encoder.norm.bias": Source("backbone.ln1.bias"),
    }
    for index in range(depth):
        found |= _block(f"encoder.vit.blocks.{index}.", f"backbone.layers.{index}.")
    if layers is None:
        # A convolution of 1 x 1
        found["decoder.head.weight"] = Source("decode_head.conv_seg.weight", lambda t: t.squeeze(3).squeeze(2))
        found["decoder.head.bias"] = Source("decode_head.conv_seg.bias")
        return found
    for index in range(layers):
        found |= _block(f"decoder.blocks.{index}.", f"decode_head.layers.{index}.")
    found["decoder.class_embeddings"] = Source("decode_head.cls_emb")
    for ours, theirs in {"project": "dec_proj", "norm": "decoder_norm", "mask_norm": "mask_norm"}.items():
        for kind in ("weight", "bias"):
            found[f"decoder.{ours}.{kind}"] = Source(f"decode_head.{theirs}.{kind}")
    for name in ("patch", "classes"):
        ours = f"decoder.project_{'patches' if name == 'patch' else name}"
        found[ours] = Source(f"decode_head.{name}_proj.weight", lambda t: t.mT)
    return found


def _block(ours: str, theirs: str) -> dict[str, Source]:
    found = {}
    for their_part, part in BLOCK.items():
        for kind in ("weight", "bias"):
            dot = "" if their_part.endswith("_") else "."
            found[f"{ours}{part.removesuffix('.')}.{kind}"] = Source(f"{theirs}{their_part}{dot}{kind}")
    return found


def model(checkpoint: Checkpoint) -> tuple[Segmenter, Report]:
    """The network of a file of this layout, in evaluation mode, and what was made of the file.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    path, report = checkpoint.path, Report(NAME)
    state = checkpoint.state
    linear = not any(key.startswith(MASK_HEAD) for key in state)
    depth = keys.depth(state, "backbone.layers.")
    names = sources(depth, None if linear else keys.depth(state, "decode_head.layers."))
    bias = PATCH_BIAS in state
    wanted = {source.key for source in names.values()} - ({PATCH_BIAS} if not bias else set())
    keys.refuse_other_keys(checkpoint, report, wanted, UNUSED)

    width = keys.axis(path, state, "backbone.cls_token", 2, 3)
    patch = keys.axis(path, state, "backbone.patch_embed.projection.weight", 3, 4)
    count = keys.axis(path, state, "decode_head.conv_seg.bias" if linear else "decode_head.mask_norm.bias", 0, 1)
    positions = keys.axis(path, state, "backbone.pos_embed", 1, 3) - 1
    if not bias:
        report.assumed.append(f"no bias of the patch embedding: {PATCH_BIAS} is not in the file")
        state = state | {PATCH_BIAS: state["backbone.cls_token"].new_zeros(width)}
    about = Configuration(checkpoint.about.get("meta"))
    size = _image_size(about, path, positions, patch, report)
    recipe = _recipe(about, width, patch, depth, size, report)
    if not linear:
        recipe.decoder = config.Decoder(
            layers=keys.depth(state, "decode_head.layers."),
            heads=_heads(about, "decode_head", width, report),
            drop_path=about.number("model.decode_head.drop_path_rate", 0.0),
            dropout=about.number("model.decode_head.dropout_ratio", 0.0),
        )
    with keys.on_meta():
        network = Segmenter(recipe, _classes(checkpoint.about.get("meta"), count, report))
    network.mean, network.std = _normalization(about, report)
    filled = Checkpoint(path, state, checkpoint.about, checkpoint.placeholders)
    keys.fill(network, filled, report, names)
    return network.eval(), report


def _heads(about: "Configuration", part: str, width: int, report: Report) -> int:
    heads = about.natural(f"model.{part}.num_heads")
    if heads is None:
        heads = max(1, width // HEAD_WIDTH)
        report.assumed.append(f"{heads} attention heads in the {part}, one for every {HEAD_WIDTH} features")
    if width % heads:
        raise UserError(f"the configuration of the file says {heads} heads in the {part}, which do not divide {width}")
    return heads


def _image_size(
    about: "Configuration", path: Path, positions: int, patch: int, report: Report
) -> tuple[int, int]:
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
    about: "Configuration", width: int, patch: int, depth: int, size: tuple[int, int], report: Report
) -> config.Recipe:
    shape = backbones.Shape(patch, width, _heads(about, "backbone", width, report), depth)
    name = backbones.timm_name(shape)
    resize = about.find("model.backbone.interpolate_mode")
    window, stride = about.pair("model.test_cfg.crop_size"), about.pair("model.test_cfg.stride")
    if about.find("model.test_cfg.mode") == "whole":
        window = stride = WHOLE
    if window is None or stride is None:
        window, stride = size, tuple(max(side - 32, 1) for side in size)
        report.assumed.append(f"windows of {window} pixels every {stride}, as the published configurations have them")
    short_side = min(size)
    report.assumed.append(f"images with a short side of {short_side} pixels, and at most 4 times that")
    return config.Recipe(
        augment=config.Augment(short_side=short_side, crop=size),
        encoder=config.Encoder(
            name=name,
            norm_eps=about.number("model.backbone.norm_cfg.eps", NORM_EPS),
            drop_path=about.number("model.backbone.drop_path_rate", 0.1),
            dropout=about.number("model.backbone.drop_rate", 0.0),
            position_resize=resize if resize in ("bilinear", "bicubic") else "bicubic",
            **backbones.changes(name, shape),
        ),
        decoder=config.Decoder(name="linear"),
        train=config.Train(optimizer="sgd", lr=1e-3, min_lr=1e-4, steps=160_000),
        inference=config.Inference(window=window, stride=stride),
    )


def _normalization(about: "Configuration", report: Report) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for place in ("model.data_preprocessor", "data_preprocessor", "img_norm_cfg"):
        values = [about.find(f"{place}.{name}") for name in ("mean", "std")]
        if all(_is_list(value, 3) and all(_is_number(part) and part > 0 for part in value) for value in values):
            return tuple(tuple(part / 255 for part in value) for value in values)
    report.assumed.append("the normalisation mean = std = 127.5")
    return (0.5,) * 3, (0.5,) * 3


def _classes(meta: object, count: int, report: Report) -> Classes:
    """Names and colours of `meta`: CLASSES and PALETTE in 0.x, the same below dataset_meta in 1.x."""
    places = [meta, meta.get("dataset_meta")] if isinstance(meta, Mapping) else []
    about: dict[str, object] = {}
    for place in places:
        if isinstance(place, Mapping):
            about |= {str(key).lower(): value for key, value in place.items()}
    names, palette = about.get("classes"), about.get("palette")
    if not _is_list(names, count) or not all(isinstance(name, str) for name in names):
        names = [f"class {index}" for index in range(count)]
        report.assumed.append(f"{count} classes without names")
    good = _is_list(palette, count) and all(
        _is_list(color, 3) and all(type(part) is int and 0 <= part <= 255 for part in color) for color in palette
    )
    colors = tuple(tuple(color) for color in palette) if good else default_colors(count)
    return Classes(tuple(names), colors)


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


class Configuration:
    """The literals in the Python text of a configuration; whatever is no literal is left out."""

    def __init__(self, meta: object):
        text = ""
        if isinstance(meta, Mapping):
            text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
        self._values: dict[str, object] = {}
        if not text or len(text) > LONGEST_TEXT:
            return
        try:
            tree = ast.parse(text)
            for statement in tree.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    self._values[statement.targets[0].id] = self._value(statement.value)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # it was no configuration, then
            self._values = {}

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return {k.value: self._value(v) for k, v in pairs if isinstance(k, ast.Constant)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            return {keyword.arg: self._value(keyword.value) for keyword in node.keywords}
        return None

    def find(self, place: str) -> object:
        """The value at `a.b.c`; None where there is none."""
        found: object = self._values
        for part in place.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def number(self, place: str, default: float) -> float:
        """A finite number at a place."""
        value = self.find(place)
        return float(value) if _is_number(value) else default

    def natural(self, place: str) -> int | None:
        """A whole number from 1 up at a place."""
        value = self.find(place)
        return value if type(value) is int and value > 0 else None

    def pair(self, place: str) -> tuple[int, int] | None:
        """Height and width at a place; one number stands for both."""
        value = self.find(place)
        value = [value, value] if type(value) is int else value
        if _is_list(value, 2) and all(type(side) is int and side > 0 for side in value):
            return tuple(value)
        return None
