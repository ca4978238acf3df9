"""The layout of the original DPT (isl-org): a bare state dict, or one below `model`.

Source: the published files of DPT, arXiv 2103.13413, for ADE20K, MiDaS, KITTI and NYU, large and hybrid. Constants:
layer norms of eps 1e-6, positions resampled bilinearly, readout by projection, enlargements with aligned corners. The
files hold nothing but weights: `num_heads`, `hooks` and `readout`, which are arguments in the original code, may be
stated beside them. The scale of KITTI's and NYU's depth in metres is in the published commands:
docs/published-weights.md.
"""

from collections.abc import Collection

from segmenter.checkpoints.keys import LoadReport
from segmenter.checkpoints.reading import Checkpoint
from segmenter.model.segmenter import Segmenter
from segmenter.published import dpt_keys
from segmenter.published.dpt_keys import Names

NAME, TITLE = "original", "the original DPT"
WRITES = ()
write = None
PAPER_WEIGHT = 0.2  # of the auxiliary loss

LAYOUT = Names(
    title=TITLE,
    variant="original",
    encoder=lambda name: f"pretrained.model.{name}",
    blocks="pretrained.model.blocks.",
    modules=dpt_keys.modules(
        {
            "reassemble.{level}.readout": "pretrained.act_postprocess{stage}.0.project.0",
            "reassemble.{level}.project": "pretrained.act_postprocess{stage}.3",
            "reassemble.{level}.resample": "pretrained.act_postprocess{stage}.4",
            "narrow.{level}": "scratch.layer{stage}_rn",
            "fusion.{level}.level_unit.conv{n}": "scratch.refinenet{stage}.resConfUnit1.conv{n}",
            "fusion.{level}.level_unit.norm{n}": "scratch.refinenet{stage}.resConfUnit1.bn{n}",
            "fusion.{level}.unit.conv{n}": "scratch.refinenet{stage}.resConfUnit2.conv{n}",
            "fusion.{level}.unit.norm{n}": "scratch.refinenet{stage}.resConfUnit2.bn{n}",
            "fusion.{level}.project": "scratch.refinenet{stage}.out_conv",
            "head.{n}": "scratch.output_conv.{n}",
            "auxiliary.0.{n}": "auxlayer.{n}",
        }
    ),
    norm_eps=1e-6,
    position_resize="bilinear",
    unused=("pretrained.model.norm.", "pretrained.model.head.", "scratch.refinenet4.resConfUnit1."),
)


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    return any(name.startswith("pretrained.model.") for name in names) and any(
        name.startswith("scratch.refinenet") for name in names
    )


def read(checkpoint: Checkpoint, auxiliary: bool = False) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
    """
    hybrid = dpt_keys.Weights(checkpoint, LAYOUT).hybrid
    settings = dpt_keys.settings_beside(checkpoint)._replace(auxiliary=PAPER_WEIGHT)
    if hybrid and settings.taps:
        settings = settings._replace(taps=settings.taps[-2:])  # the first two are stages of the ResNet
    return dpt_keys.model(checkpoint, LAYOUT, settings, auxiliary)
