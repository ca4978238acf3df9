"""Samples of attention: what one patch of a photo attends to in the first, a middle and the last layer."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segmenter.data.classes import Classes
from segmenter.data.samples import Sample
from segmenter.errors import UserError, cleaned
from segmenter.inspection.attention import Attention, attention
from segmenter.inspection.captured import blocks_of
from segmenter.inspection.places import Point, widest_places
from segmenter.model.segmenter import Segmenter
from segmenter.views.attention_sheets import seen
from segmenter.views.heat import heat, mark, shared_scale
from segmenter.views.report.layers import LONGEST_SIDE, photo_layer
from segmenter.views.report.page import Block, Gallery, Picture, Section, Text

RAREST = 0.01  # share of the pixels below which a class is not asked for
NOTE = (
    "The patch in the blue frame attends to what glows: mean of all heads, bright where one gets more than its even "
    "share. `segmenter explain RUN IMAGE --out DIR` draws every layer and head, and what decided the label."
)


def attention_section(model: Segmenter, samples: Sequence[Sample]) -> Section:
    """A few images, each with the attention of a pixel of the rarest class there."""
    blocks: list[Block] = []
    try:
        pictures = [attention_picture(model, sample) for sample in samples]
        blocks = [Gallery("What a patch attends to", pictures, NOTE)] if pictures else []
    except UserError as error:
        blocks = [Text(f"There is no attention to show: {error}.", "quiet")]
    return Section("Attention", blocks)


def attention_picture(model: Segmenter, sample: Sample) -> Picture:
    """One image under the attention of one of its patches.

    Raises:
        UserError: the model has no attention that can be seen.
    """
    photo = sample.image()
    at, of = asked_point(sample, model.classes)
    depth = len(blocks_of(model, "encoder"))
    chosen = tuple(dict.fromkeys((0, depth // 2, depth - 1)))
    found = attention(model, photo, at=at, layers=chosen)
    maps = found.maps.mean(1) * found.maps[0, 0].size  # layers h w, in even shares
    shades, box = shared_scale(maps), found.window.box
    height, width = box.bottom - box.top, box.right - box.left
    scale = LONGEST_SIDE / max(height, width)  # small photos too: patches are drawn with sharp edges
    size = max(1, round(height * scale)), max(1, round(width * scale))
    picture = seen(photo, box, size[::-1])
    layers = [photo_layer("photo", _marked(picture, found, at))]
    for layer, values in zip(found.layers, maps, strict=True):
        shown = heat(picture, values, found.window, shades)
        layers.append(photo_layer(f"layer {layer + 1} of {depth}", _marked(shown, found, at)))
    where = f"{of}x {at[1]}, y {at[0]}; {found.window.describe()}"
    return Picture(cleaned(sample.name), layers, size, where, share=0)


def asked_point(sample: Sample, classes: Classes) -> tuple[Point, str]:
    """A pixel whose patch is worth asking: of the rarest class by the truth; without classes, the middle."""
    target = sample.target()
    middle = target.shape[0] // 2, target.shape[1] // 2
    if target.dtype.kind != "u":
        return middle, ""
    counts = np.bincount(target.reshape(-1), minlength=len(classes))[: len(classes)]
    places = widest_places(target, len(classes) + 1)  # ignored pixels have one too
    enough = [label for label in places if label < len(classes) and counts[label] >= RAREST * counts.sum()]
    if not enough:
        return middle, ""
    label = min(enough, key=lambda label: counts[label])
    return places[label], f"{classes.names[label]} at "


def _marked(picture: Image.Image, found: Attention, at: tuple[int, int]) -> Image.Image:
    """The picture with the asked patch framed."""
    picture = picture.copy()
    mark(picture, found.window.patch_box(*found.window.patch(at)), found.window.box)
    return picture
