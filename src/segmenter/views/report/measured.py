"""Numbers with intervals as cells of tables, the same ones in every part of a report."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segmenter.evaluation.bootstrap import Interval
from segmenter.views.report.page import Cell, Tile

Intervals = Mapping[str, Interval]
Place = tuple[int, ...]
NONE = "-"


@dataclass(frozen=True)
class Measure:
    """A measure of an evaluation, as people read it."""

    title: str
    share: bool = True
    """It goes from 0 to 1, and is shown in percent."""
    better: int = 1
    """1 if more is better, -1 if less is."""
    digits: int = 3

    def text(self, value: float) -> str:
        if np.isnan(value):
            return NONE
        return f"{100 * value:.1f}" if self.share else f"{value:.{self.digits}f}"

    @property
    def heading(self) -> str:
        return f"{self.title} %" if self.share else self.title

    def ends(self, found: Interval, place: Place = ()) -> str:
        """Both ends of an interval; nothing where it has none."""
        low, high = float(found.low[place]), float(found.high[place])
        return "" if np.isnan(low) or np.isnan(high) else f"{self.text(low)} to {self.text(high)}"

    def cell(self, value: float) -> Cell:
        return Cell(self.text(value), "" if np.isnan(value) else float(value))

    def bar_cell(self, found: Interval, place: Place = ()) -> Cell:
        """The value, with a bar and its interval where it is a share."""
        value, low, high = (float(part[place]) for part in (found.value, found.low, found.high))
        if np.isnan(value) or not self.share:
            return self.cell(value)
        return Cell(self.text(value), value, (value, *((value, value) if np.isnan(low) else (low, high))))

    def ends_cell(self, found: Interval, place: Place = ()) -> Cell:
        """The interval, sorted by its width."""
        width = float(found.high[place] - found.low[place])
        return Cell(self.ends(found, place) or NONE, "" if np.isnan(width) else width)

    def tile(self, found: Interval) -> Tile:
        return Tile(self.text(found.value) + (" %" if self.share else ""), self.title, self.ends(found))


SHARE = Measure("")


def tiles(found: Intervals, measures: Mapping[str, Measure], images: int) -> list[Tile]:
    """The measures that could be made, and of how many images they are."""
    shown = [measure.tile(found[name]) for name, measure in measures.items() if not np.isnan(found[name].value)]
    return [*shown, Tile(str(images), "image" if images == 1 else "images")]
