"""Is relevance faithful? What is left of a class's probability when the patches that a map ranks first are removed.

python -m benchmarks.inside --model RUN [--data DATA] [--images N] [--write]

Of each test image a random pixel is asked for, and a random class of those that the model gives at least a thirtieth of
the window. Patches are removed by giving them the mean colour of the normalisation, the highest ranked first; the
curve of the probability over the share removed starts at the whole image and ends at one colour. The smaller the area
under it, the more faithful the ranking.
"""

import argparse
import sys
from collections import defaultdict
from datetime import date

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import segmenter
from benchmarks.measuring import RESULTS, markdown, write_between
from segmenter.cost.measuring import machine
from segmenter.inspection.captured import Call, capturing
from segmenter.inspection.places import windows_on
from segmenter.inspection.relevance import ATTENTION, cells_of_class, relevance_parts
from segmenter.inspection.rollout import rollout
from segmenter.model.segmenter import Segmenter

POINTS = 25  # of a curve
LEAST = 1 / 30  # of the window, for a class to be asked for
BATCH = 2**13  # patches that pass through the network at once
ASKED = ("a pixel", "a class")


def over_patches(model: Segmenter, images: Tensor, cells: Tensor) -> Tensor:
    """Cells of the decoder's grid as shares of the patches (h w, summing to 1)."""
    shares = F.interpolate(cells[None, None], model.encoder.grid(*images.shape[-2:]), mode="area")[0, 0]
    return shares / shares.sum()


@torch.inference_mode()
def last_attention(model: Segmenter, images: Tensor, cells: Tensor) -> Tensor:
    """What the patches asked for attend to in the encoder's last layer, in the mean of its heads."""
    calls: list[Call] = []
    with capturing(model, lambda call: calls.append(call) if call.part == "encoder" else None):
        model(images)
    rows = calls[-1].rows(calls[-1].patches)[0].mean(0)[:, calls[-1].patches]  # N N
    shares = over_patches(model, images, cells)
    return (shares.flatten() @ rows).unflatten(0, shares.shape)


def gradient_attention(model: Segmenter, images: Tensor, cells: Tensor, label: int) -> Tensor:
    """Chefer et al., arXiv 2103.15679: the positive part of gradient x attention, rolled out from the asked patches."""
    calls: list[Call] = []
    inputs = images.clone().requires_grad_()
    with capturing(model, calls.append):
        score = (model(inputs)[0, label] * cells).sum()
    gradients = torch.autograd.grad(score, [call.output for call in calls])
    row, part = over_patches(model, images, cells).flatten(), None
    for call, gradient in zip(reversed(calls), reversed(gradients), strict=True):
        if call.part != part:  # from the decoder's tokens to the encoder's
            found = torch.zeros(call.query.shape[2])
            found[call.patches] = row[: call.patches.stop - call.patches.start]
            row, part = found, call.part
        attention = call.rows(slice(None))[0]  # heads T T
        products = (gradient @ call.value.mT)[0] * attention
        row = row + row @ products.clamp(min=0).mean(0)
    return row[call.patches].detach().unflatten(0, model.encoder.grid(*images.shape[-2:]))


