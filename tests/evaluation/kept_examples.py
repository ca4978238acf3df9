"""Evaluations made up from random label maps, for tests."""

import numpy as np

from segmenter.evaluation.kept_labels import BINS, BOUNDARIES, CONFUSIONS, OBJECTS, KeptLabels


def random_counts(images: int, classes: int, seed: int) -> np.ndarray:
    """Counts (N K K int64), half of them 0."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 1000, (images, classes, classes)) * random.integers(0, 2, (images, classes, classes))
    counts[:, range(classes), range(classes)] += 1000
    return counts


def kept_labels(counts: np.ndarray, names: tuple[str, ...] | None = None) -> KeptLabels:
    """What would be kept of images with these counts (N K K), with rows of every table for every image and class."""
    images, classes = counts.shape[:2]
    confusions = np.array([(i, t, p, counts[i, t, p]) for i, t, p in np.argwhere(counts).tolist()], CONFUSIONS)
    rows, columns, hits = counts.sum(2), counts.sum(1), np.einsum("ikk->ik", counts)
    each = [(i, k) for i in range(images) for k in range(classes)]
    objects = [(i, k, k % 3, 2, 1, rows[i, k], hits[i, k], columns[i, k] - hits[i, k]) for i, k in each]
    boundaries = [(i, k, rows[i, k] // 2, columns[i, k] // 2, hits[i, k] // 4) for i, k in each]
    calibration = np.zeros((images, BINS, 3))
    calibration[:, -1] = np.stack([rows.sum(1), 0.95 * rows.sum(1), hits.sum(1)], 1)
    return KeptLabels(
        classes=tuple(f"class {k}" for k in range(classes)),
        names=names or tuple(f"streets/{i}" for i in range(images)),
        sizes=np.full((images, 2), 64, np.int32),
        confusions=confusions,
        objects=np.array(objects, OBJECTS),
        boundaries=np.array(boundaries, BOUNDARIES),
        calibration=calibration,
        about={"model": "runs/first"},
    )
