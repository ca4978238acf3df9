"""Whether attention adapts to the size of instances, for every layer and head of a model.

    python -m benchmarks.instances MODEL DATA [--split test] [--images 100]

Source of the statement: Segmenter, arXiv 2105.05633, section 4 and appendix. An instance is an object of the instance
map, where the data have one, or a connected region of the truth, of at least four patches; its patch is that of its
widest place. For each head are printed

- kept: how much of that patch's attention stays in the instance, against the instance's share of the picture; mean;
- size: the rank correlation of the area that the patch attends to (the exponential of the entropy, in patches) with
  the area of the instance.
"""

import argparse
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

import segmenter
from segmenter.cost.measuring import machine
from segmenter.data.samples import Sample
from segmenter.evaluation.components import regions
from segmenter.inspection.attention import look_at
from segmenter.inspection.places import Window, widest_places, windows_on
from segmenter.model.segmenter import Segmenter

LEAST = 4  # patches of an instance


class Found(NamedTuple):
    """What an instance's patch attends to."""

    kept: np.ndarray
    """layers heads: against the instance's share of the picture."""
    area: np.ndarray
    """layers heads: in patches."""
    own: float
    """The instance's own area, in patches."""


def instances_of(model: Segmenter, sample: Sample) -> Iterator[Found]:
    """What the instances in each window of an image attend to."""
    target, objects = sample.target(), sample.instances()
    for window in windows_on(model, sample.image()):
        rows, columns = _pixels(window)
        labels = target[np.ix_(rows, columns)].astype(np.int64)
        labels[labels >= len(model.classes)] = -1
        found = regions(labels, None if objects is None else objects[np.ix_(rows, columns)])
        ids, side = found.ids(), window.patch_size
        chosen = {
            number: at
            for number, at in widest_places(ids, len(found), max(ids.shape)).items()
            if found.classes[number] >= 0 and found.areas[number] >= LEAST * side**2
        }
        places = [y // side * window.grid[1] + x // side for y, x in chosen.values()]
        tokens = {"encoder": [model.encoder.prefix + place for place in places]}
        seen = look_at(model, model.normalize(window.pixels[None]), tokens).rows
        maps = torch.stack([seen[place] for place in sorted(seen)])[..., model.encoder.prefix :].cpu().numpy()
        maps /= maps.sum(-1, keepdims=True)  # layers heads R N
        areas = np.exp(-(maps * np.log(np.maximum(maps, 1e-12))).sum(-1))
        for row, number in enumerate(chosen):
            covered = _covered(ids == number, window)
            kept = maps[:, :, row] @ covered / covered.mean()
            yield Found(kept, areas[..., row], found.areas[number] / side**2)


def _pixels(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The photo's rows and columns that the pixels of a window lie on."""
    rows, columns = (
        (start + (np.arange(length) + 0.5) * (end - start) / length).astype(np.int64)
        for start, end, length in zip(window.box[:2], window.box[2:], window.pixels.shape[1:], strict=True)
    )
    return rows, columns


def _covered(mask: np.ndarray, window: Window) -> np.ndarray:
    """The share of each patch (N) that lies in a mask (H W) of the window's pixels."""
    missing = [side * window.patch_size - length for side, length in zip(window.grid, mask.shape, strict=True)]
    padded = F.pad(torch.from_numpy(mask).float()[None, None], (0, missing[1], 0, missing[0]))
    return F.avg_pool2d(padded, window.patch_size).flatten().numpy()


def table(found: list[Found]) -> list[str]:
    """Lines of a table, a row a layer, its heads beside each other."""
    kept = np.stack([one.kept for one in found], -1).mean(-1)  # layers heads
    areas, own = _ranks(np.stack([one.area for one in found], -1)), _ranks(np.array([one.own for one in found]))
    size = np.array([[np.corrcoef(area, own)[0, 1] for area in heads] for heads in areas])
    lines = ["| layer | kept, head by head | size, head by head |", "| --- | --- | --- |"]
    for layer in range(len(kept)):
        words = " ".join(f"{value:.1f}" for value in kept[layer]), " ".join(f"{value:+.2f}" for value in size[layer])
        lines.append(f"| {layer} | {words[0]} | {words[1]} |")
    return lines


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, axis=-1, kind="stable"), axis=-1, kind="stable")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    model = segmenter.load(arguments.model)
    samples = segmenter.open_data(arguments.data).split(arguments.split)
    step = max(1, len(samples) // arguments.images)
    found = [one for sample in samples[::step][: arguments.images] for one in instances_of(model, sample)]
    print("\n".join(table(found)))
    error = 1 / math.sqrt(len(found) - 1)
    print(f"\n{len(found)} instances; standard error of `size` {error:.2f}. {machine(torch.device('cpu'))}")


if __name__ == "__main__":
    main()
