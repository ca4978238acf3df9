"""What evaluations of labels say, as tables and plots: classes, confusions, sizes of objects, calibration.

Whatever has an interval says where it would lie with other images of the same kind (bootstrap, 95 %).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from segmenter.data.classes import Classes
from segmenter.evaluation.kept_labels import BINS, SIZES, KeptLabels
from segmenter.views.report.measured import SHARE, Intervals, Measure
from segmenter.views.report.page import Block, Cell, Plot, Plots, Section, Table, Text
from segmenter.views.report.plotting import LINE, MUTED, drawing, series

FEW = 1e-4  # of the pixels; what a handful of pixels says of a bin is chance
MATRIX = 30  # classes; a larger table of confusions says nothing to anybody
PAIRS = 12  # of classes that were confused
MEASURES = {
    "mean_iou": Measure("mIoU"),
    "pixel_accuracy": Measure("pixel accuracy"),
    "mean_accuracy": Measure("mean accuracy"),
    "boundary_iou": Measure("boundary IoU"),
    "calibration_error": Measure("calibration error", better=-1),
}


def label_sections(kept: Mapping[str, KeptLabels], found: Mapping[str, Intervals], classes: Classes) -> list[Section]:
    """The parts of a page on one evaluation, or on several of the same classes by their runs."""
    sections = []
    if len(kept) == 1:
        (one,), (intervals,) = kept.values(), found.values()
        sections.append(classes_section(one, intervals, classes))
    sections.append(confusions_section(kept, classes))
    return [*sections, sizes_section(kept, found), calibration_section(kept, found)]


def classes_section(kept: KeptLabels, found: Intervals, classes: Classes) -> Section:
    """A row a class."""
    counts = kept.confusion
    shares = counts.sum(1) / max(counts.sum(), 1)
    columns = ["class", "IoU %", "95 % interval", "accuracy %", "boundary IoU %", "share of pixels %"]
    rows = [
        [
            Cell(name, color=classes.colors[place]),
            SHARE.bar_cell(found["class_iou"], (place,)),
            SHARE.ends_cell(found["class_iou"], (place,)),
            SHARE.cell(found["class_accuracy"].value[place]),
            SHARE.cell(found["class_boundary_iou"].value[place]),
            Cell(_few(100 * shares[place]), float(shares[place])),
        ]
        for place, name in enumerate(kept.classes)
    ]
    foot = [
        Cell("mean"),
        SHARE.bar_cell(found["mean_iou"]),
        SHARE.ends_cell(found["mean_iou"]),
        SHARE.cell(found["mean_accuracy"].value),
        SHARE.cell(found["boundary_iou"].value),
        Cell(""),
    ]
    note = (
        "A click on a heading sorts. The line over a bar is the interval: a long one means that few images show the "
        "class, or that they differ much."
    )
    if absent := int(np.isnan(found["class_iou"].value).sum()):
        note += f" Classes that are neither in the truth nor in a prediction: {absent}."
    return Section("Classes", [Table("How well each class is found", columns, rows, note, foot=foot)])


def _few(value: float) -> str:
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.1f}"


def confusions_section(kept: Mapping[str, KeptLabels], classes: Classes) -> Section:
    """The pairs of classes that are most often confused, and all of them where they are few."""
    blocks: list[Block] = []
    for run, one in kept.items():
        of = f" by {run}" if len(kept) > 1 else ""
        blocks.append(_pairs(one, classes, of))
        if len(classes) <= MATRIX:
            blocks.append(_matrix(one.confusion, classes, of))
    return Section("Confusions", blocks)


def _pairs(kept: KeptLabels, classes: Classes, of: str) -> Block:
    rows = [
        [
            Cell(classes.names[pair.true], color=classes.colors[pair.true]),
            Cell(classes.names[pair.predicted], color=classes.colors[pair.predicted]),
            Cell(SHARE.text(pair.share), pair.share, (pair.share,) * 3),
            Cell(f"{pair.pixels:,}".replace(",", "\u202f"), pair.pixels),
            Cell(str(pair.images), pair.images),
        ]
        for pair in kept.confused(PAIRS)
    ]
    if not rows:
        return Text(f"No labelled pixel was predicted as another class{of}.")
    columns = ["pixels of", "taken for", "% of the class", "pixels", "images"]
    return Table(f"What is taken for what{of}", columns, rows, "Most pixels first.", numeric=2)


def _matrix(counts: np.ndarray, classes: Classes, of: str) -> Table:
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    rows = [
        [
            Cell(name, color=classes.colors[place]),
            *(Cell(_in_matrix(share), float(share), heat=float(share)) for share in shares[place]),
        ]
        for place, name in enumerate(classes.names)
    ]
    note = "Rows: the true class. Columns: what its pixels were predicted as, in percent of the row."
    columns = ["", *classes.names]
    return Table(f"All confusions{of}", columns, rows, note, sortable=False, folded=True, matrix=True)


def _in_matrix(share: float) -> str:
    return "" if share < 0.0005 else f"{100 * share:.1f}"


def sizes_section(kept: Mapping[str, KeptLabels], found: Mapping[str, Intervals]) -> Section:
    """IoU of small, medium and large objects."""
    counted = {run: one for run, one in kept.items() if len(one.objects)}
    if not counted:
        return Section("Object sizes", [Text("No objects were counted in these images.", "quiet")])
    several = len(counted) > 1
    columns = [*(["run"] if several else []), "objects", "area in pixels", "IoU %"]
    columns += ["95 % interval", "how many", "found %"]
    rows = [
        [*([Cell(run)] if several else []), *_size_row(one, found[run], place)]
        for run, one in counted.items()
        for place in range(len(SIZES))
    ]
    note = (
        "An object is a connected part of one class in the truth, or an instance where the data has them. It is found "
        "if at least half of its pixels are right. IoU is the mean over the classes that have objects of the size."
    )
    numeric = 3 if several else 2
    return Section("Object sizes", [Table("Small, medium and large objects", columns, rows, note, numeric=numeric)])


def _size_row(kept: KeptLabels, found: Intervals, place: int) -> list[Cell]:
    low, high = kept.areas
    areas = (f"below {low}", f"{low} to {high}", f"above {high}")
    objects = kept.objects[kept.objects["size"] == place]
    count, hit = int(objects["objects"].sum()), int(objects["found"].sum())
    return [
        Cell(SIZES[place], place),
        Cell(areas[place], place),
        SHARE.bar_cell(found["size_iou"], (place,)),
        SHARE.ends_cell(found["size_iou"], (place,)),
        Cell(str(count), count),
        SHARE.cell(hit / count if count else np.nan),
    ]


def calibration_section(kept: Mapping[str, KeptLabels], found: Mapping[str, Intervals]) -> Section:
    """Confidence against how often it is right."""
    curves = {run: one.reliability() for run, one in kept.items() if one.calibration.sum()}
    if not curves:
        return Section("Calibration", [Text("No confidence was counted in these images.", "quiet")])
    error = MEASURES["calibration_error"]
    errors = [
        f"{run + ': e' if len(kept) > 1 else 'E'}xpected calibration error "
        f"{error.text(found[run]['calibration_error'].value)} % ({error.ends(found[run]['calibration_error'])})."
        for run in curves
    ]
    text = (
        "It is the difference between confidence and the share that is right, over 15 bins, each by its pixels. "
        "`segmenter calibrate RUN DATA` brings it down without changing a label."
    )
    plots = Plots([_right(curves), _often(curves)])
    return Section("Calibration", [Text(" ".join(errors)), Text(text, "quiet"), plots])


def _right(curves: Mapping[str, np.ndarray]) -> Plot:
    """Reliability diagram of curves (BINS 3)."""
    words = []
    with drawing() as drawn:
        axes = drawn.axes
        axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.2)
        for number, (run, curve) in enumerate(curves.items()):
            known = curve[curve[:, 0] >= FEW * curve[:, 0].sum()]
            axes.plot(known[:, 1], known[:, 2], "o-", color=series(number), markersize=4, label=run)
            worst = known[np.abs(known[:, 1] - known[:, 2]).argmax()]
            words.append(f"{run}: farthest off at confidence {worst[1]:.2f}, of which {worst[2]:.2f} is right.")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
        _legend(axes, list(curves))
    note = "On the dashed line confidence is exact; below it the model is too sure. Bins of a few pixels are left out."
    return Plot("How far confidence can be trusted", drawn.svg, " ".join(words), note)


def _often(curves: Mapping[str, np.ndarray]) -> Plot:
    """How many pixels have which confidence."""
    words, width = [], 1 / BINS / len(curves)
    with drawing() as drawn:
        axes = drawn.axes
        for number, (run, curve) in enumerate(curves.items()):
            shares = 100 * curve[:, 0] / curve[:, 0].sum()
            places = np.arange(BINS) / BINS + (number + 0.5) * width
            axes.bar(places, shares, width * 0.9, color=series(number), label=run)
            words.append(f"{run}: {shares[-1]:.0f} percent of the pixels have the highest confidence.")
        axes.set(xlim=(0, 1), xlabel="confidence", ylabel="% of the pixels")
        axes.grid(False, axis="x")
        axes.spines["left"].set_edgecolor(LINE)
        _legend(axes, list(curves))
    return Plot("How often each confidence is given", drawn.svg, " ".join(words))


def _legend(axes, runs: Sequence[str]) -> None:
    if len(runs) > 1:
        axes.legend(loc="upper left", labelcolor=MUTED)
