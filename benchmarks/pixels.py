"""Grid logits of 150 classes to pixels: labels, and the loss with its gradient, ours against torch's own operations.

python -m benchmarks.pixels [--no-compile] [--json FILE] [--write]

Smooth logits, as a trained network's: interpolate(randn(K, h // 5, w // 5) * 3, bicubic) + 0.5 * randn; noise: randn.
Memory is the most that a call took beyond what the process had. Beside other work: a process of its own multiplies
matrices on all cores, with OpenMP as torch does. The same on a CUDA device where there is one.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain, subjects
from benchmarks.inference import candidates
from benchmarks.measuring import Row, in_turn, options, parsed, report
from segmenter import upsample
from segmenter.cost.measuring import extra_memory
from segmenter.upsample import Geometry

STRIDE = 16
MEMORY = 20
"""Of the memory that torch's operations take, ours may take one part in so many."""
LABELS, LOSS = "interpolate + argmax", "interpolate + cross_entropy"
ON_CUDA = {"labels, 1 x 1024 x 2048": (1, 64, 128), "labels, 8 x 512 x 512": (8, 32, 32)}
BUSY = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
matrix = torch.randn(1536, 1536)
print(flush=True)
while True:
    matrix @ matrix
"""
Call = Callable[[], object]


def smooth(images: int, height: int, width: int) -> Tensor:
    """Logits (images K height width) of a few classes a region, with some noise on them."""
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(images, subjects.CLASSES, height // 5, width // 5, generator=generator) * 3
    logits = F.interpolate(rough, (height, width), mode="bicubic")
    return logits + 0.5 * torch.randn(logits.shape, generator=generator)


def noise(*shape: int) -> Tensor:
    """Logits of this shape without any order."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def geometry_of(logits: Tensor, stride: int = STRIDE) -> Geometry:
    """How the grid lies on the pixels, `stride` of them a cell."""
    grid = tuple(logits.shape[2:])
    return Geometry(grid, tuple(stride * side for side in grid))


def torch_labels(logits: Tensor) -> Tensor:
    """Logits (B K h w) to labels (B H W)."""
    return F.interpolate(logits, scale_factor=STRIDE, mode="bilinear").argmax(1)


def label_calls(logits: Tensor) -> dict[str, Call]:
    """Ours, torch's, and what torch.compile makes of torch's."""
    geometry, compiled = geometry_of(logits), torch.compile(torch_labels)
    return {
        "ours": lambda: upsample.labels(logits, geometry),
        "eager": lambda: torch_labels(logits),
        "compiled": lambda: compiled(logits),
    }


def loss_calls(logits: Tensor, stride: int = STRIDE) -> dict[str, Call]:
    """The same of the loss, each with its gradient."""
    geometry, compiled = geometry_of(logits, stride), torch.compile(plain.loss)
    labels = subjects.targets(len(logits), logits.shape[1], geometry.size).to(logits.device)
    logits = logits.clone().requires_grad_()
    losses = {
        "ours": lambda: upsample.cross_entropy(logits, labels, geometry),
        "eager": lambda: plain.loss(logits, labels),
        "compiled": lambda: compiled(logits, labels),
    }
    return {name: lambda loss=loss: torch.autograd.grad(loss(), logits) for name, loss in losses.items()}


def rows(what: str, against: str, calls: dict[str, Call], wanted: dict[str, float], arguments) -> list[Row]:
    """Seconds against each of the others, and memory against the eager one; `wanted` names the ratios looked for."""
    if arguments.no_compile:
        calls.pop("compiled", None)
    device = torch.device("cuda" if what.startswith("CUDA") else "cpu")
    seconds = in_turn(calls, arguments.rounds, device)
    found = [
        Row(what, f"{against}, {name}", "ms", seconds["ours"], seconds[name], wanted.get(name))
        for name in calls
        if name != "ours"
    ]
    memory = {name: [extra_memory(calls[name], device)] for name in ("ours", "eager")}
    found.append(Row(f"{what}: memory", f"{against}, eager", "MiB", memory["ours"], memory["eager"], wanted.get("MiB")))
    return found


