"""Masks of images never trained on, with planted faults: does the ranking of `check --model` find them?

python -m benchmarks.doubtful --on NAME MODEL[,MODEL ...] DATA [--on ...] [--split SPLIT] [--seeds N] [--write]

Every seed plants faults in a tenth of the images (`benchmarks.planted`). The figure is the area under the ROC curve,
the chance that an image with a fault comes before one without. Then the most memory that looking at a photo and a mask
of it takes, of which a tenth is wrong, against predicting the photo, each in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import segmenter
from benchmarks import planted, subjects
from benchmarks.measuring import RESULTS, markdown, write_between
from segmenter.cost.measuring import PeakMemory, machine
from segmenter.data.classes import Classes
from segmenter.data.samples import FileSample, Sample
from segmenter.evaluation.contradictions import compared, contradictions
from segmenter.evaluation.doubtful import compare, doubtful, passes_of
from segmenter.evaluation.inputs import chosen
from segmenter.inference.passes import effective_settings, scaled
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.upsample.probabilities import Passes

SIZES = ((480, 640), (3000, 4000))
ALL = "all kinds"


def area(with_fault: Sequence[float], without: Sequence[float]) -> float:
    """The area under the ROC curve of doubts: how often one with a fault is larger; ties count half."""
    above = np.subtract.outer(with_fault, without)
    return float(np.mean((above > 0) + (above == 0) / 2))


def looked(model: Segmenter, samples: Sequence[Sample], kept: Path | None) -> list[Passes]:
    """The passes of a model over each image; in a file `kept` where there is one, or else they are written there."""
    if kept and kept.exists():
        return torch.load(kept, weights_only=False)
    settings, found = effective_settings(model, None, False), []
    for sample in Progress(samples, "look", unit="image", leave=False):
        image = sample.image()
        here = scaled(image, model.recipe.augment, settings.native)
        found.append([passes_of(model, here, settings, image.shape[:2])])
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, kept)
    return found


def areas(
    classes: Classes, passes: Sequence[Passes], samples: Sequence[Sample], seeds: Sequence[int]
) -> dict[str, list[tuple[float, float]]]:
    """For each kind of fault, and all of them, the areas of our doubt and of plain softmin; one of each seed."""
    ignore, count = classes.ignore, len(classes)
    masks = [sample.target() for sample in samples]
    pairs = Progress(zip(passes, masks, strict=True), "compare", len(masks), unit="image", leave=False)
    clean = [contradictions(compare(one, mask, classes), ignore) for one, mask in pairs]
    found = {name: [] for name in (ALL, *planted.FAULTS)}
    for seed in Progress(seeds, "plant", unit="seed", leave=False):
        faults, all_of_them = planted.planted(masks, count, ignore, seed), list(clean)
        for place, (_, mask) in faults.items():
            all_of_them[place] = contradictions(compare(passes[place], mask, classes), ignore)
        doubts = compared(all_of_them)
        for name, both in found.items():
            chosen = [place for place, (kind, _) in faults.items() if name in (ALL, kind)]
            if not chosen:
                continue
            rest = [doubt for place, doubt in enumerate(doubts) if place not in faults]
            ours = area([doubts[place].doubt for place in chosen], [doubt.doubt for doubt in rest])
            plain = area([-doubts[place].softmin for place in chosen], [-doubt.softmin for doubt in rest])
            both.append((ours, plain))
    return found


def rows(name: str, found: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    """The table of a data set."""
    return [
        [name, kind, *(f"{statistics.mean(one):.3f} ({min(one):.3f})" for one in zip(*both, strict=True))]
        for kind, both in found.items()
    ]


def memory(model: str, size: tuple[int, int], threads: int) -> list[str]:
    """Most memory above the loaded model of looking at a photo and its mask, and of predicting it."""
    with tempfile.TemporaryDirectory() as folder:
        subjects.fitted(None, size, Path(folder)).save(Path(folder) / "photo.jpg", quality=90)
        network = segmenter.load(model)
        labels = segmenter.predict(network, Path(folder) / "photo.jpg").labels
        labels[:, : size[1] // 10] = (labels[:, : size[1] // 10] + 1) % len(network.classes)
        Image.fromarray(labels).save(Path(folder) / "mask.png")
        line = [sys.executable, "-m", "benchmarks.doubtful", "--on", "photo", model, folder, "--threads", str(threads)]
        doubt, predict = (
            float(subprocess.run([*line, "--measure", what], check=True, stdout=subprocess.PIPE, text=True).stdout)
            for what in ("doubt", "predict")
        )
    return [f"{size[0]} x {size[1]}", *(f"{x / 2**20:.0f} MiB" for x in (doubt, predict)), f"{doubt / predict:.2f}"]


def print_memory(path: str, folder: Path, what: str) -> None:
    """Looks at a photo or predicts it, the second time; then this process's most memory above that before both."""
    model, peak = segmenter.load(path), PeakMemory(torch.device("cpu"))
    sample = FileSample("photo", folder / "photo.jpg", folder / "mask.png", lambda file: np.array(Image.open(file)))
    peak.start()
    before = peak.now()
    for _ in range(2):
        if what == "doubt":
            doubtful(model, [sample], show=False)
        else:
            segmenter.predict(model, sample.image_path)
    print(peak.largest() - before)


@torch.inference_mode()
def main() -> None:
    """Plants, ranks, measures, prints the tables and writes them if told to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", nargs=3, action="append", required=True, metavar=("NAME", "MODEL[,MODEL]", "DATA"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, default=20, help="how often faults are planted")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--most", type=int, help="images that are used")
    parser.add_argument("--keep", type=Path, help="folder that keeps what the models see, for the next run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", choices=("doubt", "predict"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        print_memory(arguments.on[0][1], Path(arguments.on[0][2]), arguments.measure)
        return
    table, used = [], ""
    for name, paths, data in arguments.on:
        models = [segmenter.load(path) for path in paths.split(",")]
        samples = chosen(models[0], data, arguments.split).samples[: arguments.most]
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        several = []
        for path, model in zip(paths.split(","), models, strict=True):
            kept = arguments.keep and arguments.keep / f"{Path(path).name}-{arguments.split}.pt"
            several.append(looked(model, samples, kept))
        passes = [[one for each in same for one in each] for same in zip(*several, strict=True)]
        table += rows(f"{name}, {len(samples)} of {arguments.split}", areas(models[0].classes, passes, samples, seeds))
        used += f" --on '{name}' {','.join(Path(path).name for path in paths.split(','))} {Path(data).name}"
    command = f"python -m benchmarks.doubtful{used} --split {arguments.split} --seeds {arguments.seeds}"
    head = ["images", "fault", "area under the ROC curve, mean (least) of the seeds", "of plain softmin"]
    photos = [memory(arguments.on[0][1].split(",")[0], size, arguments.threads) for size in SIZES]
    lines = [f"`{command}`, {machine(torch.device('cpu'))}, {date.today()}.", "", markdown(head, table), ""]
    lines += [markdown(["photo", "looking at its mask", "predicting it", "ratio"], photos)]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_between(RESULTS / "doubtful.md", text)


if __name__ == "__main__":
    main()
