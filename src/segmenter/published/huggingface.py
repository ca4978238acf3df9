"""The layout of Hugging Face's DPT, for labels and for depth, read and written: model.safetensors with config.json.

Source: files and recorded outputs of transformers 5.23. Constants: layer norms of eps 1e-12 unless config.json says
otherwise, positions resampled bilinearly, enlargements with aligned corners, odd levels stretched. transformers takes
squares only; the other sizes, and training for depth, are ours. preprocessor_config.json, where it is there, says the
normalisation and the side of a test image; the image keeps its proportions here, there it is made square.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from segmenter import atomic
from segmenter.checkpoints import keys
from segmenter.checkpoints.json_settings import CONFIG
from segmenter.checkpoints.keys import LoadReport
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import dpt_keys, huggingface_config
from segmenter.published.dpt_keys import Names
from segmenter.published.huggingface_config import PROCESSOR

NAME, TITLE = "huggingface", "Hugging Face's DPT"
WRITES = ("dpt", "dpt_depth")
WEIGHTS = "model.safetensors"
NORM_EPS = 1e-12
PARTS = ("query", "key", "value")
JOINED = f"attention.attention.{{{','.join(PARTS)}}}"  # three tensors there, one here

BLOCKS = "dpt.encoder.layer."
# A block's names, timm's to theirs.
BLOCK = {
    "norm1": "layernorm_before",
    "attn.qkv": JOINED,
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
# What comes before the blocks, of plain encoders and of hybrids.
STEM = {
    "cls_token": "cls_token",
    "pos_embed": "position_embeddings",
    "patch_embed.proj.weight": "patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "patch_embeddings.projection.bias",
}
HYBRID_STEM = STEM | {
    "patch_embed.proj.weight": "projection.weight",
    "patch_embed.proj.bias": "projection.bias",
    "patch_embed.backbone.stem.conv.": "backbone.bit.embedder.convolution.",
    "patch_embed.backbone.stem.norm.": "backbone.bit.embedder.norm.",
    "patch_embed.backbone.stages.": "backbone.bit.encoder.stages.",
}
RESNET = (3, 4, 9)  # blocks in the stages of the published hybrids
NO_NORM = {"weight": torch.ones, "bias": torch.zeros}
FUSION = "neck.fusion_stage.layers.{order}."
UNUSED_UNIT = "neck.fusion_stage.layers.0.residual_layer1."


def _encoder(name: str, stem: Mapping[str, str]) -> str:
    """timm's name of a tensor to theirs."""
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        module, _, kind = rest.rpartition(".")
        return f"{BLOCKS}{number}.{BLOCK.get(module, module)}.{kind}"
    start = next((start for start in stem if name.startswith(start)), "")
    name = f"{stem.get(start, '')}{name.removeprefix(start)}"
    return f"dpt.embeddings.{name.replace('.blocks.', '.layers.')}"


LAYOUT = Names(
    title=TITLE,
    variant="huggingface",
    encoder=partial(_encoder, stem=STEM),
    blocks=BLOCKS,
    modules=dpt_keys.modules(
        {
            "reassemble.{level}.readout": "neck.reassemble_stage.readout_projects.{level}.0",
            "reassemble.{level}.project": "neck.reassemble_stage.layers.{level}.projection",
            "reassemble.{level}.resample": "neck.reassemble_stage.layers.{level}.resize",
            "narrow.{level}": "neck.convs.{level}",
            "fusion.{level}.level_unit.conv{n}": FUSION + "residual_layer1.convolution{n}",
            "fusion.{level}.level_unit.norm{n}": FUSION + "residual_layer1.batch_norm{n}",
            "fusion.{level}.unit.conv{n}": FUSION + "residual_layer2.convolution{n}",
            "fusion.{level}.unit.norm{n}": FUSION + "residual_layer2.batch_norm{n}",
            "fusion.{level}.project": FUSION + "projection",
            "head.{n}": "head.head.{n}",
            "auxiliary.0.{n}": "auxiliary_head.head.{n}",
        }
    ),
    norm_eps=NORM_EPS,
    position_resize="bilinear",
    unused=("dpt.layernorm.", "dpt.pooler.", UNUSED_UNIT),
)
HYBRID_LAYOUT = LAYOUT._replace(encoder=partial(_encoder, stem=HYBRID_STEM))


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    return any(name.startswith("dpt.") for name in names) and any(name.startswith("neck.") for name in names)


