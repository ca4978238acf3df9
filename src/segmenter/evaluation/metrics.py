"""Scores from a confusion matrix, as is usual: sums over the whole set, then means over classes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Intersection over union, class and pixel accuracy (0 to 1) from counts (K K: row true, column predicted)."""

    confusion: np.ndarray
    names: tuple[str, ...]

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union (K); nan where a class is neither in the truth nor in the prediction."""
        hits = np.diag(self.confusion).astype(np.float64)
        return _ratio(hits, self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's pixels that were found (K); nan where the class is not in the truth."""
        return _ratio(np.diag(self.confusion).astype(np.float64), self.confusion.sum(1))

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over the classes in the truth."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all scored pixels that are right."""
        return float(np.diag(self.confusion).sum() / max(self.confusion.sum(), 1))

    def to_dict(self) -> dict:
        """Plain numbers for JSON; None for a class that is absent."""
        rows = zip(self.names, self.iou, self.accuracy, self.confusion.sum(1), strict=True)
        return {
            "mean_iou": self.mean_iou,
            "mean_accuracy": self.mean_accuracy,
            "pixel_accuracy": self.pixel_accuracy,
            "classes": [
                {"name": name, "iou": _number(iou), "accuracy": _number(accuracy), "pixels": int(pixels)}
                for name, iou, accuracy, pixels in rows
            ],
        }

    def table(self) -> str:
        """The scores as a table for people, in percent."""
        total = max(int(self.confusion.sum()), 1)
        wide = max(len(name) for name in (*self.names, "class"))
        lines = [f"{'class':{wide}}     IoU  accuracy  share of pixels"]
        for row in self.to_dict()["classes"]:
            absent = row["pixels"] == 0
            note = "  absent" if absent and row["iou"] is None else "  not in the truth" if absent else ""
            share = 100 * row["pixels"] / total
            lines.append(
                f"{row['name']:{wide}}  {_percent(row['iou'])}    {_percent(row['accuracy'])}  {share:14.2f}{note}"
            )
        lines.append(
            f"{'mean':{wide}}  {_percent(self.mean_iou)}    {_percent(self.mean_accuracy)}"
            f"   pixel accuracy {100 * self.pixel_accuracy:.2f}"
        )
        return "\n".join(lines)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{100 * value:6.2f}"
