"""Scores of a model on images with known targets: predictions are compared at the targets' own size, as is usual."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from torch.utils.data import Dataset

from segmenter import config
from segmenter.config import Alignment
from segmenter.data.dataset import as_tensor
from segmenter.data.loader import loaded
from segmenter.data.samples import DataSet, Sample
from segmenter.data.tasks import TASKS as DATA
from segmenter.errors import UserError
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.evaluation.metrics import Scores
from segmenter.evaluation.tasks import TASKS
from segmenter.inference.mode import evaluating
from segmenter.inference.passes import at_scales, effective_settings, scaled
from segmenter.inference.tasks import refuse_multiscale
from segmenter.model import processes
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.ranges import Processes, checked

logger = logging.getLogger(__name__)


class _ScaledSamples(Dataset):
    """Samples read and scaled in the loader's workers: image (3 h w uint8) or its scales, and target (H W)."""

    def __init__(self, samples: Sequence[Sample], scale: Callable[[np.ndarray], Tensor | list[Tensor]]):
        self.samples, self.scale = samples, scale

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor | list[Tensor], Tensor]:
        image, target = self.samples[index].image(), self.samples[index].target()
        return self.scale(image), as_tensor(target)


def _scales(image: np.ndarray, **options) -> list[Tensor]:
    return list(at_scales(image, **options))


@torch.inference_mode()
def totals(
    model: Segmenter,
    samples: Sequence[Sample],
    multiscale: bool = False,
    settings: config.Inference | None = None,
    alignment: Alignment = "auto",
    workers: Processes = 0,
    title: str = "evaluate",
    show: bool = True,
) -> Tensor | np.ndarray:
    """The sums from which a model's scores are computed, over labelled samples; those of parts of a data set add up.

    For labels the counts (K K int64, row true, column predicted), for depth the sums of `DepthScores` (1 + METRICS).

    Raises:
        UserError: one of the samples cannot be scored, or a setting is not for the model's task.
    """
    refuse_multiscale(model, multiscale)
    task, settings = TASKS[model.recipe.task], effective_settings(model, settings, False)
    alignment = task.alignment(model, alignment)
    scale = partial(_scales if multiscale else scaled, augment=model.recipe.augment, native=settings.native)
    counts = task.counts_at_scales if multiscale else task.counts
    pin = next(model.parameters()).device.type == "cuda"
    with evaluating(model), loaded(_ScaledSamples(samples, scale), min(workers, len(samples)), pin=pin) as decoded:
        stream = Progress(decoded, title, len(samples), unit="image", leave=False, disable=not show)
        return sum(counts(model, stream, settings, alignment), task.zero(model))


def totals_together(model: Segmenter, samples: Sequence[Sample], **options) -> Tensor | np.ndarray:
    """`totals` of samples that the processes share; all must call it with all the samples, and all have the sum.

    Raises:
        UserError: as `totals`, on all processes; where there are several, it has been printed once.
    """
    state = PartialState()
    if state.num_processes == 1:
        return totals(model, samples, **options)
    mine, show = samples[state.process_index :: state.num_processes], state.is_main_process
    with processes.together():
        counts = torch.as_tensor(totals(model, mine, **options | {"show": show and options.get("show", True)}))
    return reduce(counts.to(state.device), "sum").cpu()


@checked
def evaluate(
    model: Segmenter,
    data: str | Path | config.Data | DataSet | Sequence[Sample],
    multiscale: bool = False,
    native: bool = False,
    split: str = "auto",
    inference: config.Inference | None = None,
    alignment: Alignment = "auto",
    workers: Processes = 0,
    show: bool = True,
    together: bool = False,
) -> Scores | DepthScores:
    """Scores of a model over images whose masks, or depth maps, are known.

    >>> model = segmenter.load("runs/first")
    >>> scores = segmenter.evaluate(model, "photos", show=False)
    >>> 0 <= scores.mean_iou <= 1, scores.confusion.shape
    (True, (3, 3))
    >>> val = segmenter.open_data("photos").split("val")
    >>> print(segmenter.evaluate(model, val, native=True, show=False).table().splitlines()[0])
    class      IoU  accuracy  share of pixels

    Args:
        model: in any mode; it is scored in evaluation mode.
        data: a folder, which is split, and whose depth is read, according to the model's recipe; the result of
            `segmenter.open_data`, or samples of it.
        multiscale: mean of six scales and their mirror images; labels only.
        native: keep the images' scale, even if the settings do not say so.
        split: of a folder or data set; `auto`: test, or val where test has no masks.
        inference: windows and scale; None: those of the model's recipe.
        alignment: of predicted depth to the true one, image by image; `auto`: least_squares for relative models, none
            for metric ones.
        workers: processes that load images.
        show: a progress bar.
        together: share the images with the other processes that `accelerate launch` started, which must all call this;
            all have the scores of all images.

    Returns:
        `Scores` with `confusion` (K K: row true, column predicted), `iou` and `accuracy` (K, 0 to 1), `mean_iou`,
        `mean_accuracy` and `pixel_accuracy`; for a depth model `DepthScores`. Both have `to_dict()` and `table()`.

    Raises:
        UserError: the data cannot be opened, has no such split, or has other classes than the model; there are no
            samples, or one of them cannot be read or has no mask; or a setting does not apply to the model's task.
    """
    data = samples_of(model, data, split)
    task, settings = TASKS[model.recipe.task], effective_settings(model, inference, native)
    count = totals_together if together else totals
    options = {"multiscale": multiscale, "settings": settings, "alignment": alignment, "workers": workers}
    total = count(model, data, **options, show=show)
    return task.scores(model, total, task.alignment(model, alignment))


def samples_of(
    model: Segmenter, data: str | Path | config.Data | DataSet | Sequence[Sample], split: str
) -> Sequence[Sample]:
    """The samples of a split, if the model can be compared with them; a folder is opened as the model knows its data.

    Raises:
        UserError: the data cannot be opened, has no such split or no images in it, or has other classes than the model.
    """
    if isinstance(data, str | Path):
        known = model.recipe.data
        # With another seed, a folder without splits would have training images in its test split.
        data = config.Data(
            str(data), split_seed=known.split_seed, depth_scale=known.depth_scale, depth_kind=known.depth_kind
        )
    if isinstance(data, config.Data):
        data = DATA[model.recipe.task].open(data)
    if isinstance(data, DataSet):
        data = _split(model, data, split)
    if not data:
        raise UserError("there are no images to evaluate on; choose another split")
    return data


def _split(model: Segmenter, data: DataSet, split: str) -> Sequence[Sample]:
    """The samples of a split, if the model can be scored on them."""
    if split == "auto":
        split = data.labelled_split()
        if split != "test":
            word = DATA[data.task].words.word
            logger.warning("%s has no test images with %ss: scored on %s", data.settings.root, word, split)
    if data.classes.names != model.classes.names:
        raise UserError(
            f"{data.settings.root} has the classes {_few(data.classes.names)}, the model {_few(model.classes.names)}; "
            "give the classes.yaml that the model was trained with: --data.classes FILE"
        )
    return data.split(split)


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
