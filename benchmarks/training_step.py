"""An update of the training: ours against the same network with torch's loss, in time and memory.

python -m benchmarks.training_step [--model MODEL] [--no-compile] [--json FILE] [--write]

ViT-Ti/16 with a mask transformer, 150 classes, batches of 4 at 512 x 512, SGD; forward, loss, backward, update. With a
CUDA device, ViT-L/16 at 640 x 640 in bf16 too, against the fastest product of matrices measured there.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import plain, subjects
from benchmarks.measuring import Row, in_turn, options, parsed, report
from segmenter import upsample
from segmenter.cost.measuring import PeakMemory, counted_flops, matmul_peak
from segmenter.model.segmenter import Segmenter, create

BATCH = 4
LARGE, LARGE_SIDE, LARGE_BATCH = "vit_large_patch16_384", 640, 16
CUDA = "ViT-L/16 mask, 150 classes, 640 x 640, bf16"
Loss = Callable[[Tensor, Tensor], Tensor]


class Update:
    """An update of a model with a loss (logits, labels), again and again on one batch; `compiled`: by torch.compile.

    torch's loss is compiled with the network, ours has no use for it.
    """

    def __init__(self, model: Segmenter, loss: Loss, batch: int, compiled: bool = False, bf16: bool = False):
        self.model, self.device = model.train(), next(model.parameters()).device
        size = model.recipe.augment.crop
        self.images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(self.device)
        self.labels = subjects.targets(batch, len(model.classes), size).to(self.device)
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        self.bf16 = bf16
        self.network: nn.Module = torch.compile(model) if compiled else model
        self.loss = torch.compile(loss) if compiled and loss is plain.loss else loss

    def __call__(self) -> float:
        """Makes the update and returns the loss before it; with stochastic depth, always of the same blocks."""
        torch.manual_seed(0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(self.images)
        loss = self.loss(logits, self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def our_loss(model: Segmenter) -> Loss:
    """Logits (B K h w) and labels (B H W) to the loss."""
    return lambda logits, labels: upsample.cross_entropy(logits, labels, model.geometry(*labels.shape[1:]))


def update(path: str | None, which: str, compiled: bool = False) -> Update:
    """The update with our loss, or with `torch`'s."""
    model = subjects.model(path)
    return Update(model, our_loss(model) if which == "ours" else plain.loss, BATCH, compiled)


def time_rows(path: str | None, rounds: int, compiled: bool) -> tuple[list[Row], str]:
    """Seconds of an update, eager and compiled."""
    result, note = [], ""
    for compile_it in [False] + [True] * compiled:
        updates = {which: update(path, which, compile_it) for which in ("ours", "torch")}
        if not compile_it:
            first = {which: one() for which, one in updates.items()}
            note = f"Losses of the first update: {first['ours']:.6f} and {first['torch']:.6f}."
        seconds = in_turn(updates, rounds)
        model = updates["ours"].model
        what = f"update, {subjects.about(model)}, {BATCH} x {model.recipe.augment.crop[0]}"
        suffix = ", compiled" * compile_it
        against = f"the same network, interpolate + cross_entropy{suffix}"
        result.append(Row(what + suffix, against, "ms", seconds["ours"], seconds["torch"], None if compile_it else 1.5))
    return result, note


def memory_rows(arguments: argparse.Namespace) -> list[Row]:
    """Peak memory of processes of their own, all of it, and above what the loaded model takes."""
    found = {which: _memory_of(which, arguments) for which in ("ours", "torch")}
    return [
        Row(what, "interpolate + cross_entropy", "MiB", *([found[which][i]] for which in ("ours", "torch")), wanted)
        for i, (what, wanted) in enumerate([("peak memory of the process", 1 / 0.6), ("above the loaded model", None)])
    ]


def _memory_of(which: str, arguments: argparse.Namespace) -> list[float]:
    line = [sys.executable, "-m", "benchmarks.training_step", "--threads", str(arguments.threads)]
    line += ["--memory-of", which, *(["--model", arguments.model] if arguments.model else [])]
    return [float(word) for word in subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout.split()]


def print_memory(path: str | None, which: str) -> None:
    """Three updates, then the most memory that this process had, and how much of it came after loading."""
    one, memory = update(path, which), PeakMemory(torch.device("cpu"))
    memory.start()
    before = memory.now()
    for _ in range(3):
        one()
    print(memory.largest(), memory.largest() - before)


def cuda_rows(rounds: int, compiled: bool) -> list[Row]:
    """A large model's update against as many operations (3 x forward) in one product of matrices, in bf16."""
    against = "3 x forward at the measured bf16 peak"
    suffixes = [""] + [", compiled"] * compiled
    if not torch.cuda.is_available():
        return [Row(f"CUDA: {CUDA}{suffix}", against, "ms", None, None, 0.5) for suffix in suffixes]
    device, result = torch.device("cuda"), []
    peak = matmul_peak(device, torch.bfloat16)
    for suffix in suffixes:
        torch.manual_seed(0)
        model = create(LARGE, "mask_transformer", subjects.CLASSES, LARGE_SIDE).to(device)
        with counted_flops() as counter, torch.inference_mode():
            model.eval()(torch.zeros(1, 3, LARGE_SIDE, LARGE_SIDE, device=device))
        ideal = 3 * LARGE_BATCH * counter.get_total_flops() / peak
        one = Update(model, our_loss(model), LARGE_BATCH, bool(suffix), bf16=True)
        seconds = in_turn({"ours": one}, rounds, device)["ours"]
        what = f"CUDA: {CUDA}, batch {LARGE_BATCH}{suffix}"
        result.append(Row(what, f"{against}, {peak / 1e12:.0f} TFLOP/s", "ms", seconds, [ideal] * rounds, 0.5))
    return result


def main() -> None:
    """Measures and reports."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--model", help="trained model; none: random weights")
    parser.add_argument("--memory-of", choices=("ours", "torch"), help=argparse.SUPPRESS)
    arguments = parsed(parser)
    if arguments.memory_of:
        print_memory(arguments.model, arguments.memory_of)
        return
    compiled = not arguments.no_compile
    found, note = time_rows(arguments.model, arguments.rounds, compiled)
    found += memory_rows(arguments)
    found += cuda_rows(arguments.rounds, compiled)
    report(found, arguments, note=note)


if __name__ == "__main__":
    sys.exit(main())
