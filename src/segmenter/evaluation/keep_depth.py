"""Predicted against measured depth: what is kept of each image, and of all of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from segmenter.errors import UserError
from segmenter.evaluation import depth
from segmenter.evaluation.depth_metrics import METRICS, aligned_depth, errors
from segmenter.evaluation.inputs import Loaded
from segmenter.evaluation.keeping import Asked, Counts
from segmenter.evaluation.kept_depth import BY_DISTANCE, DISTANCES, KeptDepth
from segmenter.inference.depth import inverse_depth
from segmenter.model.segmenter import Segmenter


def definitions(areas: tuple[int, int] | None, boundary: float | None) -> tuple[()]:
    """None: depth has no objects and no boundaries.

    Raises:
        UserError: their settings were given.
    """
    if areas is not None or boundary is not None:
        name = "boundary" if areas is None else "areas"
        raise UserError(f"{name} is set, but the model is one of depth, without objects and boundaries; leave it out")
    return ()


def edges(max_depth: float) -> tuple[float, ...]:
    """The ends of the ranges of true depth, in metres: each as long as all before it."""
    return (0.0, *(max_depth / 2**power for power in reversed(range(DISTANCES))))


def count_images(model: Segmenter, images: Iterator[Loaded], asked: Asked) -> Iterator[tuple[int, Counts]]:
    """The place of each image, its errors and their sums by distance."""
    for image in images:
        truth = image.target.numpy()
        predicted = inverse_depth(model, image.scaled, truth.shape).cpu().numpy()
        yield image.place, count(predicted, truth, asked, model.recipe.depth.max_depth)


def count(predicted: np.ndarray, truth: np.ndarray, asked: Asked, max_depth: float) -> Counts:
    """The counts of one image from inverse depth (H W each)."""
    found_depth, true = aligned_depth(predicted, truth, asked.alignment, max_depth)
    found = {
        "sizes": np.array(truth.shape, np.int32),
        "errors": np.zeros(1 + len(METRICS)),
        "distances": np.zeros((DISTANCES, len(BY_DISTANCE))),
    }
    if len(true):
        found["errors"] = np.concatenate([[1.0], errors(found_depth, true)])
        # What was measured as 80 m may be a hair more in metres, since its inverse is rounded.
        at = np.minimum(np.digitize(true, edges(max_depth)[1:], right=True), DISTANCES - 1)
        off = np.abs(found_depth - true)
        ratio = np.maximum(found_depth / true, true / found_depth)
        for column, values in enumerate((None, off / true, off**2, ratio < 1.25)):
            found["distances"][:, column] = np.bincount(at, values, DISTANCES)
    return found


def collect(model: Segmenter, names: Sequence[str], counts: Sequence[Counts], asked: Asked, about: dict) -> KeptDepth:
    """What is kept of all images, from the counts of each, in order.

    Raises:
        UserError: no pixel of the images could be scored.
    """
    kept = KeptDepth(
        names=tuple(names),
        sizes=np.array([one["sizes"] for one in counts], np.int32).reshape(-1, 2),
        errors=np.array([one["errors"] for one in counts]),
        distances=np.array([one["distances"] for one in counts]),
        edges=edges(model.recipe.depth.max_depth),
        alignment=asked.alignment,
        about=about,
    )
    depth.scores(model, kept.scores.sums, asked.alignment)
    return kept