def maps(model: Segmenter, images: Tensor, cells: Tensor, label: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The maps (h w each) that are compared, by name; the first is ours, then come its parts."""
    photo, attention = relevance_parts(model, images, cells, label)
    return {
        "relevance": photo + ATTENTION * attention,
        "its part gradient x photo": photo,
        "its part gradient x attention": attention,
        "gradient x attention of the photo": gradient_attention(model, images, cells, label),
        "rollout": rollout(model, images, over_patches(model, images, cells)),
        "attention of the last layer": last_attention(model, images, cells),
        "chance": torch.rand(photo.shape, generator=generator),
    }


@torch.inference_mode()
def area(model: Segmenter, images: Tensor, cells: Tensor, label: int, values: Tensor) -> float:
    """The area (0 to 1) under the curve of the class's probability while the patches of largest value are removed."""
    side, count = model.encoder.patch_size, values.numel()
    rank = torch.empty(count, dtype=torch.long)
    rank[values.flatten().argsort(descending=True, stable=True)] = torch.arange(count)
    rank = rank.unflatten(0, values.shape).repeat_interleave(side, 0).repeat_interleave(side, 1)
    rank = rank[: images.shape[2], : images.shape[3]]
    removed = torch.linspace(0, count, min(POINTS, count + 1)).round().long()
    probabilities = []
    for part in removed.split(max(1, BATCH // count)):
        left = torch.cat([images * (rank >= number) for number in part])
        probabilities.append((model(left).softmax(1)[:, label] * cells).sum((1, 2)))
    return torch.trapezoid(torch.cat(probabilities), removed / count).item()


@torch.inference_mode()
def asked(model: Segmenter, images: Tensor, random: np.random.Generator) -> list[tuple[Tensor, int]]:
    """Cells (h w, summing to 1) and class: of a pixel, one cell; of a class, those that it wins."""
    logits = model(images)[0]
    labels = logits.argmax(0)
    pixel = torch.zeros(labels.shape)
    row, column = (int(random.integers(side)) for side in labels.shape)
    pixel[row, column] = 1
    present = [label for label in labels.unique().tolist() if (labels == label).float().mean() >= LEAST]
    label = int(random.choice(present))
    return [(pixel, int(labels[row, column])), (cells_of_class(logits, label), label)]


def measured(model: Segmenter, photos: list[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Photos (H W 3 each) to the areas (photos, pixel and class) under each ranking's curves."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    areas: defaultdict[str, list[list[float]]] = defaultdict(list)
    for number, photo in enumerate(photos, 1):
        images = model.normalize(windows_on(model, photo)[0].pixels[None])
        of_image: defaultdict[str, list[float]] = defaultdict(list)
        for cells, label in asked(model, images, random):
            for name, values in maps(model, images, cells, label, generator).items():
                of_image[name].append(area(model, images, cells, label, values))
        for name, found in of_image.items():
            areas[name].append(found)
        print(f"\r{number} of {len(photos)} images", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: np.array(found) for name, found in areas.items()}


def table(areas: dict[str, np.ndarray]) -> str:
    """Mean area and spread of each ranking, and how much larger it is than ours, with its interval."""
    ours, *_ = areas.values()
    rows = []
    for name, found in areas.items():
        row = [name]
        for column in range(len(ASKED)):
            mean, spread = found[:, column].mean(), found[:, column].std(ddof=1)
            row.append(f"{mean:.3f} (sd {spread:.3f})")
            above = found[:, column] - ours[:, column]
            low, high = interval(above)
            told = f"{above.mean():+.3f} ({low:+.3f} to {high:+.3f}), {(above > 0).mean():.0%}"
            row.append(told if found is not ours else "")
        rows.append(row)
    head = [words for what in ASKED for words in (f"area, {what}", "above relevance, images where it is")]
    return markdown(["patches removed in the order of", *head], rows)


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """The bootstrapped 95 % interval of the mean."""
    random = np.random.default_rng(0)
    means = values[random.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Measures and reports; the results page is written if told to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a trained model for labels")
    parser.add_argument("--data", default="scenes", help="whose test split is looked at")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--write", action="store_true", help="write the table to results/inside.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = segmenter.load(arguments.model).eval()
    samples = segmenter.open_data(arguments.data).split("test")[: arguments.images]
    areas = measured(model, [sample.image() for sample in samples], arguments.seed)
    command = f"python -m benchmarks.inside --images {arguments.images} --seed {arguments.seed}"
    about = f"{model.recipe.encoder.name}, {len(model.encoder.vit.blocks)} blocks, {model.recipe.decoder.name}"
    where = machine(torch.device("cpu"))
    text = f"`{command}`, {about}, {len(samples)} images, {where}, {date.today()}.\n\n{table(areas)}"
    print(text)
    if arguments.write:
        write_between(RESULTS / "inside.md", text)


if __name__ == "__main__":
    main()
