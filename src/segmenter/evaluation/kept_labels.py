"""What an evaluation of labels keeps of every image, so that scores of any choice of images follow without the model.

Everything is whole pixels in sparse tables: sums over images are exact, and those of all images are the evaluation's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from segmenter.evaluation.metrics import Scores

SIZES = ("small", "medium", "large")
AREAS = (32**2, 96**2)  # pixels from which an object is medium, and above which it is large, as COCO has them
BOUNDARY = 0.02  # of the image's diagonal
BINS = 15  # of confidence, equally wide from 0 to 1
CONFUSIONS = np.dtype([("image", "i4"), ("true", "u2"), ("predicted", "u2"), ("pixels", "i8")])
OBJECTS = np.dtype([
    ("image", "i4"),
    ("class", "u2"),
    ("size", "u1"),  # index in SIZES
    ("objects", "i4"),
    ("found", "i4"),  # objects of which at least half the pixels are right
    ("pixels", "i8"),  # of these objects
    ("hits", "i8"),  # of them, predicted as this class
    ("wrong", "i8"),  # pixels predicted as this class that are not of it, charged to this size
])  # fmt: skip
BOUNDARIES = np.dtype([("image", "i4"), ("class", "u2"), ("true", "i8"), ("predicted", "i8"), ("hits", "i8")])
Measures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Confusion:
    """Pixels of one class that were taken for another."""

    true: int
    predicted: int
    pixels: int
    share: float
    """Of the pixels of the true class."""
    images: int
    """In how many images."""


@dataclass(frozen=True)
class KeptLabels:
    """The counts of N images and K classes; `image` in a table is a place in `names`."""

    task = "labels"
    classes: tuple[str, ...]
    names: tuple[str, ...]
    sizes: np.ndarray
    """N 2 int32: height and width of every image."""
    confusions: np.ndarray
    """CONFUSIONS, by image, true and predicted class; only what occurs."""
    objects: np.ndarray
    """OBJECTS, by image, class and size."""
    boundaries: np.ndarray
    """BOUNDARIES, by image and class: pixels near a contour of the truth, of the prediction, and of both."""
    calibration: np.ndarray
    """N BINS 3 float64: pixels, sum of their confidence, and how many of them are right."""
    areas: tuple[int, int] = AREAS
    """Pixels from which an object is medium, and above which it is large."""
    boundary: float = BOUNDARY
    """Width of the boundary in lengths of the image's diagonal."""
    about: dict = field(default_factory=dict)
    """What was evaluated: plain values for JSON."""

    def __len__(self) -> int:
        return len(self.names)

    # One image

    def confusion_of(self, image: int) -> np.ndarray:
        """Counts of one image (K K int64): row true, column predicted."""
        first, last = np.searchsorted(self.confusions["image"], [image, image + 1])
        return self._confusion(self.confusions[first:last])

    def scores_of(self, image: int) -> Scores:
        """The scores of one image."""
        return Scores(self.confusion_of(image), self.classes)

    @cached_property
    def per_image(self) -> Measures:
        """`measures` of every image by itself, but those of single classes: mean_iou (N) and so on; nan: no labels."""
        parts = [self.measures(self.sums(*part)) for part in self._parts()]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if "class" not in name}

    @cached_property
    def confidence(self) -> np.ndarray:
        """Mean confidence of every image's labelled pixels (N); nan where there are none."""
        pixels, confidence, _ = self.calibration.sum(1).T
        return ratio(confidence, pixels)

    # All images

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts of all images (K K int64): row true, column predicted."""
        return self._confusion(self.confusions)

    @property
    def scores(self) -> Scores:
        """The scores of all images, as `evaluate` gives them."""
        return Scores(self.confusion, self.classes)

    def confused(self, most: int = 20) -> list[Confusion]:
        """The pairs of classes that were confused on most pixels, most first."""
        wrong = self.confusions[self.confusions["true"] != self.confusions["predicted"]]
        pairs = wrong["true"].astype(np.int64) * len(self.classes) + wrong["predicted"]
        kinds, which, images = np.unique(pairs, return_inverse=True, return_counts=True)
        pixels = np.zeros(len(kinds), np.int64)
        np.add.at(pixels, which, wrong["pixels"])
        true_pixels = self.confusion.sum(1)
        return [
            Confusion(
                true := int(kinds[i] // len(self.classes)),
                int(kinds[i] % len(self.classes)),
                int(pixels[i]),
                float(pixels[i] / true_pixels[true]),
                int(images[i]),
            )
            for i in np.argsort(-pixels, kind="stable")[:most]
        ]

    def reliability(self) -> np.ndarray:
        """Of every bin of confidence (BINS 3): pixels, mean confidence, and share that is right; nan for empty bins."""
        pixels, confidence, right = self.calibration.sum(0).T
        return np.stack([pixels, ratio(confidence, pixels), ratio(right, pixels)], 1)

    # Choices of images

    def containing(self, true: int | None = None, predicted: int | None = None) -> np.ndarray:
        """Images (places in `names`) with pixels of a true class that are predicted as a class, most such first.

        None: any class.
        """
        chosen = np.ones(len(self.confusions), bool)
        for name, wanted in (("true", true), ("predicted", predicted)):
            if wanted is not None:
                chosen &= self.confusions[name] == wanted
        pixels = np.zeros(len(self), np.int64)
        np.add.at(pixels, self.confusions["image"][chosen], self.confusions["pixels"][chosen])
        order = np.argsort(-pixels, kind="stable")
        return order[pixels[order] > 0]

    def select(self, images: Sequence[int] | np.ndarray) -> "KeptLabels":
        """The same of some images alone: places in `names`, none twice, in the order wanted."""
        images = np.asarray(images, np.int64)
        place = np.full(len(self), -1)
        place[images] = np.arange(len(images))
        return replace(
            self,
            names=tuple(self.names[i] for i in images),
            sizes=self.sizes[images],
            calibration=self.calibration[images],
            **{name: _moved(getattr(self, name), place) for name in ("confusions", "objects", "boundaries")},
        )

    def same_truth(self, other: "KeptLabels") -> np.ndarray:
        """Of every image (N bool), whether another evaluation of the same images had the same size and class pixels."""
        same, truth = (self.sizes == other.sizes).all(1), slice(len(self.classes), 2 * len(self.classes))
        for part in self._parts():
            same[slice(*part)] &= (self.sums(*part)[:, truth] == other.sums(*part)[:, truth]).all(1)
        return same

    @property
    def definitions(self) -> str:
        """What measures depend on besides the pixels, in words."""
        low, high = self.areas
        return f"medium objects of {low} to {high} pixels, boundaries {self.boundary:g} of the diagonal wide"

    # Sums from which all measures follow, for bootstrap

    @property
    def columns(self) -> int:
        """F, the length of `sums`."""
        return (6 + 3 * len(SIZES)) * len(self.classes) + 3 * BINS

    def sums(self, first: int, last: int) -> np.ndarray:
        """What `measures` needs of the images from `first` to before `last` (n F float64); they add up over images."""
        classes, count = len(self.classes), last - first
        all_pixels, boundary = np.zeros((2, count, 3, classes))
        objects = np.zeros((count, len(SIZES), 3, classes))
        table = _between(self.confusions, first, last)
        image, pixels = table["image"] - first, table["pixels"]
        right = table["true"] == table["predicted"]
        np.add.at(all_pixels, (image[right], 0, table["true"][right]), pixels[right])
        np.add.at(all_pixels, (image, 1, table["true"]), pixels)
        np.add.at(all_pixels, (image, 2, table["predicted"]), pixels)
        table = _between(self.boundaries, first, last)
        for place, name in enumerate(("hits", "true", "predicted")):
            boundary[table["image"] - first, place, table["class"]] = table[name]
        table = _between(self.objects, first, last)
        for place, name in enumerate(("hits", "pixels", "wrong")):
            objects[table["image"] - first, table["size"], place, table["class"]] = table[name]
        parts = all_pixels, boundary, objects, self.calibration[first:last]
        return np.concatenate([part.reshape(count, math.prod(part.shape[1:])) for part in parts], 1)

    def measures(self, sums: np.ndarray) -> Measures:
        """Measures from sums (... F): each of shape (...), of classes (... K), or of sizes (... 3) and (... 3 K).

        `mean_iou`, `mean_accuracy` and `boundary_iou` are means over the classes that occur, `size_iou` over those
        with objects of the size; nan where nothing occurs. `calibration_error` is between 0 and 1.
        """
        classes, lead = len(self.classes), sums.shape[:-1]
        ends = np.cumsum([3 * classes, 3 * classes, 3 * len(SIZES) * classes])
        all_pixels, boundary, objects, bins = np.split(sums, ends, axis=-1)
        hits, true, predicted = np.moveaxis(all_pixels.reshape(*lead, 3, classes), -2, 0)
        near, near_true, near_predicted = np.moveaxis(boundary.reshape(*lead, 3, classes), -2, 0)
        size_hits, size_true, size_wrong = np.moveaxis(objects.reshape(*lead, len(SIZES), 3, classes), -2, 0)
        bin_pixels, confidence, right = np.moveaxis(bins.reshape(*lead, BINS, 3), -1, 0)
        iou, accuracy = ratio(hits, true + predicted - hits), ratio(hits, true)
        near_iou = ratio(near, near_true + near_predicted - near)
        size_iou = np.where(size_true > 0, ratio(size_hits, size_true + size_wrong), np.nan)
        return {
            "mean_iou": mean(iou),
            "mean_accuracy": mean(accuracy),
            "pixel_accuracy": ratio(hits.sum(-1), true.sum(-1)),
            "boundary_iou": mean(near_iou),
            "size_iou": mean(size_iou),
            "calibration_error": ratio(np.abs(confidence - right).sum(-1), bin_pixels.sum(-1)),
            "class_iou": iou,
            "class_accuracy": accuracy,
            "class_boundary_iou": near_iou,
            "class_size_iou": size_iou,
        }

    def _parts(self, together: int = 256) -> list[tuple[int, int]]:
        return [(first, min(first + together, len(self))) for first in range(0, max(len(self), 1), together)]

    def _confusion(self, table: np.ndarray) -> np.ndarray:
        counts = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(counts, (table["true"], table["predicted"]), table["pixels"])
        return counts


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not nan; nan where everything is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def _between(table: np.ndarray, first: int, last: int) -> np.ndarray:
    return table[slice(*np.searchsorted(table["image"], [first, last]))]


def _moved(table: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The rows of images that have a place, with it, in its order."""
    places = place[table["image"]]
    kept = table[places >= 0].copy()
    kept["image"] = places[places >= 0]
    return kept[np.argsort(kept["image"], kind="stable")]
