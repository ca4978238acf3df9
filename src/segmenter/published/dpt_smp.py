"""The layout of segmentation_models.pytorch's DPT: any encoder of timm's, labels only.

Source: files and recorded outputs of segmentation_models.pytorch 0.6.0. Constants: timm's layer norms (eps 1e-6) and
its position resampling, batch norms throughout. The coarsest level's unit for a coarser level, which is unused in the
original, is used here. config.json beside the weights, as its `save_pretrained` writes it, states the encoder, the
blocks and the readout; `num_heads` may be stated beside the weights where timm has no such encoder.
"""

from collections.abc import Collection

from segmenter.checkpoints import keys
from segmenter.checkpoints.json_settings import CONFIG, JsonSettings
from segmenter.checkpoints.keys import LoadReport
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.model.timm_models import timm
from segmenter.published import dpt_keys
from segmenter.published.dpt_keys import Names, Settings

NAME, TITLE = "smp", "segmentation_models.pytorch's DPT"
WRITES = ()
write = None
READOUTS = {"cat": "project", "add": "add", "ignore": "ignore"}
FUSION = "decoder.fusion_blocks.{order}.residual_conv_block"

LAYOUT = Names(
    title=TITLE,
    variant="smp",
    encoder=lambda name: f"encoder.model.{name}",
    blocks="encoder.model.blocks.",
    modules=dpt_keys.modules(
        {
            "reassemble.{level}.readout": "decoder.projection_blocks.{level}.project.0",
            "reassemble.{level}.project": "decoder.reassemble_blocks.{level}.project_to_out_channel",
            "reassemble.{level}.resample": "decoder.reassemble_blocks.{level}.upsample",
            "narrow.{level}": "decoder.reassemble_blocks.{level}.project_to_feature_dim",
            "fusion.{level}.level_unit.conv{n}": FUSION + "1.conv_{n}",
            "fusion.{level}.level_unit.norm{n}": FUSION + "1.batch_norm_{n}",
            "fusion.{level}.unit.conv{n}": FUSION + "2.conv_{n}",
            "fusion.{level}.unit.norm{n}": FUSION + "2.batch_norm_{n}",
            "fusion.{level}.project": "decoder.fusion_blocks.{order}.project",
            "head.{n}": "segmentation_head.head.{n}",
            "auxiliary.0.{n}": "auxiliary.{n}",  # smp has no auxiliary decoder
        }
    ),
    norm_eps=1e-6,
    position_resize="antialias",
    unused=("encoder.model.norm.", "encoder.model.fc_norm.", "encoder.model.head."),
)


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    return any(name.startswith("encoder.model.") for name in names) and any(
        name.startswith("decoder.fusion_blocks.") for name in names
    )


def read(checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other or config.json, values are not finite.
    """
    about = JsonSettings(checkpoint.path.parent / CONFIG)
    about.refuse_unless("decoder_readout", *READOUTS)
    settings = Settings(
        heads=dpt_keys.settings_beside(checkpoint).heads,
        taps=about.naturals("encoder_output_indices"),
        readout=READOUTS.get(about.get("decoder_readout", str)),
    )
    name = about.get("encoder_name", str, "").removeprefix("tu-")
    if timm.is_model(name):
        settings = _of_encoder(settings, name)
    return dpt_keys.model(checkpoint, LAYOUT, settings)


def _of_encoder(settings: Settings, name: str) -> Settings:
    """The settings with what timm knows of the encoder."""
    if not timm.models.is_model_in_modules(name, ["vision_transformer", "deit"]):
        raise UserError(f"{TITLE} with the encoder {name} cannot be loaded: it has no absolute positions")
    with keys.on_meta():
        vit = timm.create_model(name, num_classes=0)
    normalization = tuple(tuple(vit.pretrained_cfg[part]) for part in ("mean", "std"))
    return settings._replace(encoder=name, heads=vit.blocks[0].attn.num_heads, normalization=normalization)
