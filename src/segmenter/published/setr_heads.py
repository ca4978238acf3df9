"""What the two published layouts of SETR have in common: constants, and how the head in a file becomes a network.

Source: the published configurations and files of SETR, arXiv 2012.15840, by its authors and by OpenMMLab. Layer norms
of eps 1e-6, positions resampled bilinearly, ImageNet's normalisation, no final norm in the backbone. In MLA the class
token is in the file but not used. Auxiliary heads are left out by default.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from segmenter import config
from segmenter.checkpoints import keys
from segmenter.checkpoints.json_settings import is_number
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import openmmlab_file
from segmenter.published.openmmlab_config import Configuration
from segmenter.published.openmmlab_file import Defaults

LEVELS = 4  # of MLA
NORM = ("weight", "bias")
BATCH_NORM = (*NORM, "running_mean", "running_var", "num_batches_tracked")
DEFAULTS = Defaults(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    position_resize="bilinear",
    drop_path=0.0,
    stride=lambda side: max(side * 2 // 3, 1),
    train=config.Train(optimizer="sgd", lr=1e-3, min_lr=1e-4, decoder_scale=10.0, steps=160_000),
)


class Head(NamedTuple):
    """A decoder in a file."""

    name: str
    """`setr_naive`, `setr_pup` or `setr_mla`."""
    variant: str
    """Whose: `original` or `openmmlab`."""
    taps: tuple[int, ...]
    """The blocks that the configuration names, the auxiliary decoders' first; empty where it names none."""
    width_key: str
    """A convolution with `decoder.width` channels."""
    class_key: str
    """A vector with one number a class."""
    layers: int
    """Convolutions, of Naive and PUP."""
    auxiliary: int
    """Auxiliary decoders."""
    auxiliary_layers: int
    """Convolutions of each of them, of Naive and PUP."""
    head_width_key: str = ""
    """A convolution with `decoder.head_width` channels, of MLA."""


def up_decoder(checkpoint: Checkpoint, layers: int, first: str, patches: str) -> str:
    """Naive or PUP, by the number of convolutions; `first` is the weight of one, `patches` the patch embedding's.

    Raises:
        UserError: it is neither.
    """
    path, state = checkpoint.path, checkpoint.state
    for key in (first, patches):
        if key not in state:
            raise UserError(f"{path} looks like SETR, but {key} is missing; take the whole file of one model")
    kernel, patch = (keys.axis(path, state, key, 3, 4) for key in (first, patches))
    known = {(1, 1): "setr_naive", (3, max(1, math.ceil(math.log2(patch)))): "setr_pup"}
    if (kernel, layers) not in known:
        words = " and ".join(f"{count} of {side} x {side} in {name}" for (side, count), name in known.items())
        raise UserError(
            f"{path}: the head has {layers} convolutions, the first of {kernel} x {kernel}; known for patches of "
            f"{patch} pixels are {words}"
        )
    return known[kernel, layers]


def convolution(ours: str, theirs: str, norm: str) -> dict[str, TensorSource]:
    """Our names of a convolution and the batch norm behind it to theirs."""
    found = {f"{ours}1.{part}": TensorSource(f"{norm}.{part}") for part in BATCH_NORM}
    return found | {f"{ours}0.weight": TensorSource(f"{theirs}.weight")}


def up_heads(head: Head, theirs: str, norm: str, classifier: str) -> dict[str, TensorSource]:
    """Our names of Naive's and PUP's heads to theirs: a convolution's, its norm's, with {index}, and the classifier's.

    In the last, {index} counts the convolutions.
    """
    parts = [("decoder.head.", "decode_head.", head.layers)]
    for index in range(head.auxiliary):
        parts.append((f"decoder.auxiliary.{index}.", f"auxiliary_head.{index}.", head.auxiliary_layers))
    found = {}
    for our_part, part, layers in parts:
        for kind in NORM:
            found[f"{our_part}norm.{kind}"] = TensorSource(f"{part}norm.{kind}")
            found[f"{our_part}classify.{kind}"] = TensorSource(f"{part}{classifier.format(index=layers)}.{kind}")
        for index in range(layers):
            names = (part + name.format(index=index) for name in (theirs, norm))
            found |= convolution(f"{our_part}convolutions.{index}.", *names)
    return found


