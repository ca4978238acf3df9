"""A model and labelled samples to scores: predictions at the labels' own size, as the field requires."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from segmenter import config, upsample
from segmenter.data.layouts import Sample, open_data
from segmenter.errors import UserError
from segmenter.evaluation.loader import loaded
from segmenter.evaluation.metrics import Scores
from segmenter.inference.passes import many_passes, one_pass, scaled
from segmenter.model.segmenter import Segmenter


class _Decoded(Dataset):
    """Samples read, and scaled for one pass, in the loader's workers."""

    def __init__(self, samples: Sequence[Sample], augment: config.Augment, native: bool, multiscale: bool):
        self.samples, self.augment, self.native, self.multiscale = samples, augment, native, multiscale

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray | torch.Tensor, torch.Tensor]:
        image, labels = self.samples[index].image(), self.samples[index].labels()
        small = image if self.multiscale else scaled(image, self.augment, self.native)
        return small, torch.from_numpy(labels.astype(np.int64))


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
    total = torch.zeros(len(model.classes), len(model.classes), dtype=torch.int64, device=device)
    decoded = loaded(_Decoded(samples, model.recipe.augment, native, multiscale), min(workers, len(samples)))
    for image, labels in tqdm(decoded, title, len(samples), unit="image", leave=False, disable=not show):
        labels = labels.to(device)[None]
        if multiscale:
            predicted = upsample.labels_of_mean(many_passes(model, np.asarray(image), native))[None]
            total += upsample.count(predicted, labels, len(model.classes), model.classes.ignore)
        else:
            logits, geometry = one_pass(model, image, tuple(labels.shape[1:]))
            total += upsample.confusion(logits, labels, geometry, model.classes.ignore)
    return total


def evaluate_folder(
    model: Segmenter, data: config.Data, split: str, multiscale: bool = False, native: bool = False, workers: int = 0
) -> Scores:
    """Scores of a model over a split of a data set.

    Raises:
        UserError: the data has no such split, or other classes than the model.
    """
    found = open_data(data)
    if found.classes.names != model.classes.names:
        raise UserError(
            f"{data.root} has the classes {_few(found.classes.names)}, the model {_few(model.classes.names)}; "
            "give the classes.yaml that the model was trained with: --classes FILE"
        )
    return evaluate(model, found.split(split), multiscale, native, workers)


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"


def evaluate(
    model: Segmenter,
    samples: Sequence[Sample],
    multiscale: bool = False,
    native: bool = False,
    workers: int = 0,
    show: bool = True,
) -> Scores:
    """Scores of a model in evaluation mode over labelled samples.

    Raises:
        UserError: there are no samples, or one of them has no mask or one of another size.
    """
    if not samples:
        raise UserError("there are no images to evaluate on; choose another split")
    counts = confusion(model, samples, multiscale, native, workers, show=show)
    return Scores(counts.cpu().numpy(), model.classes.names)