@contextmanager
def busy_cores() -> Iterator[None]:
    """Another process keeps all cores busy meanwhile."""
    cores = str(os.cpu_count())
    command, settings = [sys.executable, "-c", BUSY, cores], os.environ | {"OMP_NUM_THREADS": cores}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=settings) as process:
        try:
            process.stdout.readline()  # it has begun
            yield
        finally:
            process.kill()


def cpu_rows(arguments) -> list[Row]:
    """What is measured everywhere."""
    small, rough = label_calls(smooth(1, 32, 32)), label_calls(noise(1, subjects.CLASSES, 32, 32))
    large, batch = label_calls(smooth(1, 64, 128)), loss_calls(smooth(4, 32, 32))
    fine = loss_calls(noise(8, 8, 96, 128), stride=1)
    two, three = (loss_calls(noise(4, classes, 24, 24)) for classes in (2, 3))
    found = [
        *rows("labels, 512 x 512, smooth", LABELS, small, {"eager": 20, "compiled": 3}, arguments),
        *rows("labels, 512 x 512, noise", LABELS, rough, {"eager": 2}, arguments),
        *rows("labels, 1024 x 2048, smooth", LABELS, large, {"eager": 20, "MiB": MEMORY}, arguments),
        *rows("loss and gradient, 4 x 512 x 512", LOSS, batch, {"eager": 8, "MiB": MEMORY}, arguments),
        *rows("loss and gradient, a cell a pixel, 8 x 96 x 128, 8 classes", LOSS, fine, {}, arguments),
        *rows("loss and gradient, 4 x 384 x 384, 2 classes", LOSS, two, {}, arguments),
        *rows("loss and gradient, 4 x 384 x 384, 3 classes", LOSS, three, {}, arguments),
    ]
    with busy_cores():
        found += beside("labels, 512 x 512, smooth", LABELS, small, 15, arguments)
        found += beside("loss and gradient, 4 x 512 x 512", LOSS, batch, 5, arguments)
    return found


def beside(what: str, against: str, calls: dict[str, Call], wanted: float, arguments) -> list[Row]:
    """Seconds beside a process that keeps all cores busy."""
    seconds = in_turn({name: calls[name] for name in ("ours", "eager")}, arguments.rounds)
    name = f"{what}, beside other work on all cores"
    return [Row(name, f"{against}, eager", "ms", seconds["ours"], seconds["eager"], wanted)]


def cuda_rows(arguments) -> list[Row]:
    """What is measured where there is a CUDA device."""
    wanted = {"eager": 5, "MiB": MEMORY}
    if not torch.cuda.is_available():
        names = [*ON_CUDA, "loss and gradient, 8 x 512 x 512"]
        return [Row(f"CUDA: {name}", LOSS if "loss" in name else LABELS, "ms", None, None, 5) for name in names]
    found = []
    for name, (images, height, width) in ON_CUDA.items():
        found += rows(f"CUDA: {name}", LABELS, label_calls(smooth(images, height, width).cuda()), wanted, arguments)
    calls = loss_calls(smooth(8, 32, 32).cuda())
    return found + rows("CUDA: loss and gradient, 8 x 512 x 512", LOSS, calls, wanted, arguments)


def note() -> str:
    """How rough the logits are, and that both give the same."""
    logits = smooth(1, 32, 32)
    same = (upsample.labels(logits, geometry_of(logits)) == torch_labels(logits)).float().mean().item()
    return (
        f"Between four smooth cells, {candidates(logits[0]):.1f} of {subjects.CLASSES} classes can win on average. "
        f"{100 * same:.3f} % of the pixels of 512 x 512 have the same label as torch's."
    )


def main() -> None:
    """Measures and reports."""
    arguments = parsed(options(__doc__))
    report(cpu_rows(arguments) + cuda_rows(arguments), arguments, note=note())


if __name__ == "__main__":
    sys.exit(main())
