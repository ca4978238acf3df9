"""The layout of the authors' SETR (fudan-zvg/SETR): Naive, PUP and MLA.

Source: the published configurations and files of SETR, arXiv 2012.15840. They were made with mmsegmentation 0.x and
carry its `meta`. Convolutions before a batch norm have a bias, which is subtracted from the norm's mean; every head
also has a classifier `conv_seg`, which is not used.
"""

from collections.abc import Collection

from segmenter.checkpoints import keys
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.model.segmenter import Segmenter
from segmenter.published import setr_heads
from segmenter.published.openmmlab_config import Configuration
from segmenter.published.setr_heads import LEVELS, NORM, Head, convolution

NAME, TITLE = "original", "the original SETR"
WRITES = ()
write = None
STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
HEAD_WIDTH = "decode_head.mlahead.head2.0.weight"
HEADS = ("decode_head.conv_0.", "decode_head.syncbn_fc_0.", "decode_head.mlahead.")


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    backbone = any(name.startswith("backbone.blocks.") for name in names)
    return backbone and any(name.startswith(HEADS) for name in names)


def read(checkpoint: Checkpoint, auxiliary: bool = False) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    The auxiliary decoders are left out by default.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite, or the head is not
            one of SETR's.
    """
    state, report = checkpoint.state, LoadReport(TITLE)
    name, layers = "setr_mla", 0
    width_key, class_key = "backbone.mla.mla_p2_1x1.0.weight", "decode_head.cls.bias"
    if not any(key.startswith("decode_head.mlahead.") for key in state):
        layers = keys.depth(state, "decode_head.conv_") - 1  # the last one is the classifier
        width_key, class_key = "decode_head.conv_0.weight", f"decode_head.conv_{layers}.bias"
        name = setr_heads.up_decoder(checkpoint, layers, width_key, "backbone.patch_embed.proj.weight")
    heads = keys.depth(state, "auxiliary_head.")
    taps = _taps(Configuration(checkpoint.about.get("meta")), name)
    head = Head(name, "original", taps, width_key, class_key, layers, heads if auxiliary else 0, 1, HEAD_WIDTH)
    unused = ("decode_head.conv_seg.", *(f"auxiliary_head.{index}.conv_seg." for index in range(heads)))
    return setr_heads.network(checkpoint, report, head, "backbone.blocks.", sources, unused, _biases), report


def sources(head: Head, blocks: int) -> dict[str, TensorSource]:
    """Our names of all tensors to theirs."""
    same = [*STEM, *(f"blocks.{index}.{part}" for index in range(blocks) for part in keys.BLOCK)]
    found = {f"encoder.vit.{part}": TensorSource(f"backbone.{part}") for part in same}
    if head.name == "setr_mla":
        del found["encoder.vit.cls_token"]
        return found | _mla(head.auxiliary)
    return found | setr_heads.up_heads(head, "conv_{index}", "syncbn_fc_{index}", "conv_{index}")


def _mla(auxiliary: int) -> dict[str, TensorSource]:
    found = {}
    for level in range(LEVELS):
        neck, head = f"backbone.mla.mla_p{level + 2}", f"decode_head.mlahead.head{level + 2}"
        for kind in NORM:
            found[f"decoder.norms.{level}.{kind}"] = TensorSource(f"backbone.norm_{level}.{kind}")
        found |= convolution(f"decoder.project.{level}.", f"{neck}_1x1.0", f"{neck}_1x1.1")
        found |= convolution(f"decoder.merge.{level}.", f"{neck}.0", f"{neck}.1")
        found |= convolution(f"decoder.heads.{level}.0.", f"{head}.0", f"{head}.1")
        found |= convolution(f"decoder.heads.{level}.1.", f"{head}.3", f"{head}.4")
        if level < auxiliary:
            found[f"decoder.auxiliary.{level}.weight"] = TensorSource(f"auxiliary_head.{level}.aux.weight")
    return found | {f"decoder.classify.{kind}": TensorSource(f"decode_head.cls.{kind}") for kind in NORM}


def _biases(head: Head) -> dict[str, str]:
    """Keys of the biases before batch norms to those of the norms' means; MLA has none."""
    found = {f"decode_head.conv_{index}": f"decode_head.syncbn_fc_{index}" for index in range(head.layers)}
    if head.layers:
        parts = (f"auxiliary_head.{index}." for index in range(head.auxiliary))
        found |= {f"{part}conv_0": f"{part}syncbn_fc_0" for part in parts}
    return {f"{convolution}.bias": f"{norm}.running_mean" for convolution, norm in found.items()}


def _taps(about: Configuration, name: str) -> tuple[int, ...]:
    """The blocks that the configuration names, the auxiliary decoders' first; empty where it names none."""
    if name == "setr_mla":
        blocks = about.find("model.backbone.mla_index")
        fitting = isinstance(blocks, list) and all(type(block) is int for block in blocks)
        return tuple(blocks) if fitting else ()
    last, heads = about.find("model.decode_head.in_index"), about.find("model.auxiliary_head")
    heads = heads if isinstance(heads, list) else []
    others = [head.get("in_index") if isinstance(head, dict) else None for head in heads]
    if not all(type(block) is int and block >= 0 for block in (last, *others)):
        return ()
    return (*(block for block in others if block != last), last)  # PUP has an auxiliary decoder on the last one too
