"""IoU by the size of objects: what is counted in one image for small, medium and large ones.

An object is a connected region of one class in the truth, or an instance where the data has instance maps; its size is
its area. Pixels of an object count for its size, right or wrong. Wrong pixels of a predicted region count for the size
of the objects of its class that it covers most, and for its own size where it covers none. So the sizes together hold
every pixel of the confusion matrix once. The table of Segmenter, arXiv 2105.05633, has no published code.
"""

import numpy as np

from segmenter.evaluation.components import Regions, regions
from segmenter.evaluation.kept_labels import OBJECTS, SIZES


def count_objects(
    truth: np.ndarray,
    predicted: np.ndarray,
    ignore: int,
    areas: tuple[int, int],
    instances: np.ndarray | None = None,
) -> np.ndarray:
    """Counts of an image (OBJECTS, image 0, by class and size) from its true and predicted labels (H W each).

    areas: pixels from which an object is medium, and above which it is large.
    """
    objects = regions(truth, instances)
    found = regions(np.where(truth == ignore, np.asarray(ignore, predicted.dtype), predicted))
    object_sizes = _sizes(objects.areas, areas)
    of_object, of_found, pixels = _overlaps(objects, found)
    right = objects.classes[of_object] == found.classes[of_found]
    of_object, of_found, pixels = of_object[right], of_found[right], pixels[right]
    hits = _summed(of_object, pixels, len(objects))
    covered = _summed(of_found * len(SIZES) + object_sizes[of_object], pixels, len(found) * len(SIZES))
    covered = covered.reshape(-1, len(SIZES))
    charged = np.where(covered.any(1), covered.argmax(1), _sizes(found.areas, areas))
    cells = object_sizes + len(SIZES) * objects.classes.astype(np.int64)
    cells_of_found = charged + len(SIZES) * found.classes.astype(np.int64)
    count = int(max(cells.max(), cells_of_found.max())) + 1
    counts = {
        "objects": _summed(cells, np.ones(len(objects)), count),
        "found": _summed(cells, 2 * hits >= objects.areas, count),
        "pixels": _summed(cells, objects.areas, count),
        "hits": _summed(cells, hits, count),
        "wrong": _summed(cells_of_found, found.areas - covered.sum(1), count),
    }
    cells = np.flatnonzero(counts["pixels"] + counts["wrong"])
    cells = cells[cells // len(SIZES) != ignore]
    table = np.zeros(len(cells), OBJECTS)
    table["class"], table["size"] = np.divmod(cells, len(SIZES))
    for name, values in counts.items():
        table[name] = values[cells]
    return table


def _overlaps(objects: Regions, found: Regions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels that lie in one region of each: the regions (R, R), and how many pixels (R); no pair once only."""
    one, other = objects.runs.ravel(), found.runs.ravel()
    begins = np.ones(one.size, bool)
    begins[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    begins = np.flatnonzero(begins)
    return objects.of_run[one[begins]], found.of_run[other[begins]], np.diff(begins, append=one.size)


def _summed(places: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of values by their places (count int64)."""
    return np.bincount(places, values, minlength=count).astype(np.int64)  # whole numbers below 2^53


def _sizes(pixels: np.ndarray, areas: tuple[int, int]) -> np.ndarray:
    """Places in SIZES of areas: small below the first limit, large above the second."""
    return (pixels >= areas[0]).astype(np.int64) + (pixels > areas[1])
