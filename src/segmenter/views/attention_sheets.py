"""The sheets of `explain`: what a patch or a class attends to, head by head, and what has decided it, side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from segmenter import upsample
from segmenter.inspection.attention import Attention
from segmenter.inspection.places import Box, Window
from segmenter.model.segmenter import Segmenter
from segmenter.views.asked import Subject
from segmenter.views.heat import color_bar, heat, mark, own_scale, shared_scale, spoken, times, tinted
from segmenter.views.sheets import Cell, Sheet, cell_size, draw_sheet

BAR = (420, 17)  # width, and size of the letters, of the colours' scale
SMALL_CELL = 280**2  # pixels, on sheets of many rows


def seen(photo: np.ndarray, box: Box, size: tuple[int, int]) -> Image.Image:
    """The part of a photo (H W 3 uint8) in a box, as a picture of a size (width, height)."""
    top, left = math.floor(box.top), math.floor(box.left)
    part = Image.fromarray(photo[top : math.ceil(box.bottom), left : math.ceil(box.right)])
    inside = (box.left - left, box.top - top, min(box.right - left, part.width), min(box.bottom - top, part.height))
    return part.resize(size, Image.Resampling.LANCZOS, box=inside)


def _shape(window: Window) -> tuple[float, float]:
    return window.box.bottom - window.box.top, window.box.right - window.box.left


def heads_sheet(
    photo: np.ndarray, subject: Subject, found: Attention, elsewhere: str, overview: Image.Image
) -> Image.Image:
    """Layers x heads, and their mean: the attention of one token.

    Args:
        photo: H W 3 uint8.
        subject: whose attention it is.
        found: that attention.
        elsewhere: name of the tokens that are no patches; empty if there are none.
        overview: the whole photo with the point, for the sheet's head.
    """
    values = found.maps * math.prod(found.window.grid)  # multiples of the even share
    values = np.concatenate([values, values.mean(1, keepdims=True)], 1)  # layers heads+1 h w
    others = found.others.sum(2)
    others = np.concatenate([others, others.mean(1, keepdims=True)], 1)  # layers heads+1
    heads = values.shape[1] - 1
    scale = shared_scale(values[:, :heads])
    base = seen(photo, subject.window.box, cell_size(heads + 1, _shape(subject.window)))
    rows = []
    for layer, maps, shares in zip(found.layers, values, others, strict=True):
        cells = []
        for values_of_head, share in zip(maps, shares, strict=True):
            caption = times(values_of_head.max()) + f", {percent(share)}" * bool(elsewhere)
            cells.append(Cell(_marked(heat(base, values_of_head, found.window, scale), subject), caption))
        rows.append((f"layer {layer}", cells))
    words = (
        f"Each picture is one head of one layer of the {found.part}: the attention that {subject.name} gives to every "
        f"patch, in multiples of the even share (1 of {math.prod(found.window.grid)}). What gets less stays dim. Below "
        "it the largest value" + f", and how much goes to {elsewhere}" * bool(elsewhere) + f".{subject.where}"
    )
    columns = [*(f"head {number}" for number in range(heads)), "mean of the heads"]
    title = f"What {subject.name} attends to"
    return draw_sheet(Sheet(title, words, columns, rows, color_bar(scale, *BAR), overview))


def _marked(picture: Image.Image, subject: Subject) -> Image.Image:
    if subject.marked is not None:
        mark(picture, subject.marked, subject.window.box)
    return picture


def classes_sheet(
    photo: np.ndarray,
    model: Segmenter,
    found: Sequence[tuple[Subject, Attention, torch.Tensor]],
) -> Image.Image:
    """What each class's embedding attends to in the layers of the decoder, and the mask that it ends in.

    Args:
        photo: H W 3 uint8.
        model: with a mask transformer.
        found: of each class itself, its attention, and the logits (1 K h w) of the window.
    """
    layers = found[0][1].layers
    maps = [attention.maps.mean(1) * math.prod(attention.window.grid) for _, attention, _ in found]  # layers h w
    scale = shared_scale(np.concatenate([values.ravel() for values in maps]))
    rows = []
    for (subject, attention, logits), values in zip(found, maps, strict=True):
        base = seen(photo, subject.window.box, cell_size(len(layers) + 2, _shape(subject.window), SMALL_CELL))
        shares = attention.others.mean(1)  # layers K
        cells = [Cell(base)]
        for value, share in zip(values, shares, strict=True):
            caption = f"{times(value.min())} to {times(value.max())}, {percent(share.sum())}"
            cells.append(Cell(heat(base, value, subject.window, scale), caption))
        mask = probability(model, subject.window, logits, subject.label, base.size[::-1])
        cells.append(
            Cell(tinted(base, mask, model.classes.colors[subject.label]), f"{percent(mask.mean())} of the picture")
        )
        rows.append((subject.caption, cells))
    several = any(subject.where for subject, _, _ in found)
    words = (
        "Each row is a class: the attention that its embedding gives to the patches in each layer of the decoder (mean "
        "of the heads, in multiples of the even share; below it the range, and how much goes to the classes "
        "themselves), and the probability of the class that comes of it."
        + " Each class is seen in the window where it is widest."
        * several
    )
    columns = ["photo", *(f"decoder layer {layer}" for layer in layers), "mask (probability)"]
    title = "What the classes attend to, and their masks"
    return draw_sheet(Sheet(title, words, columns, rows, color_bar(scale, *BAR)))


def percent(share: float) -> str:
    """A share in a few letters."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def probability(
    model: Segmenter, window: Window, logits: torch.Tensor, label: int, size: tuple[int, int]
) -> np.ndarray:
    """The probability (H W, 0 to 1) of a class in a window, at a size, from the window's logits (1 K h w)."""
    geometry = replace(model.geometry(*window.pixels.shape[1:]), final=size)
    bands = upsample.mean_probabilities([(logits, geometry)])
    return np.concatenate([part[label].cpu().numpy() for _, part in bands])


