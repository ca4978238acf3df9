"""Six scales, each mirrored too: ours against the published formulation, full-size maps of every class, of one network.

python -m benchmarks.multiscale [--model MODEL] [--photo PHOTO] [--json FILE] [--write]

The image is cut to 512 x 683 pixels; 12 passes, in windows.
"""

import statistics
import sys
from dataclasses import replace

import numpy as np
import torch

from benchmarks import plain, subjects
from benchmarks.measuring import Row, in_turn, options, parsed, report
from segmenter import upsample
from segmenter.inference.passes import many_passes
from segmenter.model.segmenter import Segmenter

SIZE = (512, 683)


@torch.inference_mode()
def rows(model: Segmenter, image: np.ndarray, rounds: int) -> tuple[list[Row], str]:
    """The table, and what has to be said with it."""
    size = image.shape[:2]
    settings = replace(model.recipe.inference, native=True)
    ours, theirs = many_passes(model, image, settings), plain.network(model, image)
    same = (upsample.labels_of_mean(ours) == plain.labels_of_passes(theirs, size)).float().mean().item()
    seconds = in_turn(
        {
            "ours": lambda: upsample.labels_of_mean(many_passes(model, image, settings)),
            "theirs": lambda: plain.labels_of_passes(plain.network(model, image), size),
            "our pixels": lambda: upsample.labels_of_mean(ours),
            "their pixels": lambda: plain.labels_of_passes(theirs, size),
            "network": lambda: many_passes(model, image, settings),
        },
        rounds,
    )
    what = f"{size[0]} x {size[1]}, 12 passes, {subjects.about(model)}"
    network, pixels = (statistics.median(seconds[name]) for name in ("network", "their pixels"))
    note = (
        f"The network's part is {network:.2f} s in both: were our pixels to cost nothing, the ratio in all would be "
        f"{(network + pixels) / network:.2f}. Both give {100 * same:.2f} % of the pixels the same label."
    )
    against = "published formulation, the same network"
    return [
        Row(f"{what}, in all", against, "ms", seconds["ours"], seconds["theirs"], 1.6),
        Row("the same, pixels alone", against, "ms", seconds["our pixels"], seconds["their pixels"], 4),
    ], note


def main() -> None:
    """Measures and reports."""
    parser = options(__doc__, rounds=5)
    subjects.add_options(parser)
    arguments = parsed(parser)
    model = subjects.model(arguments.model)
    found, note = rows(model, subjects.pixels(arguments.photo, SIZE), arguments.rounds)
    report(found, arguments, note=note)


if __name__ == "__main__":
    sys.exit(main())