def network(
    checkpoint: Checkpoint, report: LoadReport, head: Head, blocks: str,
    sources: Callable[[Head, int], Mapping[str, TensorSource]], unused: tuple[str, ...],
    biases: Callable[[Head], Mapping[str, str]] = lambda head: {},
) -> Segmenter:  # fmt: skip
    """The network of a file, in evaluation mode.

    Args:
        checkpoint: the file.
        report: receives what was used and assumed.
        head: its decoder, without auxiliary decoders that are not wanted.
        blocks: prefix of the keys of the backbone's blocks.
        sources: from the decoder and the number of blocks, our names of all tensors to theirs.
        unused: prefixes of keys that are known to be unused.
        biases: from the decoder, keys of biases before a batch norm to those of the norm's mean.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    depth = keys.depth(checkpoint.state, blocks)
    used = min(max(head.taps, default=depth - 1) + 1, depth)
    names = sources(head, used)
    unused += tuple(f"{blocks}{index}." for index in range(used, depth))
    unused += ("backbone.cls_token",) if head.name == "setr_mla" else ()
    unused += () if head.auxiliary else ("auxiliary_head.",)
    found = openmmlab_file.account(checkpoint, report, names, unused, biases(head))
    found = _without_biases(found, biases(head))

    def decoder(_: int) -> config.Decoder:
        if not head.taps:
            report.assumed.append("the blocks whose tokens are read, as published for encoders of this depth")
        width = keys.axis(found.path, found.state, head.width_key, 0, 4)
        settings = {
            "width": width,
            "taps": head.taps,
            "auxiliary": _weight(checkpoint) if any(k.startswith("auxiliary_head.") for k in checkpoint.state) else 0.0,
            "variant": head.variant,
        }
        if head.auxiliary_layers and head.name != "setr_mla":
            settings["auxiliary_layers"] = head.auxiliary_layers
        if head.name == "setr_mla":
            narrow = keys.axis(found.path, found.state, head.head_width_key, 0, 4)
            settings["head_width"] = None if narrow == math.ceil(width / 2) else narrow
        return config.decoder(head.name, **settings)

    return openmmlab_file.network(
        found, report, names, depth, head.class_key, decoder, DEFAULTS, auxiliary=head.auxiliary > 0
    )


def _weight(checkpoint: Checkpoint) -> float:
    """The weight of the auxiliary decoders' losses: the first one in the configuration, or as published."""
    heads = Configuration(checkpoint.about.get("meta")).find("model.auxiliary_head")
    loss = heads[0].get("loss_decode") if isinstance(heads, list) and heads and isinstance(heads[0], dict) else None
    weight = loss.get("loss_weight") if isinstance(loss, dict) else None
    return float(weight) if is_number(weight) and weight > 0 else 0.4


def _without_biases(checkpoint: Checkpoint, biases: Mapping[str, str]) -> Checkpoint:
    """The file with each bias subtracted from the mean of the norm after it.

    Raises:
        UserError: their shapes differ.
    """
    state = {key: tensor for key, tensor in checkpoint.state.items() if key not in biases}
    for bias, mean in biases.items():
        shift = checkpoint.state[bias]
        if shift.shape != state[mean].shape:
            raise UserError(
                f"{checkpoint.path}: {bias} is {tuple(shift.shape)}, but {mean} is {tuple(state[mean].shape)}; "
                "take the whole file of one model"
            )
        state[mean] = state[mean] - shift
    return replace(checkpoint, state=state)
