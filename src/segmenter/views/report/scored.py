"""What an evaluation of labels says, as tables and plots: classes, confusions, sizes of objects, calibration.

Whatever has an interval says where it would lie with other images of the same kind (bootstrap, 95 %).
"""

from collections.abc import Mapping

import numpy as np

from segmenter.data.classes import Classes
from segmenter.evaluation.bootstrap import Interval
from segmenter.evaluation.kept_labels import BINS, SIZES, KeptLabels
from segmenter.views.report.page import Block, Cell, Plot, Plots, Section, Table, Text, Tile, Tiles
from segmenter.views.report.plotting import LINE, MUTED, drawing, series

MATRIX = 30  # classes; a larger table of confusions says nothing to anybody
PAIRS = 12  # of classes that were confused
MEASURES = {
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "boundary_iou": "boundary IoU",
    "calibration_error": "calibration error",
}
Intervals = Mapping[str, Interval]
Number = float | np.ndarray


def percent(value: Number) -> str:
    """A share in percent, a dash for nan."""
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def interval(found: Interval, place: tuple[int, ...] = ()) -> str:
    """The ends of an interval in percent, or nothing where it has none."""
    low, high = found.low[place], found.high[place]
    return "" if np.isnan(low) or np.isnan(high) else f"{100 * low:.1f} to {100 * high:.1f}"


def tiles(kept: KeptLabels, found: Intervals) -> Tiles:
    """The numbers of all images."""
    shown = [
        Tile(f"{percent(found[name].value)} %", title, interval(found[name]))
        for name, title in MEASURES.items()
        if not np.isnan(found[name].value)
    ]
    return Tiles([*shown, Tile(f"{len(kept)}", "images", f"{len(kept.classes)} classes")])


def shares_cell(found: Interval, place: tuple[int, ...] = ()) -> Cell:
    """A share with its bar and the ends of its interval."""
    value, low, high = (float(part[place]) for part in (found.value, found.low, found.high))
    if np.isnan(value):
        return Cell("–", "")
    return Cell(percent(value), value, (value, *((value, value) if np.isnan(low) else (low, high))))


def number_cell(value: Number) -> Cell:
    """A share in percent."""
    return Cell(percent(value), "" if np.isnan(value) else float(value))


def classes_section(kept: KeptLabels, found: Intervals, classes: Classes) -> Section:
    """A row a class."""
    counts = kept.confusion
    shares = counts.sum(1) / max(counts.sum(), 1)
    columns = ["class", "IoU %", "95 % interval", "accuracy %", "boundary IoU %", "share of pixels %"]
    rows = [
        [
            Cell(name, color=classes.colors[place]),
            shares_cell(found["class_iou"], (place,)),
            _ends_cell(found["class_iou"], (place,)),
            number_cell(found["class_accuracy"].value[place]),
            number_cell(found["class_boundary_iou"].value[place]),
            Cell(_few(100 * shares[place]), float(shares[place])),
        ]
        for place, name in enumerate(kept.classes)
    ]
    foot = [
        Cell("mean"),
        shares_cell(found["mean_iou"]),
        _ends_cell(found["mean_iou"]),
        number_cell(found["mean_accuracy"].value),
        number_cell(found["boundary_iou"].value),
        Cell(""),
    ]
    note = (
        "A click on a heading sorts. The thin line over each bar is the interval: a wide one means that few images show "
        "the class, or that they differ much."
    )
    absent = int(np.isnan(found["class_iou"].value).sum())
    gone = f" {absent} classes are neither in the truth nor in any prediction." if absent else ""
    return Section("Classes", [Table("How well each class is found", columns, rows, note + gone, foot=foot)])


def _ends_cell(found: Interval, place: tuple[int, ...] = ()) -> Cell:
    width = float(found.high[place] - found.low[place])
    return Cell(interval(found, place) or "–", "" if np.isnan(width) else width)


def _few(value: float) -> str:
    return f"{value:.3f}" if 0 < value < 0.1 else f"{value:.1f}"


def confusions_section(kept: KeptLabels, classes: Classes) -> Section:
    """The pairs of classes that are most often confused, and all of them where they are few."""
    rows = [
        [
            Cell(classes.names[pair.true], color=classes.colors[pair.true]),
            Cell(classes.names[pair.predicted], color=classes.colors[pair.predicted]),
            Cell(percent(pair.share), pair.share, (pair.share, pair.share, pair.share)),
            Cell(f"{pair.pixels:,}".replace(",", " "), pair.pixels),
            Cell(str(pair.images), pair.images),
        ]
        for pair in kept.confused(PAIRS)
    ]
    if not rows:
        return Section("Confusions", [Text("No labelled pixel was predicted as another class.")])
    columns = ["pixels of", "taken for", "% of the class", "pixels", "images"]
    blocks: list[Block] = [Table("What is taken for what", columns, rows, "Most pixels first.", numeric=2)]
    if len(classes) <= MATRIX:
        blocks.append(_matrix(kept.confusion, classes))
    return Section("Confusions", blocks)


