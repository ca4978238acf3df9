"""Labels against masks: counts (K K int64, row true, column predicted) of each image, and the scores of their sum."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.config import Alignment
from segmenter.errors import UserError
from segmenter.evaluation.metrics import Scores
from segmenter.inference.passes import passes_at
from segmenter.inference.windows import logits_of_many
from segmenter.model.segmenter import Segmenter


def refuse_alignment(model: Segmenter, alignment: Alignment) -> Alignment:
    """Refuses any alignment, which only depth needs.

    Raises:
        UserError: the alignment is not `auto`.
    """
    if alignment != "auto":
        raise UserError(
            f"alignment is {alignment!r}, but the model predicts {model.recipe.task}, which need none; leave it out"
        )
    return alignment


def zero(model: Segmenter) -> Tensor:
    """Counts (K K int64) over no images, on the model's device."""
    classes = len(model.classes)
    return torch.zeros(classes, classes, dtype=torch.int64, device=next(model.parameters()).device)


def counts(
    model: Segmenter, images: Iterator[tuple[Tensor, Tensor]], settings: config.Inference, _: Alignment
) -> Iterator[Tensor]:
    """Counts (K K) of each image in one pass; images share passes through the network."""
    for logits, geometry, labels in logits_of_many(model, images, settings):
        labels = labels.to(logits.device, non_blocking=logits.device.type == "cuda")[None]
        geometry = replace(geometry, final=tuple(labels.shape[1:]))
        yield upsample.confusion(logits, labels, geometry, model.classes.ignore)


def counts_at_scales(
    model: Segmenter, images: Iterator[tuple[list[Tensor], Tensor]], settings: config.Inference, _: Alignment
) -> Iterator[Tensor]:
    """Counts (K K) of each image at many scales."""
    for scales, labels in images:
        predicted = upsample.labels_of_mean(passes_at(model, scales, tuple(labels.shape), settings))
        labels = labels.to(predicted.device, non_blocking=predicted.device.type == "cuda")
        yield upsample.count(predicted, labels, len(model.classes), model.classes.ignore)


def scores(model: Segmenter, total: Tensor, _: Alignment) -> Scores:
    """The scores from the counts (K K)."""
    return Scores(total.cpu().numpy(), model.classes.names)
