"""Memory of predicting very large photos at their own scale: a window slides over 12 and 48 megapixels.

python -m benchmarks.memory [--model MODEL] [--photo PHOTO] [--json FILE] [--write]

Each photo in a process of its own: the most resident memory above that of the loaded model, decoding included.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import subjects
from benchmarks.measuring import Row, options, parsed, report
from segmenter.cost.measuring import PeakMemory
from segmenter.inference.predict import predict

SIZES = ((3000, 4000), (6000, 8000))
LIMIT = 1.5e9


def measured(path: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Bytes and seconds of a prediction in a new process."""
    line = [sys.executable, "-m", "benchmarks.memory", "--threads", str(arguments.threads), "--predict", str(path)]
    line += ["--model", arguments.model] if arguments.model else []
    memory, seconds = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(memory), float(seconds)


def print_measured(model: str | None, photo: Path) -> None:
    """Predicts once, then this process's most memory above that before, and the seconds."""
    network, memory = subjects.model(model), PeakMemory(torch.device("cpu"))
    memory.start()
    before, since = memory.now(), time.perf_counter()
    predict(network, photo, native=True)
    print(memory.largest() - before, time.perf_counter() - since)


def rows(arguments: argparse.Namespace) -> tuple[list[Row], str]:
    """The table, and what has to be said with it."""
    network, result, notes = subjects.model(arguments.model), [], []
    window, stride = network.recipe.inference.window, network.recipe.inference.stride
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            path = Path(folder) / "photo.jpg"
            subjects.fitted(arguments.photo, size, Path(folder)).save(path, quality=90)
            memory, seconds = measured(path, arguments)
            what = f"{size[0]} x {size[1]}, {subjects.about(network)}, window {window[0]}, stride {stride[0]}"
            result.append(Row(what, "limit", "MiB", [memory], [LIMIT], 1))
            full = 4 * len(network.classes) * size[0] * size[1] / 1e9
            notes.append(f"{size[0]} x {size[1]} took {seconds:.0f} s; a map of every class would be {full:.1f} GB.")
    return result, " ".join(notes)


def main() -> None:
    """Measures and reports."""
    parser = options(__doc__, rounds=1)
    subjects.add_options(parser)
    parser.add_argument("--sizes", type=_size, nargs="+", default=SIZES, metavar="HxW", help="of the photos")
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    arguments = parsed(parser)
    if arguments.predict:
        print_measured(arguments.model, arguments.predict)
        return
    found, note = rows(arguments)
    report(found, arguments, note=note)


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
