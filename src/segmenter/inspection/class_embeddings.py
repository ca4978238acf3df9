"""Which classes a model holds to be alike: the vectors that stand for them, on two axes, and each one's nearest.

Source: Segmenter, arXiv 2105.05633, appendix (singular values of the class embeddings). A mask transformer has them
before its blocks, as weights, and after them, where they have met the patches of an image; every other decoder has the
rows of its last classifier. All are taken at length 1, since their direction is what a mask is compared with, and the
axes begin at their mean: what all classes have in common decides between none of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from segmenter.errors import UserError
from segmenter.inference.mode import evaluating
from segmenter.inference.predict import Photo
from segmenter.inspection.seen import windows_seen
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.devices import multiplying_in
from segmenter.model.segmenter import Segmenter


@dataclass(frozen=True)
class ClassEmbeddings:
    """One vector a class, and where they lie on the two axes on which they differ most."""

    title: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    vectors: np.ndarray
    """K D, each of length 1."""
    points: np.ndarray
    """K 2, around the mean of the vectors."""
    shares: tuple[float, float]
    """Of the variance, on each of the two axes."""
    steadiness: np.ndarray | None = None
    """K, 0 to 1: 1 where the vector was the same in all windows of all images; None for vectors that are weights."""

    def cosines(self) -> np.ndarray:
        """The cosine of each pair of classes (K K)."""
        return self.vectors @ self.vectors.T

    def nearest(self, count: int = 3) -> list[list[tuple[int, float]]]:
        """For every class the classes nearest to it and their cosines, the nearest first."""
        cosines = self.cosines()
        np.fill_diagonal(cosines, -np.inf)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(cosines) - 1)]
        return [[(int(other), float(cosines[i, other])) for other in others] for i, others in enumerate(order)]


def class_embeddings(model: Segmenter, images: Iterable[Photo] = (), native: bool = False) -> list[ClassEmbeddings]:
    """The vectors that stand for the classes in a model: before the mask transformer's blocks, or the classifier's.

    >>> model = segmenter.load("runs/first")
    >>> (found,) = segmenter.class_embeddings(model)
    >>> found.title, found.points.shape
    ('rows of the classifier (linear)', (3, 2))

    Args:
        model: in any mode.
        images: for a mask transformer: also the vectors after its blocks, averaged over all windows of these images.
        native: keep the photos' scale instead of bringing them to the training's.

    Raises:
        UserError: the model has no classes or only one, its weights are not finite, or there are images and the
            decoder's vectors do not depend on them.
    """
    decoder = model.decoder
    name = model.recipe.decoder.name
    if not decoder.class_dependent:
        raise UserError(f"a model of {model.recipe.task} has no classes ({name}); give a model that predicts labels")
    if len(model.classes) < 2:
        raise UserError("the model has one class, which can be compared with no other; give one with two or more")
    images = iter(images)
    first = next(images, None)
    if isinstance(decoder, MaskTransformer):
        found = [_placed(model, "class embeddings before the decoder", decoder.class_vectors())]
        if first is not None:
            mean = _mean_after(model, decoder, chain([first], images), native)
            found.append(_placed(model, "class embeddings after the decoder", mean, steadiness=True))
        return found
    if first is not None:
        raise UserError(
            f"the {name} decoder has the same class vectors for every image (the rows of its classifier); leave the "
            "images out"
        )
    return [_placed(model, f"rows of the classifier ({name})", decoder.class_vectors())]


@torch.inference_mode()
def _mean_after(model: Segmenter, decoder: MaskTransformer, images: Iterable[Photo], native: bool) -> Tensor:
    """The class embeddings after the decoder, averaged over all windows (K D, of length 1 where all agree)."""

    def each() -> Iterator[Tensor]:
        for image in images:
            for windows in windows_seen(model, image, native):
                with multiplying_in(model.precision, windows.device):
                    _, classes = decoder.compared([model.encoder(windows)])  # B K D
                yield from classes.double().cpu()

    total, count = 0, 0
    with evaluating(model):
        for classes in each():
            total, count = total + classes, count + 1
    return total / count


def _placed(model: Segmenter, title: str, vectors: Tensor, steadiness: bool = False) -> ClassEmbeddings:
    """Vectors (K D) at length 1, and on the two axes of their largest singular values."""
    found = vectors.detach().double().cpu().numpy()
    if not np.isfinite(found).all():
        raise UserError(f"the {title} hold values that are not finite; the model was saved from a broken training")
    lengths = np.linalg.norm(found, axis=1)
    found = found / np.maximum(lengths, np.finfo(float).tiny)[:, None]
    left, values, _ = np.linalg.svd(found - found.mean(0), full_matrices=False)
    points = np.zeros((len(found), 2))
    count = min(2, len(values))
    points[:, :count] = (left * values)[:, :count]
    # A singular vector has no sign of its own: the class that is farthest out gets the positive one.
    farthest = np.abs(points).argmax(0)
    points *= np.where(points[farthest, [0, 1]] < 0, -1.0, 1.0)
    shares = np.zeros(2)
    if (total := np.square(values).sum()) > 0:
        shares[:count] = np.square(values[:count]) / total
    return ClassEmbeddings(
        title,
        model.classes.names,
        model.classes.colors,
        found,
        points,
        (float(shares[0]), float(shares[1])),
        lengths if steadiness else None,
    )
