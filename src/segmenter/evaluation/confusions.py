"""Counts of (true class, predicted class) in one image, as a sparse table: however many classes, few pairs occur."""

import numpy as np

from segmenter.evaluation.kept_labels import CONFUSIONS


def count_confusions(truth: np.ndarray, predicted: np.ndarray, ignore: int, classes: int) -> np.ndarray:
    """Counts of an image (CONFUSIONS, image 0, by true and predicted class) from its labels (H W each).

    Raises:
        ValueError: a true label is neither a class nor ignored.
    """
    true, found = truth.ravel(), predicted.ravel()
    begins = np.ones(true.size, bool)
    begins[1:] = (true[1:] != true[:-1]) | (found[1:] != found[:-1])
    begins = np.flatnonzero(begins)  # of runs along the rows, of which there are far fewer than pixels
    lengths, true, found = np.diff(begins, append=true.size), true[begins].astype(np.int64), found[begins]
    known = true != ignore
    lengths, true, found = lengths[known], true[known], found[known]
    if true.max(initial=0) >= classes:
        raise ValueError(f"the labels hold {true.max()}, but there are {classes} classes, and {ignore} is ignored")
    pairs, which = np.unique(true * classes + found, return_inverse=True)
    table = np.zeros(len(pairs), CONFUSIONS)
    table["true"], table["predicted"] = np.divmod(pairs, classes)
    np.add.at(table["pixels"], which, lengths)
    return table
