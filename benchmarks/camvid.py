"""CamVid: scores a finished run on val and test, prints the tables of results/camvid.md and draws its curve.

python -m benchmarks.camvid --data CAMVID --stages RUN [RUN ...]      (the last run is the final model)
"""

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import segmenter
from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.evaluation.metrics import Scores

RESULTS = Path(__file__).parent / "results"


def log(run: Path) -> list[dict]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def draw_curve(stages: list[Path], file: Path) -> None:
    """Training loss and validation mIoU over the updates of all stages, one after the other."""
    figure, left = plt.subplots(figsize=(8, 4))
    right, offset = left.twinx(), 0
    for number, run in enumerate(stages):
        lines = log(run)
        losses = [(line["step"] + offset, line["loss"]) for line in lines if "loss" in line]
        scores = [(line["step"] + offset, line["val_mean_iou"]) for line in lines if "val_mean_iou" in line]
        left.plot(*zip(*losses, strict=True), color="tab:gray", linewidth=0.8, label="loss" if not number else None)
        label = "val mIoU" if not number else None
        right.plot(*zip(*scores, strict=True), "o-", color="tab:blue", label=label)
        offset = losses[-1][0]
        if run is not stages[-1]:
            left.axvline(offset, color="black", linestyle=":", linewidth=1)
    left.set(xlabel="update", ylabel="training loss", ylim=(0, None))
    right.set(ylabel="val mIoU", ylim=(0.3, 0.8))
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 0.95))
    figure.tight_layout()
    figure.savefig(file)


def score(run: Path, data: Data, split: str) -> Scores:
    """Single-scale scores of a run's best model."""
    return segmenter.evaluate(segmenter.load(run), open_labels(data).split(split), workers=1)


def table(val: Scores, test: Scores) -> list[str]:
    """Per-class IoU on both splits as Markdown rows."""
    rows = ["| class | val IoU | test IoU | share of test pixels |", "| --- | --- | --- | --- |"]
    shares = test.confusion.sum(1) / test.confusion.sum()
    for name, v, t, share in zip(test.names, val.iou, test.iou, shares, strict=True):
        rows.append(f"| {name} | {100 * v:.1f} | {100 * t:.1f} | {100 * share:.1f} % |")
    rows.append(f"| **mean** | **{100 * val.mean_iou:.1f}** | **{100 * test.mean_iou:.1f}** | |")
    return rows


def main() -> None:
    """Scores the last stage, prints the tables and writes results/camvid.svg."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--stages", required=True, nargs="+", type=Path)
    arguments = parser.parse_args()
    data, final = Data(root=arguments.data), arguments.stages[-1]
    val, test = (score(final, data, split) for split in ("val", "test"))
    draw_curve(arguments.stages, RESULTS / "camvid.svg")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {date.today()}"
    lines = [f"Measured: {machine}", "", *table(val, test), "", f"Pixel accuracy on test {test.pixel_accuracy:.4f}."]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