def _matrix(counts: np.ndarray, classes: Classes) -> Table:
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    rows = [
        [
            Cell(name, color=classes.colors[place]),
            *(Cell(_share(share), float(share), heat=float(share)) for share in shares[place]),
        ]
        for place, name in enumerate(classes.names)
    ]
    note = "Rows: the true class. Columns: what its pixels were predicted as, in percent of the row."
    columns = ["", *classes.names]
    return Table("All confusions", columns, rows, note, sortable=False, folded=True, matrix=True)


def _share(share: float) -> str:
    return "" if share < 0.0005 else f"{100 * share:.1f}" if share < 0.995 else f"{100 * share:.0f}"


def sizes_section(found: Mapping[str, Intervals], kept: Mapping[str, KeptLabels]) -> Section | None:
    """IoU of small, medium and large objects, of one run or several; none where no objects were counted."""
    first = next(iter(kept.values()))
    if not len(first.objects):
        return None
    low, high = first.areas
    limits = (f"below {low} pixels", f"{low} to {high} pixels", f"above {high} pixels")
    several = len(kept) > 1
    columns = [*(["run"] if several else []), "objects", "size", "IoU %", "95 % interval", "how many", "found %"]
    rows = []
    for run, one in kept.items():
        for place, size in enumerate(SIZES):
            objects = one.objects[one.objects["size"] == place]
            count, hit = int(objects["objects"].sum()), int(objects["found"].sum())
            rows.append(
                [
                    *([Cell(run)] if several else []),
                    Cell(size),
                    Cell(limits[place]),
                    shares_cell(found[run]["size_iou"], (place,)),
                    _ends_cell(found[run]["size_iou"], (place,)),
                    Cell(str(count), count),
                    number_cell(hit / count if count else np.nan),
                ]
            )
    note = (
        "An object is a connected part of one class in the truth, or an instance where the data has them; it counts as "
        "found if at least half of its pixels are right. IoU is the mean over classes with objects of the size."
    )
    numeric = 3 if several else 2
    return Section("Object sizes", [Table("Small, medium and large objects", columns, rows, note, numeric=numeric)])


def calibration_section(found: Mapping[str, Intervals], kept: Mapping[str, KeptLabels]) -> Section | None:
    """Confidence against how often it is right; none where confidence was not counted."""
    curves = {run: one.reliability() for run, one in kept.items() if one.calibration.sum()}
    if not curves:
        return None
    words = []
    with drawing((4.4, 3.4)) as drawn:
        axes = drawn.axes
        axes.plot([0, 1], [0, 1], "--", color=LINE, linewidth=1.4)
        for number, (run, curve) in enumerate(curves.items()):
            known = curve[:, 0] > 0
            axes.plot(curve[known, 1], curve[known, 2], "o-", color=series(number), markersize=4, label=run)
            words.append(f"{run}: {_calibration_words(curve[known])}")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
        if len(curves) > 1:
            axes.legend(loc="upper left", labelcolor=MUTED)
    right = Plot("How far confidence can be trusted", drawn.svg, " ".join(words), "On the dashed line it is exact; below, too sure.")
    with drawing((4.4, 3.4)) as drawn:
        axes, width = drawn.axes, 1 / BINS / len(curves)
        for number, (run, curve) in enumerate(curves.items()):
            places = np.arange(BINS) / BINS + (number + 0.5) * width
            shares = 100 * curve[:, 0] / curve[:, 0].sum()
            axes.bar(places, shares, width * 0.9, color=series(number), label=run)
        axes.set(xlim=(0, 1), xlabel="confidence", ylabel="% of the pixels")
    often = Plot("How often each confidence is given", drawn.svg, "Shares of pixels by confidence.")
    errors = [
        f"{run + ': e' if len(kept) > 1 else 'E'}xpected calibration error {percent(found[run]['calibration_error'].value)} "
        f"% ({interval(found[run]['calibration_error'])})."
        for run in curves
    ]
    text = "The difference between confidence and share that is right, over 15 bins, each by its pixels. "
    remedy = "`segmenter calibrate RUN DATA` brings it down without changing any label."
    return Section("Calibration", [Text(" ".join(errors)), Text(text + remedy, "quiet"), Plots([right, often])])


def _calibration_words(curve: np.ndarray) -> str:
    worst = curve[np.abs(curve[:, 1] - curve[:, 2]).argmax()]
    return f"farthest off at confidence {worst[1]:.2f}, of which {worst[2]:.2f} is right."
