"""log.jsonl of one run or several as curves: loss, validation, learning rate and gradient over the steps."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmenter.views.report.page import Plot
from segmenter.views.report.plotting import MUTED, drawing, series

POINTS = 600  # of a line: more than the pixels it is shown on
SMOOTH = 40  # a line is smoothed over this part of its points
LARGEST = 2**20  # characters of a line of a log that is not torn
TITLES = {"mean_iou": "mIoU", "pixel_accuracy": "pixel accuracy", "abs_rel": "abs rel", "delta1": "delta 1"}
SHARES = ("mean_iou", "pixel_accuracy", "delta1", "delta2", "delta3")


@dataclass(frozen=True)
class History:
    """What a run wrote down as it went: for each name the steps and values, in order."""

    values: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    unreadable: int = 0
    """Lines of the log that are none."""
    there: bool = True

    @property
    def metrics(self) -> list[str]:
        """Names of what validations measured."""
        return [name.removeprefix("val_") for name in self.values if name.startswith("val_")]

    def best(self, metric: str) -> tuple[int, float] | None:
        """Step and value of the highest validation."""
        steps, values = self.values.get(f"val_{metric}", (np.zeros(0), np.zeros(0)))
        return (int(steps[values.argmax()]), float(values.max())) if len(values) else None


def read_history(folder: Path) -> History:
    """The log of a run folder, as far as there is one and it can be read; a line cut off by a kill is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    unreadable = 0
    try:
        with (folder / "log.jsonl").open(encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(LARGEST):
                entry = _entry(line)
                unreadable += entry is None and bool(line.strip())
                for name, value in (entry or {}).items():
                    if name != "step" and _is_number(value):
                        found.setdefault(name, []).append((float(entry["step"]), float(value)))
    except OSError:
        return History(there=False)
    pairs = {name: np.array(sorted(values, key=lambda pair: pair[0])) for name, values in found.items()}
    return History({name: (pair[:, 0], pair[:, 1]) for name, pair in pairs.items()}, unreadable)


def _entry(line: str) -> dict | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and _is_number(entry.get("step")) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and value == value


def curves(histories: Mapping[str, History]) -> list[Plot]:
    """Plots of the runs by name; of a name that no log has, none."""
    shown = [
        _lines(histories, ["loss"], "Loss", "loss", logarithmic=True),
        *_validations(histories),
        _lines(histories, ["lr"], "Learning rate", "learning rate"),
        _lines(histories, ["gradient_norm"], "Norm of the gradient", "norm", logarithmic=True),
    ]
    return [plot for plot in shown if plot is not None]


def _validations(histories: Mapping[str, History]) -> list[Plot | None]:
    """Of shares in one plot for one run; the rest, and those of several runs, each in its own."""
    metrics = list(dict.fromkeys(name for history in histories.values() for name in history.metrics))
    shares, others = ([name for name in metrics if (name in SHARES) == share] for share in (True, False))
    groups = [shares] if len(histories) == 1 else [[name] for name in shares[:1]]
    groups += [[name] for name in others[:1]]
    return [_lines(histories, [f"val_{name}" for name in group], _title(group), "", dots=True) for group in groups]


def _title(metrics: Sequence[str]) -> str:
    names = [TITLES.get(name, name.replace("_", " ")) for name in metrics]
    return f"Validation: {names[0]}" if len(names) == 1 else "Validation"


def _lines(
    histories: Mapping[str, History],
    names: Sequence[str],
    title: str,
    axis: str,
    logarithmic: bool = False,
    dots: bool = False,
) -> Plot | None:
    """One plot of some names of all runs."""
    found = [
        (run if len(histories) > 1 else TITLES.get(name.removeprefix("val_"), name.removeprefix("val_")), *pair)
        for name in names
        for run, history in histories.items()
        if (pair := history.values.get(name)) is not None
    ]
    if not found:
        return None
    words = []
    with drawing() as drawn:
        axes = drawn.axes
        for number, (label, steps, values) in enumerate(found):
            steps, values = _thinned(steps, values)
            words.append(_words(label if len(found) > 1 else "", steps, values, dots))
            color = series(number)
            if dots:
                axes.plot(steps, values, "o-", color=color, markersize=4, label=label)
                continue
            smooth = _smoothed(values) if len(values) > SMOOTH else values
            if len(found) == 1 and smooth is not values:
                axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            axes.plot(steps, smooth, color=color, label=label)
        if logarithmic and all((values > 0).all() for _, _, values in found):
            _logarithmic(axes)
        else:
            axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        axes.set_xlabel("step")
        axes.set_ylabel(axis)
        axes.set_xlim(0, 1.02 * max(steps[-1] for _, steps, _ in found))
        if len(found) > 1:
            axes.legend(loc="best", labelcolor=MUTED)
    return Plot(title, drawn.svg, f"{title} over the steps. {' '.join(words)}")


def _logarithmic(axes) -> None:
    """Equal factors equally far apart; numbers as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    within = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=within))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points of a line: means of parts of equal length, but for the very last point."""
    if len(steps) <= POINTS:
        return steps, values
    edges = np.linspace(0, len(steps) - 1, POINTS, dtype=int)[:-1]
    lengths = np.diff([*edges, len(steps) - 1])
    means = [np.add.reduceat(array[:-1], edges) / lengths for array in (steps, values)]
    return np.append(means[0], steps[-1]), np.append(means[1], values[-1])


def _smoothed(values: np.ndarray) -> np.ndarray:
    """A running mean over a part of the points; at both ends over as many as there are, so that none stands for all."""
    half = max(1, len(values) // SMOOTH // 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _words(label: str, steps: np.ndarray, values: np.ndarray, best: bool) -> str:
    top = f", highest {values.max():.4g} at step {steps[values.argmax()]:.0f}" if best else ""
    text = f"from {values[0]:.4g} at step {steps[0]:.0f} to {values[-1]:.4g} at step {steps[-1]:.0f}{top}."
    return f"{label}: {text}" if label else text.capitalize()
