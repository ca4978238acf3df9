"""DPT for depth on generated scenes never seen, next to the mean depth map of the training scenes: results/depth.md.

python -m benchmarks.depth [--out RUNS] [--updates N] [--seed N] [--write]

The start is a model trained as the demo's, which has learnt the labels of the training scenes. Runs that are finished
in RUNS are not repeated. Everything takes one thread and one process.
"""

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

import segmenter
from benchmarks.measuring import RESULTS as FOLDER
from benchmarks.measuring import markdown, write_between
from segmenter import recipes
from segmenter.data.depth_data import open_depth
from segmenter.data.samples import Sample
from segmenter.evaluation.depth_metrics import DepthScores, image_sums
from segmenter.training.loop import train

RESULTS = FOLDER / "depth.md"
SHOWN = ("delta1", "delta2", "delta3", "abs_rel", "rmse", "silog")


def trained(name: str, updates: int, seed: int, out: Path, start: str = "") -> tuple[float, Path]:
    """Trains a recipe of the package, of another budget, unless that is done; returns minutes (0: was done), folder."""
    # The labels are learnt by the encoder that will see depth; the demo's own has fewer blocks than DPT reads.
    run, found = out / name, replace(recipes.read(name), encoder=recipes.read("dpt-depth").encoder)
    # In one process, which draws every scene once and keeps it.
    budget = {"validate_every": updates, "save_every": updates, "workers": 0}
    if not (run / "model.safetensors").exists():
        since = time.perf_counter()
        train(replace(found, train=replace(found.train, steps=updates, seed=seed, start=start, **budget)), run)
        return (time.perf_counter() - since) / 60, run
    return 0.0, run


def mean_map_scores(train: Sequence[Sample], test: Sequence[Sample], max_depth: float) -> DepthScores:
    """Scores of always predicting the mean inverse depth map of `train`, aligned to each image of `test`."""
    mean = np.mean([sample.target() for sample in train], 0)
    sums = sum(image_sums(mean, sample.target(), "least_squares", max_depth) for sample in test)
    return DepthScores(sums, "least_squares")


def main() -> None:
    """Trains if need be, scores model and mean map, prints the table, writes it to results/depth.md if told to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--updates", type=int, default=recipes.read("dpt-depth").train.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    label_minutes, start = trained("demo", recipes.read("demo").train.steps, arguments.seed, arguments.out)
    minutes, run = trained("dpt-depth", arguments.updates, arguments.seed, arguments.out, str(start))
    model = segmenter.load(run)
    data, settings = open_depth(model.recipe.data), model.recipe.depth
    test = data.split("test")
    scores = {
        "DPT": segmenter.evaluate(model, test),
        "mean map of training": mean_map_scores(data.split("train"), test, settings.max_depth),
    }
    took = f"{label_minutes:.0f} min for the labels, {minutes:.0f} min for the depth" if minutes else "trained before"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"`python -m benchmarks.depth --updates {arguments.updates} --seed {arguments.seed} --write`, "
        f"{platform.machine()}, one thread, torch {torch.__version__}, {date.today()}; {took}; "
        f"{parameters / 1e6:.2f} M parameters.",
        "",
        markdown(
            ["prediction", *SHOWN],
            [[name, *(f"{found.to_dict()[metric]:.3f}" for metric in SHOWN)] for name, found in scores.items()],
        ),
    ]
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        write_between(RESULTS, table)


if __name__ == "__main__":
    main()
