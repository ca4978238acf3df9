"""A model and labelled samples to scores: predictions at the labels' own size, as the field requires."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from segmenter import config, upsample
from segmenter.config import Alignment
from segmenter.data.depth_data import DepthSample, open_depth
from segmenter.data.layouts import Sample, open_data
from segmenter.data.loader import loaded
from segmenter.errors import UserError
from segmenter.evaluation.depth import evaluate_depth
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.evaluation.metrics import Scores
from segmenter.inference.depth import refuse_multiscale
from segmenter.inference.passes import at_scales, passes_at, scaled
from segmenter.inference.windows import logits_of_many
from segmenter.model.segmenter import Segmenter

TARGETS = {"labels": "masks", "depth": "depth maps"}

logger = logging.getLogger(__name__)


class _Decoded(Dataset):
    """Samples read and scaled in the loader's workers: image (3 h w uint8) or its scales, and labels (H W)."""

    def __init__(self, samples: Sequence[Sample], augment: config.Augment, native: bool, multiscale: bool):
        self.samples, self.augment, self.native, self.multiscale = samples, augment, native, multiscale

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        image, labels = self.samples[index].image(), self.samples[index].labels()
        labels = labels if labels.dtype == np.uint8 else labels.astype(np.int32)  # torch knows little of uint16
        if self.multiscale:
            return list(at_scales(image, self.augment, self.native)), torch.from_numpy(labels)
        return scaled(image, self.augment, self.native), torch.from_numpy(labels)


@torch.inference_mode()
def confusion(
    model: Segmenter,
    samples: Sequence[Sample],
    multiscale: bool = False,
    native: bool = False,
    workers: int = 0,
    title: str = "evaluate",
    show: bool = True,
) -> torch.Tensor:
    """Counts (K K int64, row true, column predicted) of a model over labelled samples."""
    device = next(model.parameters()).device
    native = native or model.recipe.inference.native
    total = torch.zeros(len(model.classes), len(model.classes), dtype=torch.int64, device=device)
    dataset = _Decoded(samples, model.recipe.augment, native, multiscale)
    with loaded(dataset, min(workers, len(samples)), pin=device.type == "cuda") as decoded:
        stream = tqdm(decoded, title, len(samples), unit="image", leave=False, disable=not show)
        for part in (_counts_of_means if multiscale else _counts)(model, stream):
            total += part
    return total


def _counts(model: Segmenter, images: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[torch.Tensor]:
    """Counts (K K) of each image in one pass; images share passes through the network."""
    for logits, geometry, labels in logits_of_many(model, images):
        labels = labels.to(logits.device, non_blocking=logits.device.type == "cuda")[None]
        geometry = replace(geometry, final=tuple(labels.shape[1:]))
        yield upsample.confusion(logits, labels, geometry, model.classes.ignore)


def _counts_of_means(
    model: Segmenter, images: Iterable[tuple[list[torch.Tensor], torch.Tensor]]
) -> Iterator[torch.Tensor]:
    """Counts (K K) of each image at many scales."""
    for scales, labels in images:
        predicted = upsample.labels_of_mean(passes_at(model, scales, tuple(labels.shape)))
        labels = labels.to(predicted.device, non_blocking=predicted.device.type == "cuda")
        yield upsample.count(predicted, labels, len(model.classes), model.classes.ignore)


def evaluate_folder(
    model: Segmenter,
    data: config.Data,
    split: str = "auto",
    multiscale: bool = False,
    native: bool = False,
    workers: int = 0,
    alignment: Alignment = "auto",
) -> Scores | DepthScores:
    """Scores of a model over a split of a data set; `auto` is test, or val where test has no masks.

    Raises:
        UserError: the data has no such split, or other classes than the model, or as `evaluate`.
    """
    found = open_depth(data) if model.recipe.task == "depth" else open_data(data)
    if split == "auto":
        split = found.labelled_split()
        if split != "test":
            logger.warning("%s has no test images with %s: scored on %s", data.root, TARGETS[model.recipe.task], split)
    if found.classes.names != model.classes.names:
        raise UserError(
            f"{data.root} has the classes {_few(found.classes.names)}, the model {_few(model.classes.names)}; "
            "give the classes.yaml that the model was trained with: --data.classes FILE"
        )
    return evaluate(model, found.split(split), multiscale, native, workers, alignment=alignment)


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"


def evaluate(
    model: Segmenter,
    samples: Sequence[Sample] | Sequence[DepthSample],
    multiscale: bool = False,
    native: bool = False,
    workers: int = 0,
    show: bool = True,
    alignment: Alignment = "auto",
) -> Scores | DepthScores:
    """Scores of a model in evaluation mode over labelled samples; `alignment` is for depth (see `evaluate_depth`).

    Raises:
        UserError: there are no samples, or one of them has no mask or one of another size, or a setting is not for
            what the model does.
    """
    if model.recipe.task == "depth":
        refuse_multiscale(multiscale)
        return evaluate_depth(model, samples, alignment, native, workers, show)
    if alignment != "auto":
        raise UserError(f"alignment is {alignment!r}, but the model gives labels, which need none; leave it out")
    if not samples:
        raise UserError("there are no images to evaluate on; choose another split")
    counts = confusion(model, samples, multiscale, native, workers, show=show)
    return Scores(counts.cpu().numpy(), model.classes.names)
