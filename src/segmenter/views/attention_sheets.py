"""The sheets of `explain`: what a patch or a class attends to, head by head, and what has decided it, side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from segmenter import upsample
from segmenter.inspection.attention import Attention
from segmenter.inspection.places import Box, Point, Window
from segmenter.model.segmenter import Segmenter
from segmenter.views.heat import color_bar, heat, mark, own_scale, shared_scale, times, tinted
from segmenter.views.sheets import Cell, Sheet, cell_size, draw_sheet

BAR = (420, 17)  # width, and size of the letters, of the colours' scale
SMALL_CELL = 280**2  # pixels, on sheets of many rows


@dataclass(frozen=True)
class Subject:
    """A patch or a class that is looked at."""

    name: str
    """For titles: "the patch at x 3, y 4 (car)" or "class car"."""
    caption: str
    """For rows: "point 2" and "car" on two lines, or "car"."""
    window: Window
    at: Point | None = None
    """The patch's point; None for a class."""

    @property
    def marked(self) -> Box | None:
        """Where the patch lies on the photo."""
        return self.window.patch_box(*self.window.patch(self.at)) if self.at is not None else None

    @property
    def where(self) -> str:
        """A sentence that names the window, where there are several."""
        one = self.window.rows * self.window.columns == 1
        return "" if one else f" Seen in {self.window.describe()}."


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
    found: Sequence[tuple[int, Subject, Attention, torch.Tensor]],
) -> Image.Image:
    """What each class's embedding attends to in the layers of the decoder, and the mask that it ends in.

    Args:
        photo: H W 3 uint8.
        model: with a mask transformer.
        found: of each class its id, itself, its attention, and the logits (1 K h w) of the window.
    """
    layers = found[0][2].layers
    maps = [attention.maps.mean(1) * math.prod(attention.window.grid) for _, _, attention, _ in found]  # layers h w
    scale = shared_scale(np.concatenate([values.ravel() for values in maps]))
    rows = []
    for (label, subject, attention, logits), values in zip(found, maps, strict=True):
        base = seen(photo, subject.window.box, cell_size(len(layers) + 2, _shape(subject.window), SMALL_CELL))
        shares = attention.others.mean(1)  # layers K
        cells = [Cell(base)]
        for value, share in zip(values, shares, strict=True):
            caption = f"{times(value.min())} to {times(value.max())}, {percent(share.sum())}"
            cells.append(Cell(heat(base, value, subject.window, scale), caption))
        mask = probability(model, subject.window, logits, label, base.size[::-1])
        cells.append(Cell(tinted(base, mask, model.classes.colors[label]), f"{percent(mask.mean())} of the picture"))
        rows.append((subject.caption, cells))
    several = any(subject.where for _, subject, _, _ in found)
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


def ways_sheet(photo: np.ndarray, found: Sequence[tuple[Subject, Mapping[str, np.ndarray]]]) -> Image.Image:
    """What has decided the patches or classes, as several ways of asking have it: a row each.

    Args:
        photo: H W 3 uint8.
        found: whom a row is about, and the map (h w, shares that sum to about 1) of each way.
    """
    names = list(dict.fromkeys(name for _, ways in found for name in ways))
    rows = []
    for subject, ways in found:
        base = seen(photo, subject.window.box, cell_size(len(names) + 1, _shape(subject.window), SMALL_CELL))
        cells: list[Cell | None] = [Cell(_marked(base.copy(), subject))]
        for name in names:
            if name not in ways:
                cells.append(None)
                continue
            values = ways[name] * ways[name].size
            picture = _marked(heat(base, values, subject.window, own_scale(values)), subject)
            cells.append(Cell(picture, f"{times(values.min())} to {times(values.max())}"))
        rows.append((subject.caption, cells))
    words = (
        "Each picture from its smallest value (dim) to its largest (bright), which stand below it in multiples of the "
        "even share. Attention: where the last layer looks. Rollout: what attention would carry there through all "
        "layers. Relevance: what the answer depends on."
    )
    return draw_sheet(Sheet("What has decided", words, ["photo", *names], rows))
