"""Confidence against truth in bins: of the pixels that a model is 80 % sure of, are 80 % right?

Source: expected calibration error with bins of equal width, arXiv 1706.04599, section 2, over all labelled pixels.
"""

import math

import numpy as np
import torch
from torch import Tensor

from segmenter.evaluation.kept_labels import BINS

STEPS = 2**20  # of confidence from 0 to 1: whole numbers add up the same in any order, on any device


def image_bins(top: Tensor, predicted: Tensor, truth: Tensor, ignore: int) -> np.ndarray:
    """Confidence, predicted and true labels of an image (H W each) to bins (BINS 3 float64), which add up over images.

    Of each bin: pixels, the sum of their confidence (each rounded to 1 / STEPS), and how many are right. Bin i holds
    what is above i / BINS up to (i + 1) / BINS; pixels whose true label is ignored are left out.
    """
    known = truth != ignore
    top = top[known].nan_to_num(0).clamp(0, 1)
    found = (top * BINS).ceil_().long().sub_(1).clamp_(min=0)
    right = predicted[known] == truth[known]
    bins = torch.zeros(3, BINS, dtype=torch.int64, device=top.device)
    bins[0] = torch.bincount(found, minlength=BINS)
    bins[1].scatter_add_(0, found, (top * STEPS).round_().long())
    bins[2] = torch.bincount(found[right], minlength=BINS)
    counts = bins.T.cpu().numpy().astype(np.float64)
    counts[:, 1] /= STEPS
    return counts


def expected_error(bins: np.ndarray) -> float:
    """The expected calibration error (0 to 1) of bins (BINS 3); nan without pixels."""
    pixels, confidence, right = bins.T
    return float(np.abs(confidence - right).sum() / pixels.sum()) if pixels.any() else math.nan
