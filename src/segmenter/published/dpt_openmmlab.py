"""The layout of OpenMMLab's DPT (mmsegmentation 0.x and 1.x): a plain vision transformer, labels only.

Source: files, configurations and recorded outputs of mmsegmentation 1.2.2. Constants: layer norms of eps 1e-5 unless
the configuration says otherwise, positions resampled bicubically, readout by projection, odd levels stretched; logits
are enlarged from half the image's size to the full size without aligned corners, and there is no auxiliary decoder.
"""

from collections.abc import Collection
from dataclasses import replace

from segmenter import config
from segmenter.checkpoints import keys
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.errors import UserError
from segmenter.model.decoders.decoder import evenly
from segmenter.model.decoders.dpt import SCALES
from segmenter.model.segmenter import Segmenter
from segmenter.published import dpt_keys, openmmlab_file
from segmenter.published.openmmlab_config import Configuration
from segmenter.published.openmmlab_file import Defaults

NAME, TITLE = "openmmlab", "OpenMMLab's DPT"
WRITES = ()
write = None
REASSEMBLE, FUSION = "decode_head.reassemble_blocks.", "decode_head.fusion_blocks.{order}."
MODULES = dpt_keys.modules(
    {
        "reassemble.{level}.readout": REASSEMBLE + "readout_projects.{level}.0",
        "reassemble.{level}.project": REASSEMBLE + "projects.{level}.conv",
        "reassemble.{level}.resample": REASSEMBLE + "resize_layers.{level}",
        "narrow.{level}": "decode_head.convs.{level}.conv",
        "fusion.{level}.level_unit.conv{n}": FUSION + "res_conv_unit1.conv{n}.conv",
        "fusion.{level}.level_unit.norm{n}": FUSION + "res_conv_unit1.conv{n}.bn",
        "fusion.{level}.unit.conv{n}": FUSION + "res_conv_unit2.conv{n}.conv",
        "fusion.{level}.unit.norm{n}": FUSION + "res_conv_unit2.conv{n}.bn",
        "fusion.{level}.project": FUSION + "project.conv",
        "head.0": "decode_head.project.conv",
        "head.1": "decode_head.project.bn",
        "head.4": "decode_head.conv_seg",
    }
)
UNUSED = ("auxiliary_head.", "data_preprocessor.", "backbone.ln1.", "decode_head.fusion_blocks.0.res_conv_unit1.")
DEFAULTS = Defaults(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    position_resize="bicubic",
    drop_path=0.0,
    stride=lambda side: side,
    train=config.Train(
        optimizer="adamw", lr=6e-5, min_lr=0.0, power=1.0, warmup=1500, weight_decay=0.01, steps=160_000, batch=16
    ),
    norm_eps=1e-5,
)


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    return any(name.startswith("backbone.layers.") for name in names) and any(
        name.startswith((REASSEMBLE, "decode_head.fusion_blocks.")) for name in names
    )


def read(checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    state, report, about = checkpoint.state, LoadReport(TITLE), Configuration(checkpoint.about.get("meta"))
    depth = keys.depth(state, "backbone.layers.")
    readout = about.find("model.decode_head.readout_type")
    if readout not in ("project", "add", "ignore"):
        readout = "project" if any(key.startswith(REASSEMBLE + "readout_projects.") for key in state) else "ignore"
    taps = _taps(about) or evenly(depth, len(SCALES))
    if len(taps) != len(SCALES) or not all(0 <= tap < depth for tap in taps):
        raise UserError(f"{checkpoint.path} states that blocks {taps} are read; there are {depth}, and DPT reads 4")
    settings = config.Dpt(variant="openmmlab", readout=readout, taps=taps, dropout=0.1, auxiliary=0.0)
    names = openmmlab_file.backbone(taps[-1] + 1) | _decoder(settings)
    beyond = (f"backbone.layers.{index}." for index in range(taps[-1] + 1, depth))
    checkpoint = openmmlab_file.account(checkpoint, report, names, (*UNUSED, *beyond))
    narrow = [names[f"decoder.narrow.{level}.weight"].key for level in range(len(SCALES))]
    widths = [keys.axis(checkpoint.path, state, key, 1, 4) for key in narrow]
    settings = replace(settings, width=keys.axis(checkpoint.path, state, narrow[0], 0, 4), widths=tuple(widths))
    class_key = names["decoder.head.4.bias"].key
    return openmmlab_file.network(checkpoint, report, names, depth, class_key, lambda _: settings, DEFAULTS), report


def _taps(about: Configuration) -> tuple[int, ...]:
    """The blocks that the configuration names; empty where it names none."""
    blocks, chosen = about.find("model.backbone.out_indices"), about.find("model.decode_head.in_index")
    try:
        return tuple(sorted(blocks[index] for index in chosen))
    except (TypeError, IndexError, KeyError):
        return ()


def _decoder(settings: config.Dpt) -> dict[str, TensorSource]:
    """Our names of the decoder's tensors to theirs; the list of them comes from a model of the smallest size."""
    recipe = config.Recipe(
        encoder=config.Encoder(depth=len(SCALES)),
        decoder=replace(settings, width=1, widths=(1,) * len(SCALES), taps=()),
    )
    with keys.on_meta():
        names = Segmenter(recipe, DEPTH_CLASSES).decoder.state_dict()
    found = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        found[f"decoder.{name}"] = TensorSource(f"{MODULES[module]}.{kind}")
    return found
