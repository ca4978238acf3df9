"""Losses of depth at pixels; NaN in the truth means that nothing was measured there.

Sources: scale-and-shift-invariant losses and gradient matching of MiDaS, arXiv 1907.01341, section 5 (equations 5 to
11); scale-invariant error of the logarithm, Eigen et al., arXiv 1406.2283, equation 4. MiDaS brings the true inverse
depth of a data set to one range first; here it is normalised image by image, so that no unit changes the weights.
"""

from collections.abc import Iterator

from torch import Tensor

GRADIENT_SCALES = 4
KEPT = 0.8  # of an image's residuals, the smallest, in the trimmed loss
LEAST_MEASURED = 2  # pixels: of fewer, a scale and a shift leave nothing to learn
TINY = 1e-6  # instead of a spread of zero


def counts(truth: Tensor) -> Tensor:
    """Which images (B bool) of a truth (B H W) have enough measurements to be learnt from."""
    return truth.isfinite().sum((1, 2)) >= LEAST_MEASURED


def inverse_loss(predicted: Tensor, truth: Tensor, kind: str, gradient_weight: float) -> Tensor:
    """Sum over the images of the loss between relative and true inverse depth, both B H W.

    Of kind `mse` the prediction is brought to the normalised truth by least squares; of kind `mae` and `trimmed` both
    are normalised. Then sum of the squares (or absolute values) of what remains, over twice the measured pixels.
    """
    total = 0 * predicted.sum()
    for image, true, measured in _images(predicted, truth):
        goal = normalized(true, measured)
        residual = (aligned(image, goal, measured) if kind == "mse" else normalized(image, measured)) - goal
        size = residual[measured].abs()
        if kind == "mse":
            size = size.square()
        elif kind == "trimmed":
            size = size.sort().values[: int(KEPT * len(size))]
        total = total + size.sum() / (2 * measured.sum())
        if gradient_weight:
            total = total + gradient_weight * gradient_matching(residual, measured)
    return total


def metric_loss(predicted: Tensor, truth: Tensor, kind: str) -> Tensor:
    """Sum over the images of the loss between predicted and true depth, both B H W in metres.

    Of kind `silog` sqrt(mean g^2 - (mean g)^2 / 2) with g the difference of the logarithms, of kind `l1` mean |error|.
    """
    total = 0 * predicted.sum()
    for image, true, measured in _images(predicted, truth):
        if kind == "l1":
            total = total + (image - true)[measured].abs().mean()
        else:
            ratio = image[measured].log() - true[measured].log()
            total = total + (ratio.square().mean() - ratio.mean().square() / 2).clamp(min=TINY).sqrt()
    return total


def aligned(image: Tensor, goal: Tensor, measured: Tensor) -> Tensor:
    """An image (H W) times the scale, plus the shift, that bring its measured pixels closest to the goal (H W).

    The scale's sign is left out: with it, an image that is upside down, near for far, would be as good as any. Without
    it, that costs more than a flat image, and the way to the right side goes downhill.
    """
    values, wanted = image[measured], goal[measured]
    spread = values - values.mean()
    scale = (spread * (wanted - wanted.mean())).sum().abs() / spread.square().sum().clamp(min=TINY)
    return (image - values.mean()) * scale + wanted.mean()


def normalized(image: Tensor, measured: Tensor) -> Tensor:
    """An image (H W) less its median, over its mean distance from the median, both of the measured pixels."""
    values = image[measured]
    shift = values.median()
    return (image - shift) / (values - shift).abs().mean().clamp(min=TINY)


def gradient_matching(residual: Tensor, measured: Tensor) -> Tensor:
    """Mean |difference| between neighbours of a residual (H W), right and below, summed over four scales.

    At scale k every 2^k-th pixel is taken; pairs of which one was not measured do not count.
    """
    total = residual.new_zeros(())
    for level in range(GRADIENT_SCALES):
        part, known = residual[:: 2**level, :: 2**level], measured[:: 2**level, :: 2**level]
        for axis in (0, 1):
            pairs = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
            total = total + part.diff(dim=axis)[pairs].abs().sum() / known.sum().clamp(min=1)
    return total


def _images(predicted: Tensor, truth: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Prediction, truth and what is measured, each H W, of every image that counts."""
    for image, true, enough in zip(predicted, truth, counts(truth), strict=True):
        if enough:
            measured = true.isfinite()
            yield image, true.nan_to_num(0, 0, 0), measured
