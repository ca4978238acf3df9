"""Labels and their confidence against masks: what is kept of each image, and of all of them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from segmenter import upsample
from segmenter.errors import UserError
from segmenter.evaluation.boundaries import count_boundaries
from segmenter.evaluation.confusions import count_confusions
from segmenter.evaluation.inputs import Loaded, labelled_passes
from segmenter.evaluation.keeping import Asked, Counts
from segmenter.evaluation.kept_labels import AREAS, BINS, BOUNDARIES, BOUNDARY, CONFUSIONS, OBJECTS, KeptLabels
from segmenter.evaluation.object_sizes import count_objects
from segmenter.evaluation.reliability import image_bins
from segmenter.model.segmenter import Segmenter

COUNTERS = 2  # threads; an image of 512 x 683 takes one 15 ms


def definitions(areas: tuple[int, int] | None, boundary: float | None) -> tuple[tuple[int, int], float]:
    """The limits of the sizes and the width of the boundary; None: as usual.

    Raises:
        UserError: the first limit is above the second.
    """
    areas = AREAS if areas is None else tuple(areas)
    if areas[0] > areas[1]:
        raise UserError(
            f"areas are {areas[0]} {areas[1]}, but no object has {areas[0]} pixels or more and {areas[1]} or fewer; "
            f"write the smaller first: {areas[1]} {areas[0]}"
        )
    return areas, BOUNDARY if boundary is None else boundary


def count_images(model: Segmenter, images: Iterator[Loaded], asked: Asked) -> Iterator[tuple[int, Counts]]:
    """The place and the counts of each image; images of other sizes may overtake each other."""
    classes, ignore = len(model.classes), model.classes.ignore
    dtype = torch.uint8 if classes <= 256 else torch.int32
    counted: deque[Future] = deque()
    with ThreadPoolExecutor(COUNTERS) as counters:  # NumPy counts while the model, on a GPU or not, goes on
        for passes, image in labelled_passes(model, images, asked.settings, asked.multiscale):
            labels, top = upsample.confidence(passes, model.temperature, dtype)
            on_device = image.target.to(labels.device, non_blocking=labels.device.type == "cuda")
            bins = image_bins(top, labels, on_device, ignore)
            counted.append(counters.submit(_counts, image, labels.cpu().numpy(), bins, ignore, classes, asked))
            if len(counted) > COUNTERS:
                yield counted.popleft().result()
        while counted:
            yield counted.popleft().result()


def _counts(
    image: Loaded, predicted: np.ndarray, bins: np.ndarray, ignore: int, classes: int, asked: Asked
) -> tuple[int, Counts]:
    truth = image.target.numpy()
    return image.place, {
        "sizes": np.array(truth.shape, np.int32),
        "confusions": count_confusions(truth, predicted, ignore, classes),
        "objects": count_objects(truth, predicted, ignore, asked.areas, image.instances),
        "boundaries": count_boundaries(truth, predicted, ignore, asked.boundary),
        "calibration": bins,
    }


def collect(model: Segmenter, names: Sequence[str], counts: Sequence[Counts], asked: Asked, about: dict) -> KeptLabels:
    """What is kept of all images, from the counts of each, in order."""
    return KeptLabels(
        classes=tuple(model.classes.names),
        names=tuple(names),
        sizes=np.array([one["sizes"] for one in counts], np.int32).reshape(-1, 2),
        calibration=np.array([one["calibration"] for one in counts], np.float64).reshape(-1, BINS, 3),
        areas=asked.areas,
        boundary=asked.boundary,
        about=about | {"temperature": model.temperature},
        **{
            name: _one_table([one[name] for one in counts], dtype)
            for name, dtype in (("confusions", CONFUSIONS), ("objects", OBJECTS), ("boundaries", BOUNDARIES))
        },
    )


def _one_table(tables: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    whole = np.concatenate([np.empty(0, dtype), *tables])
    whole["image"] = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return whole
