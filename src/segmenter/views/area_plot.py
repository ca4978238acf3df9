"""The attended area of every head as a picture: blocks from left to right, a dot a head, ResNets' fields beside it.

Source: Segmenter, arXiv 2105.05633, appendix (size of the attended area by head and depth). A mean distance is no side
of a square: so a receptive field stands at the mean distance that a head would have which looked at all of it alike,
cut at the border of the image as the heads are. Its side is written at it.
"""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from segmenter.inspection.area import AttendedArea, BlockArea
from segmenter.inspection.receptive_fields import BLOCKS, receptive_fields
from segmenter.views.lettering import fitted, font

ENCODER, DECODER, QUIET = "#1f5fa8", "#c2571a", "#666666"
WIDE = 0.48  # inches for a block
CLOSE = 0.045  # share of the axis below which two labels would touch
SOURCES = (
    "ResNets: receptive fields computed from kernels and strides (arXiv 1512.03385, table 1; sum of Araujo, Norris and "
    "Sim, Distill 2019), drawn at the mean distance of all pixels in a square of that side, cut at the image's border."
)


def area_figure(found: AttendedArea, title: str) -> Figure:
    """Draws it; `title` names the model."""
    count = len(found.blocks)
    figure = Figure(figsize=(max(9.0, WIDE * count + 4.5), 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[max(5.0, WIDE * count), 3.2])
    top = 1.08 * max(found.uniform(), *(block.distances.mean(0).max() for block in found.blocks))
    left.set_ylim(0, top)
    _draw_heads(left, found)
    _draw_networks(right, found, top)
    figure.suptitle("How far the heads look", x=0.01, ha="left", fontsize=13, fontweight="bold")
    title = fitted(title, font(95), 720 * (figure.get_figwidth() - 4.5))  # beside the networks
    left.set_title(title, loc="left", fontsize=9.5, color=QUIET, parse_math=False)
    width = round(figure.get_figwidth() * 15)
    figure.supxlabel(
        "\n".join(line for text in (_explained(found), SOURCES) for line in textwrap.wrap(text, width)),
        x=0.01,
        ha="left",
        fontsize=8.5,
        color=QUIET,
    )
    return figure


def _draw_heads(axes: Axes, found: AttendedArea) -> None:
    places = np.arange(len(found.blocks))
    for part, color in (("encoder", ENCODER), ("decoder", DECODER)):
        chosen = [(place, block) for place, block in zip(places, found.blocks, strict=True) if block.part == part]
        if not chosen:
            continue
        where, blocks = zip(*chosen, strict=True)
        axes.plot(where, [block.distances.mean() for block in blocks], color=color, alpha=0.35, zorder=1)
        for place, block in chosen:
            heads = block.distances.mean(0)
            axes.scatter(np.full(len(heads), place), heads, s=42, color=color, alpha=0.75, linewidths=0, zorder=2)
    axes.axhline(found.uniform(), color=QUIET, linestyle="--", linewidth=1, zorder=0)
    axes.annotate(
        f"a head that looks at all patches alike: {found.uniform():.0f}",
        (0.01, found.uniform()),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8.5,
        color=QUIET,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=0.9,  # above the grid, below the dots
    )
    axes.set_xticks(places, [_short(block) for block in found.blocks])
    axes.set_xlim(-0.7, len(places) - 0.3)
    has_decoder = found.blocks[-1].part == "decoder"
    axes.set_xlabel("block of the encoder" + ", then of the decoder (d)" * has_decoder)
    axes.set_ylabel("mean attended distance (pixels)")
    _quieten(axes)


def _draw_networks(axes: Axes, found: AttendedArea, top: float) -> None:
    for column, network in enumerate(BLOCKS):
        fields = receptive_fields(network)
        heights = [found.uniform(field.side) for field in fields]
        axes.plot([column] * len(fields), heights, "s-", color=QUIET, markersize=5, linewidth=1)
        texts: list[tuple[float, str]] = []
        for field, height in zip(fields, heights, strict=True):
            text = f"{field.stage}: {field.side} px"
            if texts and height - texts[-1][0] < CLOSE * top:  # a label there already
                texts[-1] = (height, f"{text}\n{texts[-1][1]}")
            else:
                texts.append((height, text))
        for height, text in texts:
            axes.annotate(text, (column, height), xytext=(7, 0), textcoords="offset points", fontsize=8.5, va="center")
    axes.set_xticks(range(len(BLOCKS)), BLOCKS)
    axes.set_xlim(-0.3, len(BLOCKS) - 0.1)
    axes.set_title("receptive fields of ResNets", loc="left", fontsize=9.5, color=QUIET)
    _quieten(axes)


def _quieten(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def _short(block: BlockArea) -> str:
    return f"{'d' if block.part == 'decoder' else ''}{block.block}"


def _explained(found: AttendedArea) -> str:
    """What was measured, in words."""
    sizes = sorted(found.sizes, key=lambda size: -found.sizes[size])
    more = f" and {len(sizes) - 1} other size{'s' * (len(sizes) > 2)}" if sizes[1:] else ""
    others = float(np.mean([block.elsewhere.mean() for block in found.blocks]))
    left_out = f" Attention to tokens that are no patches ({100 * others:.1f} % of it) is left out." if others else ""
    return (
        f"A dot is a head, the line their mean. Distance between the middles of patches of {found.patch_size} pixels, "
        f"weighted by attention, mean over {found.images} image{'s' * (found.images > 1)} "
        f"({sum(found.sizes.values())} windows of {sizes[0][0]} x {sizes[0][1]}{more}), in pixels of the network's "
        f"input.{left_out}"
    )