def read(checkpoint: Checkpoint, auxiliary: bool = False) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other or config.json, values are not finite, or
            the network has unknown parts.
    """
    hybrid = any(name.startswith("dpt.embeddings.backbone.") for name in checkpoint.state)
    checkpoint, layout = _joined(checkpoint), HYBRID_LAYOUT if hybrid else LAYOUT
    settings = huggingface_config.read(checkpoint.path, dpt_keys.Weights(checkpoint, layout))
    return dpt_keys.model(checkpoint, layout, settings, auxiliary)


def _joined(checkpoint: Checkpoint) -> Checkpoint:
    """Queries, keys and values of each block as one tensor."""
    state = dict(checkpoint.state)
    for first in [key for key in state if f".attention.attention.{PARTS[0]}." in key]:
        start, _, kind = first.rpartition(f".{PARTS[0]}.")
        parts = [f"{start}.{part}.{kind}" for part in PARTS]
        if all(part in state for part in parts) and len({state[part].shape for part in parts}) == 1:
            tensors = [state.pop(part) for part in parts]
            state[f"{start.removesuffix('.attention.attention')}.{JOINED}.{kind}"] = torch.cat(tensors)
    return replace(checkpoint, state=state)


# ---- writing


def write(network: Segmenter, folder: str | Path) -> list[str]:
    """Writes model.safetensors, config.json and preprocessor_config.json; returns what transformers does differently.

    Read back here they give the same model bit for bit: a section of our own states what the layout cannot.

    Raises:
        UserError: the network has parts that the layout cannot hold, or the files cannot be written.
    """
    folder = Path(folder)
    layout = HYBRID_LAYOUT if network.encoder.stages else LAYOUT
    _refuse_unwritable(network)
    state = _split(keys.to_published(network.state_dict(), dpt_keys.sources(network, layout)))
    # transformers has two parts that it does not use, and warns if their tensors are missing.
    state |= {f"dpt.layernorm.{kind}": value(network.encoder.width) for kind, value in NO_NORM.items()}
    used = UNUSED_UNIT.replace("residual_layer1", "residual_layer2")
    state |= {key.replace(used, UNUSED_UNIT): tensor.clone() for key, tensor in state.items() if key.startswith(used)}
    texts = {CONFIG: huggingface_config.config(network), PROCESSOR: huggingface_config.processor(network)}

    def write_all(path: Path) -> None:
        save_file(state, path, {"format": "pt"})
        for name, content in texts.items():
            atomic.write_text(folder / name, json.dumps(content, indent=2) + "\n")

    atomic.write(folder / WEIGHTS, write_all)
    return _differences(network)


def _refuse_unwritable(network: Segmenter) -> None:
    recipe, encoder = network.recipe, network.encoder
    if recipe.decoder.name not in ("dpt", "dpt_depth"):
        raise UserError(f"the decoder is {recipe.decoder.name}; {TITLE} is written from dpt and dpt_depth")
    parts = [name for name in keys.BLOCK if name != "attn.qkv.bias" or encoder.vit.blocks[0].attn.qkv.bias is not None]
    blocks = (f"blocks.{index}.{name}" for index in range(len(encoder.vit.blocks)) for name in parts)
    known = {f"encoder.vit.{name}" for name in (*STEM, *blocks)}
    ours = {name for name in network.state_dict() if name.startswith("encoder.") and ".backbone." not in name}
    other = sorted(known ^ ours)
    depths = tuple(len(stage.blocks) for stage in encoder.vit.patch_embed.backbone.stages) if encoder.stages else RESNET
    if other or encoder.prefix != 1 or depths != RESNET:
        raise UserError(
            f"{recipe.encoder.name} differs from the encoders of {TITLE}"
            f"{f' in {keys.few(other)}' if other else ''}; save the model in our own layout instead (segmenter)"
        )
    if encoder.table_grid[0] != encoder.table_grid[1]:
        raise UserError(
            f"the model has positions for {encoder.table_grid} patches, but transformers takes squares only; save it "
            "in our own layout instead (segmenter)"
        )
    if len(set(network.decoder.taps)) < len(network.decoder.taps):
        raise UserError(
            f"the decoder reads the blocks {network.decoder.taps}, but transformers takes no block twice; save the "
            "model in our own layout instead (segmenter)"
        )


def _split(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_joined`."""
    found = {}
    for key, tensor in state.items():
        if JOINED in key:
            parts = zip(PARTS, tensor.chunk(len(PARTS)), strict=True)
            found |= {key.replace(JOINED, f"attention.attention.{part}"): rows.clone() for part, rows in parts}
        else:
            found[key] = tensor
    return found


def _differences(network: Segmenter) -> list[str]:
    """The points in which transformers treats the model differently."""
    recipe = network.recipe
    found = ["images become squares, here they keep their proportions"]
    if recipe.decoder.variant != "huggingface":
        found.append(
            f"the decoder is decoder.variant huggingface, here {recipe.decoder.variant!r}, so results differ; train "
            "with the former to get the same in both"
        )
    if recipe.encoder.position_resize != "bilinear":
        found.append(f"positions resampled bilinearly, here {recipe.encoder.position_resize}")
    if recipe.task == "depth":
        found.append("depth is relative, inverse and never negative; it has no metres")
    return found
