"""Scores of a model on images with known targets: predictions are compared at the targets' own size, as is usual."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from segmenter import config
from segmenter.config import Alignment
from segmenter.data.samples import DataSet, Sample
from segmenter.errors import UserError
from segmenter.evaluation.depth_metrics import DepthScores
from segmenter.evaluation.inputs import chosen, streamed
from segmenter.evaluation.keep import keep_in
from segmenter.evaluation.keeping import Asked
from segmenter.evaluation.metrics import Scores
from segmenter.evaluation.tasks import TASKS
from segmenter.inference.mode import evaluating
from segmenter.inference.passes import effective_settings
from segmenter.inference.tasks import refuse_multiscale
from segmenter.model import processes
from segmenter.model.segmenter import Segmenter
from segmenter.ranges import Count, Factor, Processes, checked


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
    counts = task.counts_at_scales if multiscale else task.counts
    with evaluating(model), streamed(model, samples, settings, multiscale, workers, title, show) as stream:
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
    out: str | Path | None = None,
    overwrite: bool = False,
    areas: tuple[Count, Count] | None = None,
    boundary: Factor | None = None,
    source: str = "",
) -> Scores | DepthScores:
    """Scores of a model over images whose masks, or depth maps, are known.

    >>> model = segmenter.load("runs/first")
    >>> scores = segmenter.evaluate(model, "photos", show=False)
    >>> 0 <= scores.mean_iou <= 1, scores.confusion.shape
    (True, (3, 3))
    >>> val = segmenter.open_data("photos").split("val")
    >>> print(segmenter.evaluate(model, val, native=True, show=False).table().splitlines()[0])
    class      IoU  accuracy  share of pixels
    >>> _ = segmenter.evaluate(model, "photos", out="evaluation", show=False)  # and what follows from each image
    >>> from segmenter.evaluation import kept_folder
    >>> kept_folder.read("evaluation").per_image["mean_iou"].shape
    (2,)

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
        out: folder for scores.json and images.npz: also IoU by size of objects and at boundaries, calibration,
            intervals, and what `kept_folder.read` gives back of every image.
        overwrite: replace an evaluation that is there.
        areas: with `out`: pixels from which an object is medium, and above which it is large; None: 1024 and 9216.
        boundary: with `out`: the boundary's width in lengths of the image's diagonal; None: 0.02.
        source: with `out`: where the model is from, to be written there.

    Returns:
        `Scores` with `confusion` (K K: row true, column predicted), `iou` and `accuracy` (K, 0 to 1), `mean_iou`,
        `mean_accuracy` and `pixel_accuracy`; for a depth model `DepthScores`. Both have `to_dict()` and `table()`.

    Raises:
        UserError: the data cannot be opened, has no such split, or has other classes than the model; there are no
            samples, or one of them cannot be read or has no mask; or a setting does not apply to the model's task;
            or `out` holds files of others, or an evaluation without `overwrite`.
    """
    of_kept = {"overwrite": overwrite or None, "areas": areas, "boundary": boundary}
    if out is None and (unread := [name for name, value in of_kept.items() if value is not None]):
        raise UserError(f"{unread[0]} is set, but is only for what out writes; give a folder (--out), or leave it out")
    refuse_multiscale(model, multiscale)
    task, settings = TASKS[model.recipe.task], effective_settings(model, inference, native)
    alignment = task.alignment(model, alignment)
    if out is not None:
        asked = Asked(settings, multiscale, alignment, *task.definitions(areas, boundary))
        return keep_in(Path(out), model, data, split, asked, overwrite, workers, show, together, source).scores
    count = totals_together if together else totals
    options = {"multiscale": multiscale, "settings": settings, "alignment": alignment, "workers": workers}
    total = count(model, chosen(model, data, split).samples, **options, show=show)
    return task.scores(model, total, alignment)
