"""Every decoder on the same small encoder and generated scenes, with the same number of updates: results/decoders.md.

python -m benchmarks.decoders --out RUNS [--updates 300] [--seeds 3] [--write]

Runs that are finished in RUNS are not repeated. Everything takes one thread: on images this small more only wait.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

import segmenter
from benchmarks.measuring import RESULTS as FOLDER
from benchmarks.measuring import markdown, write_between
from segmenter import recipes, upsample
from segmenter.config import Recipe
from segmenter.cost.measuring import PeakMemory, counted_flops
from segmenter.data.layouts import open_labels
from segmenter.model.segmenter import Segmenter
from segmenter.training.loop import train

RESULTS = FOLDER / "decoders.md"
DECODERS = ("linear", "mask_transformer", "setr_naive", "setr_pup", "setr_mla", "dpt")
WIDTH = 32  # channels of the SETR and DPT heads: published are 256, for encoders 8 to 10 times as wide as this one
BATCH = 8
ROUNDS = 15


def recipe(decoder: str, updates: int, seed: int) -> Recipe:
    """The demo's recipe with another decoder and budget, and the four blocks that SETR-MLA and DPT read.

    Scenes are drawn once and kept by this process.
    """
    demo = recipes.read("demo")
    budget = {"steps": updates, "validate_every": updates, "save_every": updates, "seed": seed, "workers": 0}
    settings = replace(demo.decoder, name=decoder, width=WIDTH)
    encoder = replace(demo.encoder, depth=4, mlp_ratio=4.0)
    return replace(demo, encoder=encoder, decoder=settings, train=replace(demo.train, **budget))


def score(decoder: str, updates: int, seed: int, out: Path) -> float:
    """Test mIoU of a training, which is done if it is not there."""
    run = out / f"{decoder}_{updates}_{seed}"
    settings = recipe(decoder, updates, seed)
    if not (run / "model.safetensors").exists():
        train(settings, run)
    return segmenter.evaluate(segmenter.load(run), open_labels(settings.data).split("test")).mean_iou


def peak_memory(decoder: str) -> float:
    """Largest resident memory (MiB) of a process of its own that makes three updates."""
    line = [sys.executable, "-m", "benchmarks.decoders", "--memory-of", decoder]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(decoder: str) -> None:
    """Three updates on noise, then this process's peak (as the kernel's own maximum would count the parent's too)."""
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    settings = recipe(decoder, 3, 0)
    model = Segmenter(settings, open_labels(settings.data).classes).train()
    images = torch.randn(BATCH, 3, *settings.augment.crop)
    labels = torch.randint(0, len(model.classes), (BATCH, *settings.augment.crop))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    for _ in range(3):
        outputs = model.outputs(model.forward_auxiliary(images), *images.shape[-2:])
        sum(o.weight * upsample.cross_entropy(o.logits, labels, o.geometry) for o in outputs).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(memory.largest() / 2**20)


@torch.inference_mode()
def speeds(models: dict[str, Segmenter], images: torch.Tensor) -> dict[str, list[float]]:
    """Images a second from normalised images to labels, decoders in turn so that all meet the same disturbances."""
    found = {name: [] for name in models}
    for round_number in range(ROUNDS + 2):
        for name, model in models.items():
            since = time.perf_counter()
            upsample.labels(model(images), model.geometry(*images.shape[-2:]))
            if round_number > 1:  # the first two warm up
                found[name].append(len(images) / (time.perf_counter() - since))
    return found


def giga_flops(model: Segmenter, image: torch.Tensor) -> float:
    """Multiplications and additions of one image's forward pass, in 10^9."""
    with counted_flops() as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops() / 1e9


def main() -> None:
    """Trains, measures, prints the table and, with --write, writes it to results/decoders.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/decoders"))
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--memory-of", choices=DECODERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print_peak_memory(arguments.memory_of)
        return
    scores = {
        name: [score(name, arguments.updates, seed, arguments.out) for seed in range(arguments.seeds)]
        for name in DECODERS
    }
    models = {name: segmenter.load(arguments.out / f"{name}_{arguments.updates}_0") for name in DECODERS}
    images = torch.randn(BATCH, 3, *recipe("linear", 1, 0).augment.crop)
    rates = speeds(models, images)
    lines = [
        f"`python -m benchmarks.decoders --updates {arguments.updates} --seeds {arguments.seeds} --write`, "
        f"{platform.machine()}, one thread, torch {torch.__version__}, {date.today()}",
        "",
    ]
    head = ["decoder", "test mIoU, mean (each seed)", "parameters", "GFLOPs"]
    head += ["images/s, median (least to most)", "MiB in training"]
    cells = []
    for name, model in models.items():
        each = ", ".join(f"{100 * score:.1f}" for score in scores[name])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rate = f"{statistics.median(rates[name]):.0f} ({min(rates[name]):.0f} to {max(rates[name]):.0f})"
        score_text = f"{100 * statistics.mean(scores[name]):.1f} ({each})"
        flops = f"{giga_flops(model, images[:1]):.2f}"
        cells.append([f"`{name}`", score_text, f"{parameters / 1e6:.2f} M", flops, rate, f"{peak_memory(name):.0f}"])
    table = "\n".join([*lines, markdown(head, cells)])
    print(table)
    if arguments.write:
        write_between(RESULTS, table)


if __name__ == "__main__":
    main()
