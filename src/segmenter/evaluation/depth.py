"""A model of depth and samples with depth to scores, at the truth's own size."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from segmenter import config
from segmenter.config import Alignment
from segmenter.data.depth_data import DepthSample
from segmenter.data.loader import loaded
from segmenter.errors import UserError
from segmenter.evaluation.depth_metrics import METRICS, DepthScores, image_sums
from segmenter.inference.depth import inverse_depth
from segmenter.inference.passes import scaled
from segmenter.model.segmenter import Segmenter


class _Decoded(Dataset):
    """Samples read and scaled in the loader's workers."""

    def __init__(self, samples: Sequence[DepthSample], augment: config.Augment, native: bool):
        self.samples, self.augment, self.native = samples, augment, native

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = self.samples[index]
        return scaled(sample.image(), self.augment, self.native), torch.from_numpy(sample.inverse_depth())


def usual_alignment(model: Segmenter) -> Alignment:
    """None for a metric model; relative inverse depth needs scale and shift."""
    return "none" if model.recipe.depth.target == "metric" else "least_squares"


def depth_sums(
    model: Segmenter,
    samples: Sequence[DepthSample],
    alignment: Alignment,
    native: bool = False,
    workers: int = 0,
    title: str = "evaluate",
    show: bool = True,
) -> np.ndarray:
    """What `DepthScores` is made of, summed over the samples: parts of a data set add up."""
    native = native or model.recipe.inference.native
    total = np.zeros(1 + len(METRICS))
    dataset = _Decoded(samples, model.recipe.augment, native)
    with loaded(dataset, min(workers, len(samples))) as decoded:
        for image, truth in tqdm(decoded, title, len(samples), unit="image", leave=False, disable=not show):
            predicted = inverse_depth(model, image, tuple(truth.shape)).cpu().numpy()
            total += image_sums(predicted, truth.numpy(), alignment, model.recipe.depth.max_depth)
    return total


def evaluate_depth(
    model: Segmenter,
    samples: Sequence[DepthSample],
    alignment: Alignment = "auto",
    native: bool = False,
    workers: int = 0,
    show: bool = True,
) -> DepthScores:
    """Scores of a depth model in evaluation mode; predictions aligned to the truth as told, or as its target needs.

    Raises:
        UserError: there are no samples or nothing in them can be scored, one has no usable depth map, or a relative
            model is to be scored without alignment.
    """
    if not samples:
        raise UserError("there are no images to evaluate on; choose another split")
    alignment = usual_alignment(model) if alignment == "auto" else alignment
    if alignment == "none" and model.recipe.depth.target == "inverse":
        raise UserError(
            "the model gives inverse depth up to an unknown scale and shift, which alignment none cannot score; "
            "write least_squares"
        )
    scores = DepthScores(depth_sums(model, samples, alignment, native, workers, show=show), alignment)
    if not scores.images:
        raise UserError(
            f"nothing measured lies within depth.max_depth, {model.recipe.depth.max_depth:g} m; is data.depth_scale "
            "the number in the maps that means one metre?"
        )
    return scores
