"""What a model is compared with: the samples of a split, read and scaled in the processes that load images."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from segmenter import config
from segmenter.data.dataset import as_tensor
from segmenter.data.loader import loaded
from segmenter.data.samples import DataSet, Sample
from segmenter.data.tasks import TASKS as DATA
from segmenter.errors import UserError
from segmenter.inference.passes import at_scales, passes_at, scaled
from segmenter.inference.windows import logits_of_many
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.upsample.probabilities import Passes

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """An image on its way through the model."""

    place: int
    """Among all the samples."""
    scaled: Tensor | list[Tensor]
    """3 h w uint8, or several of them, one for every scale."""
    target: Tensor
    """H W."""
    instances: np.ndarray | None
    """H W, above 0 where an instance is known; None: the data set has no such map."""


class ScaledSamples(Dataset):
    """Samples as image (3 h w uint8) or its scales, and target (H W); if wanted also their instances, or None."""

    def __init__(
        self,
        samples: Sequence[Sample],
        scale: Callable[[np.ndarray], Tensor | list[Tensor]],
        instances: bool = False,
    ):
        self.samples, self.scale, self.instances = samples, scale, instances

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple:
        sample = self.samples[index]
        image, target = self.scale(sample.image()), as_tensor(sample.target())
        return (image, target, instances_of(sample, target)) if self.instances else (image, target)


def all_scales(image: np.ndarray, **options) -> list[Tensor]:
    """An image (H W 3 uint8) at every scale (3 h w uint8 each); options as of `at_scales`."""
    return list(at_scales(image, **options))


@runtime_checkable
class WithInstances(Protocol):
    """A sample that may have an instance map."""

    def instances(self) -> np.ndarray | None:
        """H W, above 0 where an instance is known; None: there is no map."""


def instances_of(sample: Sample, target: Tensor) -> np.ndarray | None:
    """A sample's instances (H W int32, above 0 where one is known), or None if it has no map of them.

    Raises:
        UserError: the map cannot be read, or has another size than the target (H W).
    """
    found = sample.instances() if isinstance(sample, WithInstances) else None
    if found is None:
        return None
    if found.shape != tuple(target.shape):
        sizes = [f"{height} x {width} (height x width)" for height, width in (found.shape, target.shape)]
        raise UserError(
            f"the instance map of {sample.name} is {sizes[0]}, but the mask is {sizes[1]}; export both at one size"
        )
    return found.astype(np.int32)


@contextmanager
def streamed(
    model: Segmenter,
    samples: Sequence[Sample],
    settings: config.Inference,
    multiscale: bool,
    workers: int,
    title: str,
    show: bool,
    instances: bool = False,
) -> Iterator[Iterator[tuple]]:
    """What `ScaledSamples` gives of the samples, in order, behind a progress bar; the loading ends with the block."""
    scale = partial(all_scales if multiscale else scaled, augment=model.recipe.augment, native=settings.native)
    inputs, pin = ScaledSamples(samples, scale, instances), next(model.parameters()).device.type == "cuda"
    with loaded(inputs, min(workers, len(samples)), pin=pin) as decoded:
        yield Progress(decoded, title, len(samples), unit="image", leave=False, disable=not show)


def labelled_passes(
    model: Segmenter, images: Iterator[Loaded], settings: config.Inference, multiscale: bool
) -> Iterator[tuple[Passes, Loaded]]:
    """The passes over each image that end at its target's size; images of other sizes may overtake each other."""
    if multiscale:
        for image in images:
            yield passes_at(model, image.scaled, tuple(image.target.shape), settings), image
        return
    tagged = ((image.scaled, image) for image in images)
    for logits, geometry, image in logits_of_many(model, tagged, settings):
        yield [(logits, replace(geometry, final=tuple(image.target.shape)))], image


class Chosen(NamedTuple):
    """Samples to compare a model with, and where they come from, as far as that is known."""

    samples: Sequence[Sample]
    split: str = ""
    settings: config.Data | None = None


def chosen(model: Segmenter, data: str | Path | config.Data | DataSet | Sequence[Sample], split: str) -> Chosen:
    """The samples of a split, if the model can be compared with them; a folder is opened as the model knows its data.

    Raises:
        UserError: the data cannot be opened, has no such split or no images in it, or has other classes than the model.
    """
    if isinstance(data, str | Path | config.Data):
        data = opened(model, data)
    found = _of_split(model, data, split) if isinstance(data, DataSet) else Chosen(data)
    if not found.samples:
        raise UserError("there are no images to evaluate on; choose another split")
    return found


def opened(model: Segmenter, data: str | Path | config.Data) -> DataSet:
    """A data set; a folder alone is opened as the model knows its data.

    Raises:
        UserError: it cannot be opened.
    """
    if not isinstance(data, config.Data):
        known = model.recipe.data
        # With another seed, a folder without splits would have training images in its test split.
        data = config.Data(
            str(data), split_seed=known.split_seed, depth_scale=known.depth_scale, depth_kind=known.depth_kind,
            unlabelled=known.unlabelled,
        )  # fmt: skip
    return DATA[model.recipe.task].open(data)


def _of_split(model: Segmenter, data: DataSet, split: str) -> Chosen:
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
    return Chosen(data.split(split), split, data.settings)


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
