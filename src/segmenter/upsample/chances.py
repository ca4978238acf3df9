"""The probability of one class at every pixel: of the label that the model gives it, its confidence, or of any other.

No temperature changes a label: it leaves the order of the probabilities as it is.
"""

import math

import torch
from torch import Tensor

from segmenter.upsample.argmax import labels as labels_of_one
from segmenter.upsample.precision import exact
from segmenter.upsample.probabilities import Mean, Passes


@torch.no_grad()
@exact
def confidence(passes: Passes, temperature: float = 1.0, dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    """Passes over ONE image to labels (H W, `dtype` as in `labels`) and their probabilities (H W float32, 0 to 1).

    The labels are those of `labels` for one pass and of `labels_of_mean` for several, whatever the temperature. Where
    logits are not finite, the probability may be nan.

    Raises:
        ValueError: the temperature is not above 0; the passes end at different sizes, or one holds several images.
    """
    mean = Mean(passes, temperature)
    if mean.alone:  # most of its logits need not be known for the labels
        labels = labels_of_one(*passes[0], dtype)[0]
        return labels, probability_of(passes, labels, temperature)
    labels = torch.empty(passes[0][1].size, dtype=dtype, device=mean.device)
    top = labels.new_empty(labels.shape, dtype=torch.float32)

    def fill(rows: slice, columns: slice, tile: Tensor) -> None:
        best, winner = tile.max(0)
        labels[rows, columns] = winner.to(dtype)
        top[rows, columns] = best if temperature == 1 else mean.tempered(tile).amax(0)

    mean.each_tile(fill)
    return labels, top


@torch.no_grad()
@exact
def probability_of(passes: Passes, labels: Tensor, temperature: float = 1.0, ignore: int | None = None) -> Tensor:
    """Passes over ONE image to the probability of a given label at every pixel (H W float32); nan where ignored.

    Raises:
        ValueError: as `confidence`; or the labels (H W) have another size, or one of them is not a class.
    """
    mean = Mean(passes, temperature)
    _check_labels(labels, passes, ignore)
    chances = torch.empty(labels.shape, device=mean.device)

    def fill(rows: slice, columns: slice, tile: Tensor) -> None:
        here, tile = labels[rows, columns].long(), mean.tempered(tile)
        if ignore is None:
            chances[rows, columns] = tile.gather(0, here[None])[0]
            return
        ignored = here == ignore
        found = tile.gather(0, here.masked_fill(ignored, 0)[None])[0]
        chances[rows, columns] = found.masked_fill(ignored, math.nan)

    mean.each_tile(fill)
    return chances


def _check_labels(labels: Tensor, passes: Passes, ignore: int | None) -> None:
    size, classes = passes[0][1].size, passes[0][0].shape[1]
    if tuple(labels.shape) != size:
        raise ValueError(f"labels of shape {tuple(labels.shape)} for passes that end at {size}")
    known = labels if ignore is None else labels.masked_fill(labels == ignore, 0)
    least, most = map(int, known.aminmax())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise ValueError(f"the labels hold {wrong}, but there are {classes} classes, and {ignore} is ignored")
