"""Several runs side by side: measures with intervals, and which differences are more than chance (paired bootstrap)."""

from collections.abc import Mapping

import numpy as np

from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.evaluation.bootstrap import Difference, Kept, differences
from segmenter.views.report.measured import NONE, SHARE, Intervals, Measure
from segmenter.views.report.page import Block, Cell, Table, Text

SURE = 0.05


def comparison(
    kept: Mapping[str, Kept], found: Mapping[str, Intervals], measures: Mapping[str, Measure], classes: Classes
) -> list[Block]:
    """The measures of runs by name, and how each differs from the first one."""
    columns = ["run", *(measure.heading for measure in measures.values()), "images"]
    rows = [[Cell(run), *_measures(found[run], measures), Cell(str(len(one)), len(one))] for run, one in kept.items()]
    blocks: list[Block] = [Table("All images", columns, rows, "Below each number: its 95 % interval (bootstrap).")]
    (base, first), *others = kept.items()
    moved = {}
    for run, other in others:
        try:
            moved[run] = differences(first, other)
        except UserError as error:
            blocks.append(Text(f"{base} and {run} cannot be compared image by image: {error}.", "warning"))
    if moved:
        blocks.append(_table(base, moved, measures))
    same = [run for run, one in kept.items() if getattr(one, "classes", ()) == getattr(first, "classes", ())]
    if getattr(first, "classes", ()) and len(same) > 1:
        blocks.append(_classes(same, found, moved, classes))
    return blocks


def _measures(found: Intervals, measures: Mapping[str, Measure]) -> list[Cell]:
    cells = []
    for name, measure in measures.items():
        value, ends = float(found[name].value), measure.ends(found[name])
        cells.append(Cell(measure.text(value), "" if np.isnan(value) else value, note=ends))
    return cells


def _table(base: str, moved: Mapping[str, Mapping[str, Difference]], measures: Mapping[str, Measure]) -> Table:
    rows = [
        [Cell(run), Cell(measure.title), *_difference(differs[name], measure)]
        for run, differs in moved.items()
        for name, measure in measures.items()
        if not np.isnan(differs[name].value)
    ]
    note = (
        "Both models on the same images, drawn again and again (paired bootstrap). p says how often chance alone would "
        f"bring a difference this far from zero; below {SURE:g} it is called a difference here."
    )
    columns = ["run", "measure", "difference", "95 % interval", "p", "what it says"]
    return Table(f"Against {base}", columns, rows, note, numeric=2)


def _difference(found: Difference, measure: Measure, place: tuple[int, ...] = ()) -> list[Cell]:
    """Difference, interval, p and what they say."""
    value, p = float(found.value[place]), float(found.p[place])
    if np.isnan(value) or np.isnan(p):
        return [Cell(NONE, ""), Cell(NONE, ""), Cell(NONE, ""), Cell("")]
    sure = p < SURE
    better = value * measure.better > 0
    tone = ("good" if better else "bad") if sure else ""
    says = ("better" if better else "worse") if sure else "may be chance"
    low, high = (_signed(measure, float(end[place])) for end in (found.low, found.high))
    return [
        Cell(_signed(measure, value), value, tone=tone),
        Cell(f"{low} to {high}", float(found.high[place] - found.low[place])),
        Cell(f"{p:.3f}", p),
        Cell(says, p, tone=tone),
    ]


def _signed(measure: Measure, value: float) -> str:
    text = measure.text(abs(value))
    return text if not float(text) else f"{'-' if value < 0 else '+'}{text}"


def _classes(
    runs: list[str], found: Mapping[str, Intervals], moved: Mapping[str, Mapping[str, Difference]], classes: Classes
) -> Table:
    """IoU of every class in every run; with two runs also the difference."""
    pair = next(iter(moved.values())) if len(runs) == 2 and len(moved) == 1 else None
    columns = ["class", *(f"{run}: IoU %" for run in runs)]
    columns += ["difference", "95 % interval", "p", "what it says"] if pair else []
    rows = []
    for place, name in enumerate(classes.names):
        cells = [SHARE.bar_cell(found[run]["class_iou"], (place,)) for run in runs]
        differs = _difference(pair["class_iou"], SHARE, (place,)) if pair else []
        rows.append([Cell(name, color=classes.colors[place]), *cells, *differs])
    by_chance = f"Among {len(classes)} classes, chance alone makes about {len(classes) * SURE:.1f} look different."
    return Table("Classes", columns, rows, by_chance if pair else "")