@dataclass(frozen=True)
class Ways:
    """What has decided a patch or a class, as several ways of asking have it; h w each."""

    subject: Subject
    shares: Mapping[str, np.ndarray]
    """Name of the way to the share of each patch; they sum to about 1."""
    relevance: np.ndarray
    """Negative where a patch spoke against the answer; without unit."""


def ways_sheet(photo: np.ndarray, found: Sequence[Ways]) -> Image.Image:
    """What has decided the patches or classes: a row each, a column for each way of asking."""
    names = list(dict.fromkeys(name for ways in found for name in ways.shares))
    rows = []
    for ways in found:
        subject = ways.subject
        base = seen(photo, subject.window.box, cell_size(len(names) + 2, _shape(subject.window), SMALL_CELL))
        cells: list[Cell | None] = [Cell(_marked(base.copy(), subject))]
        for name in names:
            if name not in ways.shares:
                cells.append(None)
                continue
            values = ways.shares[name] * ways.shares[name].size
            picture = _marked(heat(base, values, subject.window, own_scale(values)), subject)
            cells.append(Cell(picture, f"{times(values.min())} to {times(values.max())}"))
        pro = float(ways.relevance.clip(min=0).sum() / max(float(np.abs(ways.relevance).sum()), 1e-12))
        picture = _marked(spoken(base, ways.relevance, subject.window), subject)
        cells.append(Cell(picture, f"for {percent(pro)}, against {percent(1 - pro)}"))
        rows.append((subject.caption, cells))
    words = (
        "Attention: where the last layer looks. Rollout: what attention would carry there through all layers. Both "
        "from their smallest value (dim) to their largest hundredth (bright), with the ends below in multiples of the "
        "even share. Relevance: what the answer depends on; bright patches spoke for it, blue ones against it, with "
        "the share of both below."
    )
    return draw_sheet(Sheet("What has decided", words, ["photo", *names, "relevance"], rows))
