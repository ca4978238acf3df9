"""The layout of OpenMMLab's Segmenter (mmsegmentation 0.x and 1.x): mask transformer and linear (FCN) head.

Source: the published configurations and files of Segmenter, arXiv 2105.05633, there. Constants of the layout: layer
norms of eps 1e-6 in the encoder and 1e-5 in the decoder, positions resampled bicubically, the two projections stored
as the weights of linear layers (the transpose of the original's), no classifiers. There, stochastic depth acts on the
MLP alone, which matters in training only.
"""

from collections.abc import Collection
from pathlib import Path

from segmenter import config
from segmenter.checkpoints import keys
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.model.segmenter import Segmenter
from segmenter.published import openmmlab_file
from segmenter.published.openmmlab_config import HEAD_WIDTH, Configuration
from segmenter.published.openmmlab_file import Defaults
from segmenter.published.writable import refuse_other_parts

NAME, TITLE = "openmmlab", "OpenMMLab's Segmenter"
WRITES = ("linear", "mask_transformer")
MASK_HEAD = tuple(f"decode_head.{name}" for name in ("cls_emb", "dec_proj", "patch_proj", "classes_proj", "mask_norm"))
UNUSED = ("auxiliary_head.", "data_preprocessor.")
DEFAULTS = Defaults(
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
    position_resize="bicubic",
    drop_path=0.1,
    stride=lambda side: max(side - 32, 1),
    train=config.Train(optimizer="sgd", lr=1e-3, min_lr=1e-4, steps=160_000),
)


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    backbone = any(name.startswith("backbone.layers.") for name in names)
    head = {name for name in names if name.startswith("decode_head.")}
    linear = head <= {f"decode_head.conv_seg.{kind}" for kind in ("weight", "bias")}
    return backbone and bool(head) and (linear or any(name.startswith(MASK_HEAD) for name in head))


def sources(depth: int, layers: int | None) -> dict[str, TensorSource]:
    """Our names to theirs; `layers` is None for the linear head."""
    found = openmmlab_file.backbone(depth)
    for kind in ("weight", "bias"):
        found[f"encoder.norm.{kind}"] = TensorSource(f"backbone.ln1.{kind}")
    if layers is None:
        # A convolution of 1 x 1
        found["decoder.head.weight"] = TensorSource(
            "decode_head.conv_seg.weight", lambda t: t.squeeze(3).squeeze(2), lambda t: t[..., None, None]
        )
        found["decoder.head.bias"] = TensorSource("decode_head.conv_seg.bias")
        return found
    for index in range(layers):
        found |= openmmlab_file.block(f"decoder.blocks.{index}.", f"decode_head.layers.{index}.")
    found["decoder.class_embeddings"] = TensorSource("decode_head.cls_emb")
    for ours, theirs in {"project": "dec_proj", "norm": "decoder_norm", "mask_norm": "mask_norm"}.items():
        for kind in ("weight", "bias"):
            found[f"decoder.{ours}.{kind}"] = TensorSource(f"decode_head.{theirs}.{kind}")
    for name in ("patch", "classes"):
        ours = f"decoder.project_{'patches' if name == 'patch' else name}"
        found[ours] = TensorSource(f"decode_head.{name}_proj.weight", lambda t: t.mT, lambda t: t.mT)
    return found


def read(checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    state, report = checkpoint.state, LoadReport(TITLE)
    linear = not any(key.startswith(MASK_HEAD) for key in state)
    depth, layers = keys.depth(state, "backbone.layers."), keys.depth(state, "decode_head.layers.")
    names = sources(depth, None if linear else layers)
    checkpoint = openmmlab_file.account(checkpoint, report, names, UNUSED)
    about = Configuration(checkpoint.about.get("meta"))

    def decoder(width: int) -> config.Decoder:
        return config.Linear() if linear else _mask_transformer(about, width, layers, report)

    class_key = "decode_head.conv_seg.bias" if linear else "decode_head.mask_norm.bias"
    found = openmmlab_file.network(checkpoint, report, names, depth, class_key, decoder, DEFAULTS)
    return found, report


def write(network: Segmenter, folder: str | Path) -> list[str]:
    """Writes model.pth; returns the points in which OpenMMLab's code treats it differently.

    Read back here it gives the same model bit for bit: a section of our own states what the layout cannot.

    Raises:
        UserError: the network has parts that the layout cannot hold, or the file cannot be written.
    """
    recipe = network.recipe
    names = sources(network.encoder.depth, None if recipe.decoder.name == "linear" else recipe.decoder.layers)
    refuse_other_parts(network, names.keys(), 1, TITLE)
    return openmmlab_file.write(network, names, Path(folder), {"decode_head": _head(network)})


def _mask_transformer(about: Configuration, width: int, layers: int, report: LoadReport) -> config.MaskTransformer:
    return config.MaskTransformer(
        layers=layers,
        heads=openmmlab_file.heads(about, "decode_head", width, report),
        drop_path=about.number("model.decode_head.drop_path_rate", 0.0),
        dropout=about.number("model.decode_head.dropout_ratio", 0.0),
    )


def _head(network: Segmenter) -> dict[str, object]:
    settings, width = network.recipe.decoder, network.encoder.width
    head = {"in_channels": width, "channels": width, "num_classes": len(network.classes)}
    if settings.name == "linear":
        return {"type": "FCNHead", **head, "num_convs": 0, "concat_input": False, "dropout_ratio": 0.0}
    return {
        "type": "SegmenterMaskTransformerHead",
        **head,
        "num_layers": settings.layers,
        "num_heads": settings.heads or max(1, width // HEAD_WIDTH),
        "embed_dims": width,
        "dropout_ratio": settings.dropout,
        "drop_path_rate": settings.drop_path,
    }
