"""Ranks the images of a split, and regions in them, whose masks contradict models that are sure.

One image is looked at after the other, at no more than MOST pixels of it, of which each keeps a few numbers: a model
sees no more of a large photo either. The probabilities of several models, such as those of a cross-validation, each
trained on other images, are averaged: what one of them has learnt by heart, the others contradict.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.classes import Classes
from segmenter.data.dataset import as_tensor
from segmenter.data.samples import DataSet, Sample
from segmenter.errors import UserError, cleaned
from segmenter.evaluation.contradictions import Doubt, Region, Seen, compared, contradictions
from segmenter.evaluation.inputs import chosen
from segmenter.inference.mode import evaluating
from segmenter.inference.passes import effective_settings, one_pass, scaled
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.upsample.probabilities import Passes

MOST = 200_000  # pixels of a photo that are looked at: 387 x 516
SHOWN = 15  # images in a table


@dataclass(frozen=True)
class Doubts:
    """The images of a split, most doubtful first."""

    samples: Sequence[Sample]
    doubts: Sequence[Doubt]
    """Of each sample."""
    classes: Classes

    def regions(self) -> list[tuple[Sample, Region]]:
        """The regions of all images, most doubtful first."""
        pairs = [(s, region) for s, doubt in zip(self.samples, self.doubts, strict=True) for region in doubt.regions]
        return sorted(pairs, key=lambda pair: -pair[1].doubt)

    def table(self, most: int = SHOWN) -> str:
        """The most doubtful images for people: doubt in percent of the labelled pixels, and the worst region."""
        rows = []
        for sample, doubt in list(zip(self.samples, self.doubts, strict=True))[:most]:
            row = [cleaned(sample.name, 60), f"{100 * doubt.doubt:.2f}", f"{doubt.softmin:.3f}"]
            if doubt.regions:
                region, names = doubt.regions[0], self.classes.names
                top, left, bottom, right = region.box
                row += [f"{names[region.given]} -> {names[region.predicted]} {region.predicted_probability:.2f}"]
                row += [f"{bottom - top} x {right - left} at {left},{top}"]
            rows.append(row + ["-"] * (5 - len(row)))
        head = ["image", "doubt %", "softmin", "its worst region: mask -> model", "height x width at x,y"]
        wide = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, wide)).rstrip() for row in [head, *rows])


def doubtful(
    models: Segmenter | Sequence[Segmenter],
    data: str | Path | config.Data | DataSet | Sequence[Sample],
    split: str = "auto",
    show: bool = True,
) -> Doubts:
    """Ranks images and regions by how much their masks contradict a model, or several, that are sure.

    >>> model = segmenter.load("runs/first")
    >>> found = segmenter.doubtful(model, "photos", show=False)
    >>> sorted(sample.name for sample in found.samples), found.doubts[0].doubt >= found.doubts[1].doubt
    (['test0', 'test1'], True)
    >>> for sample, region in found.regions():
    ...     assert region.given != region.predicted

    Args:
        models: one, or several, such as those of a cross-validation, whose probabilities are averaged.
        data: as in `segmenter.evaluate`; images without masks are left out.
        split: of a folder or data set; `auto`: test, or val where test has no masks.
        show: a progress bar.

    Returns:
        `Doubts`: `samples` and their `doubts`, most doubtful first; `regions()` and `table()`.

    Raises:
        UserError: the models predict depth, or have other classes than the data or each other; the data cannot be
            opened, has no such split or no masks in it, or a file cannot be read.
    """
    models = [models] if isinstance(models, Segmenter) else list(models)
    refuse_models(models)
    samples = labelled(models[0], data, split)
    stream = Progress(samples, "doubt", unit="image", leave=False, disable=not show)
    doubts = compared([contradictions(seen(models, sample), models[0].classes.ignore) for sample in stream])
    order = sorted(range(len(samples)), key=lambda place: -doubts[place].doubt)
    return Doubts([samples[i] for i in order], [doubts[i] for i in order], models[0].classes)


def labelled(model: Segmenter, data: str | Path | config.Data | DataSet | Sequence[Sample], split: str) -> list[Sample]:
    """The samples of a split that have a mask.

    Raises:
        UserError: there are none, the data cannot be opened, or it has other classes than the model.
    """
    samples = chosen(model, data, split).samples
    found = [sample for sample in samples if sample.labelled]
    if not found:
        raise UserError(f"none of the {len(samples)} images has a mask that could be doubted; choose another split")
    return found


def refuse_models(models: Sequence[Segmenter]) -> None:
    """Refuses models that cannot judge masks together.

    Raises:
        UserError: there is none, one predicts depth, or they have different classes.
    """
    if not models:
        raise UserError("there is no model to compare the masks with; give one or more")
    for model in models:
        if model.recipe.task != "labels":
            raise UserError(f"the model predicts {model.recipe.task}, and masks can only be compared with labels")
        if model.classes.names != models[0].classes.names:
            raise UserError(
                f"the models have different classes, {len(models[0].classes)} ({models[0].classes.names[0]}, ...) and "
                f"{len(model.classes)} ({model.classes.names[0]}, ...); give models that were trained on the same ones"
            )


@torch.inference_mode()
def seen(models: Sequence[Segmenter], sample: Sample) -> Seen:
    """The mask of one image, and what the models see in its place."""
    image = sample.image()
    size, final = image.shape[:2], looked_at(image.shape[:2])
    settings = [effective_settings(model, None, False) for model in models]
    images = [scaled(image, m.recipe.augment, own.native) for m, own in zip(models, settings, strict=True)]
    del image  # the mask of a large photo is read in its place
    with ExitStack() as modes:
        for model in models:
            modes.enter_context(evaluating(model))
        passes = [passes_of(*each, final) for each in zip(models, images, settings, strict=True)]
    del images
    mask = sample.target()[np.ix_(*map(middles, size, final))]
    return compare(passes, mask, models[0].classes, (size[0] / final[0], size[1] / final[1]))


def passes_of(
    model: Segmenter, image: Tensor, settings: config.Inference, final: tuple[int, int]
) -> tuple[Tensor, upsample.Geometry]:
    """A scaled image (3 h w uint8) to a pass that ends at a size (H, W), at the model's own temperature."""
    logits, geometry = one_pass(model, image, final, settings)
    return logits / model.temperature, geometry


def compare(passes: Passes, mask: np.ndarray, classes: Classes, scale: tuple[float, float] = (1, 1)) -> Seen:
    """A mask (H W) and the passes of models over its image, which end at its size."""
    narrow = torch.uint8 if len(classes) <= 255 else torch.int32
    labels, top = upsample.confidence(passes, dtype=narrow)
    chance = upsample.probability_of(passes, as_tensor(mask).to(labels.device), ignore=classes.ignore)
    return Seen(mask, labels.cpu().numpy(), chance.cpu().numpy(), top.cpu().numpy(), scale)


def looked_at(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which a photo of this size is looked at."""
    scale = math.sqrt(MOST / math.prod(size))
    return size if scale >= 1 else tuple(max(1, int(side * scale)) for side in size)


def middles(length: int, count: int) -> np.ndarray:
    """The pixels in the middle of each of the parts that an axis is divided into."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)
