"""Attention rollout: how much of each patch of the photo has flowed to a token, if attention alone moves it.

Source: Abnar and Zuidema, arXiv 2005.00928: the product over layers of (A + 1) / 2, A the mean of the heads. Only the
row asked for is carried, from the last layer to the first, so that no product of T x T matrices is formed.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmenter.inspection.captured import Call, Part, capturing
from segmenter.model.segmenter import Segmenter


@torch.inference_mode()
def rollout(model: Segmenter, images: Tensor, patches: Tensor) -> Tensor:
    """The share of each patch of a normalised image (1 3 H W) in patches of the last layer.

    Args:
        model: in any mode; a decoder with attention is passed through too.
        images: one image, a window of a photo.
        patches: h w, how much each patch of the last layer counts; they should sum to 1.

    Returns:
        h w, what flowed from each patch. What came from the other tokens, such as the class token, is left out.
    """
    row, part = patches.flatten().float(), None  # of tokens
    for call in _from_the_last(model, images):
        if call.part != part:  # the tokens before and after the patches count nothing yet
            row, part = _among(row, call), call.part
        passed = torch.zeros_like(row)
        for tokens, band in call.bands():
            passed += row[tokens] @ band[0].mean(0)  # T
        row = (row + passed) / 2
        last = call
    return row[last.patches].unflatten(0, patches.shape)


def _among(row: Tensor, call: Call) -> Tensor:
    """A row over patches, or over patches and then classes, as one over the tokens of a call."""
    found = row.new_zeros(call.query.shape[2])
    count = call.patches.stop - call.patches.start
    found[call.patches] = row[:count]
    return found


def _from_the_last(model: Segmenter, images: Tensor) -> Iterator[Call]:
    """The attention of every block, the last one first.

    Queries and keys are kept. Masks of relative positions are not (heads x T x T each): of such a block attention is
    computed again when its turn comes.
    """
    kept: list[tuple[Part, int, Call | None]] = []
    with capturing(model, lambda call: kept.append((call.part, call.block, call if call.mask is None else None))):
        model(images)
    for number in range(len(kept) - 1, -1, -1):
        call = kept.pop()[2]
        yield call if call is not None else _again(model, images, number)


def _again(model: Segmenter, images: Tensor, number: int) -> Call:
    """The call of that number in another pass of the same image."""
    found: list[Call | None] = []
    with capturing(model, lambda call: found.append(call if len(found) == number else None)):
        model(images)
    return found[number]
