"""The layout of OpenMMLab's SETR (mmsegmentation 0.x and 1.x): Naive, PUP and MLA, read and written.

Source: the published configurations and files of SETR, arXiv 2012.15840, there. Enlargements, classifier and auxiliary
decoders are those of `decoder.variant: openmmlab`. In MLA the levels of the neck's second half and of the heads are
counted from the deepest, ours from the first block.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from segmenter.checkpoints import keys
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model.decoders.setr import UpHead
from segmenter.model.segmenter import Segmenter
from segmenter.published import openmmlab_file, setr_heads
from segmenter.published.openmmlab_config import Configuration
from segmenter.published.openmmlab_file import PATCHES
from segmenter.published.setr_heads import LEVELS, NORM, Head, convolution
from segmenter.published.writable import refuse_other_parts

NAME, TITLE = "openmmlab", "OpenMMLab's SETR"
WRITES = ("setr_naive", "setr_pup", "setr_mla")
CLASSES = "decode_head.conv_seg.bias"


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    backbone = any(name.startswith("backbone.layers.") for name in names)
    return backbone and any(name.startswith("decode_head.up_convs.") for name in names)


def read(checkpoint: Checkpoint, auxiliary: bool = False) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    The auxiliary decoders are left out by default.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite, or the head is not
            one of SETR's.
    """
    state, report = checkpoint.state, LoadReport(TITLE)
    about = Configuration(checkpoint.about.get("meta"))
    name, width_key, layers = "setr_mla", "neck.mla.channel_proj.0.conv.weight", 0
    if not any(key.startswith("neck.mla.") for key in state):
        width_key, layers = "decode_head.up_convs.0.0.conv.weight", keys.depth(state, "decode_head.up_convs.")
        name = setr_heads.up_decoder(checkpoint, layers, width_key, PATCHES)
    heads = keys.depth(state, "auxiliary_head.") if auxiliary else 0
    head_layers = keys.depth(state, "auxiliary_head.0.up_convs.")
    variant, taps = _variant(about, checkpoint, name), _taps(about, name)
    first = "decode_head.up_convs.0.0.conv.weight"
    head = Head(name, variant, taps, width_key, CLASSES, layers, heads, head_layers, first)
    return setr_heads.network(checkpoint, report, head, "backbone.layers.", sources, ("data_preprocessor.",)), report


def sources(head: Head, blocks: int) -> dict[str, TensorSource]:
    """Our names of all tensors to theirs."""
    found = openmmlab_file.backbone(blocks)
    if head.name == "setr_mla":
        del found["encoder.vit.cls_token"]
        return found | _mla(head.auxiliary)
    return found | setr_heads.up_heads(head, "up_convs.{index}.0.conv", "up_convs.{index}.0.bn", "conv_seg")


def _mla(auxiliary: int) -> dict[str, TensorSource]:
    found = {}
    for ours in range(LEVELS):
        theirs = LEVELS - 1 - ours
        for kind in NORM:
            found[f"decoder.norms.{ours}.{kind}"] = TensorSource(f"neck.norm.{ours}.{kind}")
        parts = {
            f"decoder.project.{ours}.": f"neck.mla.channel_proj.{ours}",
            f"decoder.merge.{ours}.": f"neck.mla.feat_extract.{theirs}",
            f"decoder.heads.{ours}.0.": f"decode_head.up_convs.{theirs}.0",
            f"decoder.heads.{ours}.1.": f"decode_head.up_convs.{theirs}.1",
        }
        for our_part, part in parts.items():
            found |= convolution(our_part, f"{part}.conv", f"{part}.bn")
        for kind in NORM if ours < auxiliary else ():
            found[f"decoder.auxiliary.{ours}.{kind}"] = TensorSource(f"auxiliary_head.{theirs}.conv_seg.{kind}")
    found["decoder.classify.weight"] = TensorSource("decode_head.conv_seg.weight", _turned, _turned)
    found["decoder.classify.bias"] = TensorSource("decode_head.conv_seg.bias")
    return found


def _turned(weight: Tensor) -> Tensor:
    """A classifier of all levels' channels (K 4C 1 1) with the levels in the opposite order."""
    return weight.unflatten(1, (LEVELS, -1)).flip(1).flatten(1, 2)


def _taps(about: Configuration, name: str) -> tuple[int, ...]:
    """The blocks that the configuration names, the auxiliary decoders' first; empty where it names none."""
    blocks, heads = about.find("model.backbone.out_indices"), about.find("model.auxiliary_head")
    if not isinstance(blocks, list) or not blocks or not all(type(block) is int for block in blocks):
        return ()
    if name == "setr_mla":
        return tuple(blocks)
    heads = [*(heads if isinstance(heads, list) else []), about.find("model.decode_head")]
    places = [head.get("in_index", -1) if isinstance(head, dict) else None for head in heads]
    fitting = all(type(place) is int and -len(blocks) <= place < len(blocks) for place in places)
    return tuple(blocks[place] for place in places) if fitting else ()


