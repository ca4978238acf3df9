"""What evaluations of depth say: errors by distance, as a table and plots."""

from collections.abc import Mapping

import numpy as np

from segmenter.data.classes import Classes
from segmenter.evaluation.kept_depth import DISTANCES, KeptDepth
from segmenter.views.report.measured import Intervals, Measure
from segmenter.views.report.page import Cell, Plot, Plots, Section, Table, Text
from segmenter.views.report.plotting import MUTED, drawing, series

MEASURES = {
    "delta1": Measure("δ < 1.25"),
    "abs_rel": Measure("abs rel", share=False, better=-1),
    "rmse": Measure("RMSE, metres", share=False, better=-1),
    "silog": Measure("SILog", share=False, better=-1, digits=2),
}
BY_DISTANCE = {
    "distance_abs_rel": Measure("mean error / distance %", better=-1),
    "distance_delta1": Measure("within a factor of 1.25 %"),
}


def depth_sections(kept: Mapping[str, KeptDepth], found: Mapping[str, Intervals], _: Classes) -> list[Section]:
    """The part of a page on the errors of one run, or of several, by true distance."""
    rows = [
        [*([Cell(run)] if len(kept) > 1 else []), *_row(one, found[run], place)]
        for run, one in kept.items()
        for place in range(DISTANCES)
        if one.distances[:, place, 0].sum()
    ]
    columns = [*(["run"] if len(kept) > 1 else []), "distance", "share of pixels %", "error / distance %"]
    columns += ["95 % interval", "within a factor of 1.25 %", "RMSE, metres"]
    definitions = [f"{run}: " * (len(kept) > 1) + f"{one.definitions}." for run, one in kept.items()]
    text = "Sums over all measured pixels whose true depth lies in the range; " + " ".join(definitions)
    table = Table("How large errors are, near and far", columns, rows, text, numeric=2 if len(kept) > 1 else 1)
    if not rows:
        return [Section("Errors by distance", [Text("Nothing was measured within the distance that is scored.")])]
    return [Section("Errors by distance", [Plots([_plot(kept, found, name) for name in BY_DISTANCE]), table])]


def _row(kept: KeptDepth, found: Intervals, place: int) -> list[Cell]:
    pixels = kept.distances[..., 0].sum(0)
    relative = BY_DISTANCE["distance_abs_rel"]
    return [
        Cell(f"{kept.edges[place]:.3g} to {kept.edges[place + 1]:.3g} m", place),
        relative.cell(pixels[place] / pixels.sum()),
        relative.bar_cell(found["distance_abs_rel"], (place,)),
        relative.ends_cell(found["distance_abs_rel"], (place,)),
        BY_DISTANCE["distance_delta1"].cell(found["distance_delta1"].value[place]),
        MEASURES["rmse"].cell(found["distance_rmse"].value[place]),
    ]


def _plot(kept: Mapping[str, KeptDepth], found: Mapping[str, Intervals], name: str) -> Plot:
    """A measure over the middles of the ranges, with its interval."""
    words, measure = [], BY_DISTANCE[name]
    with drawing() as drawn:
        axes = drawn.axes
        edges = next(iter(kept.values())).edges
        same = [run for run, one in kept.items() if one.edges == edges]  # others were scored to another depth
        for number, run in enumerate(same):
            middles, measured = np.arange(DISTANCES) + 0.5, found[run][name]
            known = ~np.isnan(measured.value)
            if not known.any():
                continue
            low, values, high = (100 * part[known] for part in (measured.low, measured.value, measured.high))
            axes.fill_between(middles[known], low, high, color=series(number), alpha=0.2, linewidth=0)
            axes.plot(middles[known], values, "o-", color=series(number), markersize=4, label=run)
            words.append(f"{run}: {values[0]:.1f} % in the nearest range, {values[-1]:.1f} % in the farthest.")
        axes.set(xlabel="true distance in metres", ylabel="%", xlim=(0, DISTANCES))
        axes.set_xticks(range(DISTANCES + 1), [f"{edge:.3g}" for edge in edges])
        axes.set_ylim(bottom=0)
        if len(same) > 1:
            axes.legend(labelcolor=MUTED)
    return Plot(measure.title.removesuffix(" %").capitalize(), drawn.svg, " ".join(words))
