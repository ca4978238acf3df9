"""Evaluation that keeps the counts of every image: one pass, shared by the processes, and the folder that it fills."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from segmenter import config
from segmenter.data.samples import DataSet, Sample
from segmenter.evaluation import kept_folder
from segmenter.evaluation.inputs import Loaded, chosen, streamed
from segmenter.evaluation.keeping import Asked
from segmenter.evaluation.kept_folder import Kept
from segmenter.evaluation.tasks import TASKS
from segmenter.inference.mode import evaluating
from segmenter.model import processes
from segmenter.model.segmenter import Segmenter


def keep_in(
    folder: Path,
    model: Segmenter,
    data: str | Path | config.Data | DataSet | Sequence[Sample],
    split: str,
    asked: Asked,
    overwrite: bool = False,
    workers: int = 0,
    show: bool = True,
    together: bool = False,
    source: str = "",
) -> Kept:
    """Evaluates a model and writes what is kept of every image into a folder; arguments as of `evaluate`.

    Raises:
        UserError: as `evaluate`.
    """
    first, shared = _first(together), processes.together if together else nullcontext
    with shared():
        if first:
            kept_folder.claim(folder, overwrite)
        found = chosen(model, data, split)
    about = {"model": source, "split": found.split, "data": asdict(found.settings) if found.settings else {}}
    about |= {"multiscale": asked.multiscale, "inference": asdict(asked.settings)}
    about |= {"precision": str(model.precision).removeprefix("torch."), "segmenter": version("vit-segmenter")}
    about |= {"weights": fingerprint(model)}
    kept = keep(model, found.samples, asked, about, workers, show, together)
    with shared():
        if first:
            kept_folder.write(kept, folder)
    return kept


@torch.inference_mode()
def keep(
    model: Segmenter,
    samples: Sequence[Sample],
    asked: Asked,
    about: dict | None = None,
    workers: int = 0,
    show: bool = True,
    together: bool = False,
) -> Kept:
    """What is kept of samples, and with `about` what was evaluated.

    With `together` the processes share them: all must call it with all the samples, and all have the result.

    Raises:
        UserError: one of the samples cannot be scored.
    """
    state, task = PartialState(), TASKS[model.recipe.task]
    places = range(len(samples))
    if together:
        places, show = places[state.process_index :: state.num_processes], show and state.is_main_process
    mine = [samples[place] for place in places]
    options = asked.settings, asked.multiscale, workers, "evaluate", show, True
    shared = processes.together if together else nullcontext
    with shared(), evaluating(model), streamed(model, mine, *options) as stream:
        counts = list(task.count_images(model, _placed(places, stream), asked))
    if together and state.num_processes > 1:
        counts = gather_object(counts)
    counts = [of_image for _, of_image in sorted(counts, key=lambda counted: counted[0])]
    return task.collect(model, [sample.name for sample in samples], counts, asked, about or {})


def fingerprint(model: Segmenter) -> str:
    """The sha256 of what a model answers by: its weights, wherever they lie, and its temperature."""
    digest = hashlib.sha256(f"{model.temperature!r} ".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _placed(places: Sequence[int], stream: Iterator[tuple]) -> Iterator[Loaded]:
    for place, (scaled, target, instances) in zip(places, stream, strict=True):
        yield Loaded(place, scaled, target, None if instances is None else instances.numpy())


def _first(together: bool) -> bool:
    return not together or PartialState().is_main_process