def _variant(about: Configuration, checkpoint: Checkpoint, name: str) -> str:
    """The variant whose enlargement the configuration describes.

    Raises:
        UserError: no published SETR has it.
    """
    known = {}
    if name == "setr_naive":
        patch = keys.axis(checkpoint.path, checkpoint.state, PATCHES, 3, 4)
        known = {1: "original", patch: "original"}  # enlarged at once
    known |= {2 if name == "setr_pup" else 4: "openmmlab"}
    factor = about.natural("model.decode_head.up_scale")
    if about.find("model.decode_head.align_corners") is True or factor not in (None, *known):
        raise UserError(
            f"the configuration in {checkpoint.path} has a decode_head of up_scale {factor} and align_corners "
            f"{about.find('model.decode_head.align_corners')}; of {name}, up_scale "
            f"{' or '.join(map(str, sorted(known)))} and align_corners False are known"
        )
    return "openmmlab" if factor is None else known[factor]


def write(network: Segmenter, folder: str | Path) -> list[str]:
    """Writes model.pth; returns the points in which OpenMMLab's code treats it differently.

    Read back here it gives the same model bit for bit, except for auxiliary decoders, which are written but not read.

    Raises:
        UserError: the network has parts that the layout cannot hold, or the file cannot be written.
    """
    decoder, settings, more = network.decoder, network.recipe.decoder, {}
    layers = head_layers = 0
    if settings.name != "setr_mla":
        layers = len(decoder.head.convolutions)
        head_layers = len(decoder.auxiliary[0].convolutions) if len(decoder.auxiliary) else 0
    elif settings.variant != "openmmlab":
        raise UserError(
            "the original SETR-MLA aligns corners and classifies 3 x 3 cells, OpenMMLab's does not; save the model "
            "in our own layout instead (segmenter), or train with decoder.variant: openmmlab"
        )
    else:
        more = {"backbone.cls_token": torch.zeros(1, 1, network.encoder.width)}
    head = Head(settings.name, "openmmlab", (), "", CLASSES, layers, len(decoder.auxiliary), head_layers)
    names = sources(head, network.encoder.depth)
    refuse_other_parts(network, names.keys(), 1, TITLE)
    return openmmlab_file.write(network, names, Path(folder), _parts(network), more)


def _parts(network: Segmenter) -> dict[str, dict | list]:
    """The configuration of the decoder, and what it requires of the backbone."""
    decoder, settings, encoder = network.decoder, network.recipe.decoder, network.encoder
    norm = {"type": "SyncBN", "requires_grad": True}
    usual = {"num_classes": len(network.classes), "dropout_ratio": 0, "norm_cfg": norm, "align_corners": False}
    main = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    extra = main | {"loss_weight": settings.auxiliary}
    taps = sorted({*decoder.auxiliary_taps, *decoder.taps})
    if settings.name == "setr_mla":
        narrow, neck = decoder.heads[0][0][0].out_channels, {"type": "MLANeck", "out_channels": settings.width}
        neck |= {"in_channels": [encoder.width] * LEVELS, "norm_cfg": norm, "act_cfg": {"type": "ReLU"}}
        head = {"type": "SETRMLAHead", "in_channels": [settings.width] * LEVELS, "channels": LEVELS * narrow}
        head |= {"in_index": list(range(LEVELS)), "mla_channels": narrow}
        small = {"type": "FCNHead", "in_channels": settings.width, "channels": settings.width, "num_convs": 0}
        small |= {"kernel_size": 1, "concat_input": False}
        others = [small | {"in_index": index} for index in range(len(decoder.auxiliary))]
        parts = {"neck": neck}
    else:
        head = _up_settings(network, decoder.head, taps.index(decoder.taps[0]))
        others = [
            _up_settings(network, other, taps.index(tap))
            for other, tap in zip(decoder.auxiliary, decoder.auxiliary_taps, strict=True)
        ]
        parts = {}
    return parts | {
        "backbone": {"out_indices": tuple(taps), "final_norm": False, "with_cls_token": settings.name != "setr_mla"},
        "decode_head": head | usual | {"loss_decode": main},
        "auxiliary_head": [other | usual | {"loss_decode": extra} for other in others],
    }


def _up_settings(network: Segmenter, head: UpHead, index: int) -> dict[str, object]:
    return {
        "type": "SETRUPHead",
        "in_index": index,
        "in_channels": network.encoder.width,
        "channels": network.recipe.decoder.width,
        "num_convs": len(head.convolutions),
        "up_scale": head.factor,
        "kernel_size": head.convolutions[0][0].kernel_size[0],
    }
