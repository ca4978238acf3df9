"""DPT for depth on generated scenes never seen, next to the mean depth map of the training scenes: results/depth.md.

python -m benchmarks.depth [--out RUN] [--updates N] [--seed N] [--results]

A run that is finished in RUN is not repeated. Everything takes one thread and one process.
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
from segmenter import recipes
from segmenter.config import Recipe
from segmenter.data.depth_data import DepthSample, open_depth
from segmenter.evaluation.depth_metrics import DepthScores, image_sums
from segmenter.training.loop import train

RESULTS = Path(__file__).parent / "results" / "depth.md"
SHOWN = ("delta1", "delta2", "delta3", "abs_rel", "rmse", "silog")


def recipe(updates: int, seed: int) -> Recipe:
    """The package's recipe with another budget, in one process, which draws every scene once and keeps it."""
    found = recipes.read("dpt-depth")
    updates = updates or found.train.steps
    budget = {"steps": updates, "validate_every": updates, "save_every": updates, "seed": seed, "workers": 0}
    return replace(found, train=replace(found.train, **budget))


def mean_map_scores(train: Sequence[DepthSample], test: Sequence[DepthSample], max_depth: float) -> DepthScores:
    """Scores of always predicting the mean inverse depth map of `train`, aligned to each image of `test`."""
    mean = np.mean([sample.inverse_depth() for sample in train], 0)
    sums = sum(image_sums(mean, sample.inverse_depth(), "least_squares", max_depth) for sample in test)
    return DepthScores(sums, "least_squares")


def main() -> None:
    """Trains if need be, scores model and mean map, prints the table and, with --results, writes it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--updates", type=int, default=0, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", action="store_true", help="write results/depth.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = recipe(arguments.updates, arguments.seed)
    took = "trained before"
    if not (arguments.out / "model.safetensors").exists():
        since = time.perf_counter()
        train(settings, arguments.out)
        took = f"training {(time.perf_counter() - since) / 60:.1f} min, drawing the scenes included"
    data = open_depth(settings.data)
    test, model = data.split("test"), segmenter.load(arguments.out)
    scores = {
        "DPT": segmenter.evaluate(model, test),
        "mean map of training": mean_map_scores(data.split("train"), test, settings.depth.max_depth),
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    options = f"--updates {settings.train.steps} --seed {arguments.seed}"
    lines = [
        f"`python -m benchmarks.depth {options} --results`, {platform.machine()}, one thread, "
        f"torch {torch.__version__}, {date.today()}; {took}; {parameters / 1e6:.2f} M parameters.",
        "",
        f"{scores['DPT'].images} test scenes never seen, 96 x 128 pixels, sky and what is beyond "
        f"{settings.depth.max_depth:g} m left out; scale and shift of the inverse depth fitted to each scene.",
        "",
        f"| prediction | {' | '.join(SHOWN)} |",
        "| --- |" + " --- |" * len(SHOWN),
    ]
    for name, found in scores.items():
        numbers = found.to_dict()
        lines.append(f"| {name} | {' | '.join(f'{numbers[metric]:.3f}' for metric in SHOWN)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if arguments.results:
        RESULTS.write_text(f"# Depth of generated scenes\n\n{table}", encoding="utf-8")


if __name__ == "__main__":
    main()
