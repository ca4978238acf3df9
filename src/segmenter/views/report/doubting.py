"""Masks that the model contradicts with confidence, among the images of an evaluation where that happens most.

Only these images are compared with their masks; `segmenter check DATA --model MODEL` looks at all of them.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from segmenter.data.classes import Classes
from segmenter.data.samples import Sample
from segmenter.errors import cleaned
from segmenter.evaluation.contradictions import Region, Seen, compared, contradictions
from segmenter.evaluation.doubtful import seen
from segmenter.evaluation.kept_labels import BINS, KeptLabels
from segmenter.inspection.places import Box
from segmenter.model.segmenter import Segmenter
from segmenter.views.doubt_sheets import surroundings
from segmenter.views.heat import mark
from segmenter.views.report.choosing import first
from segmenter.views.report.labels import class_colors
from segmenter.views.report.layers import LONGEST_SIDE, color_layer, photo_layer
from segmenter.views.report.page import Block, Chip, Gallery, Picture, Section, Text

LOOKED, SHOWN = 8, 6  # images, regions
SURE = BINS * 4 // 5  # the first bin of confidence that counts as sure
ASPECT = 3 / 4  # height of the pictures over their width
NOTE = (
    "Inside the frame the model is sure of another class than the mask: one of them is wrong. These are the worst of "
    f"the {LOOKED} images of which the model has most wrong while it is sure; for all images: "
    "`segmenter check DATA --model RUN --out FOLDER`."
)


def doubtful_section(kept: KeptLabels, model: Segmenter, samples: Mapping[str, Sample]) -> Section:
    """The most doubtful regions of some images."""
    looked = [samples[name] for name in most_contradicted(kept) if name in samples]
    blocks: list[Block] = []
    if looked:
        maps = [seen([model], sample) for sample in looked]  # small, whatever the photos are
        doubts = compared([contradictions(one, model.classes.ignore) for one in maps])
        found = [(place, region) for place, doubt in enumerate(doubts) for region in doubt.regions]
        worst = sorted(found, key=lambda pair: -pair[1].doubt)[:SHOWN]
        pictures = [region_picture(model.classes, looked[place], maps[place], region) for place, region in worst]
        blocks = [Gallery("Where mask and model contradict each other", pictures, NOTE)] if pictures else []
    return Section("Doubtful masks", blocks or [Text("The model contradicts no mask with confidence.", "quiet")])


def most_contradicted(kept: KeptLabels) -> list[str]:
    """The names of the images of which the model has the largest share wrong while it is sure."""
    sure, right = (kept.calibration[:, SURE:, column].sum(1) for column in (0, 2))
    pixels = kept.calibration[..., 0].sum(1)
    shares = np.divide(sure - right, pixels, out=np.full(len(kept), np.nan), where=pixels > 0)
    return [kept.names[place] for place in first(-shares, LOOKED) if shares[place] > 0]


def region_picture(classes: Classes, sample: Sample, maps: Seen, region: Region) -> Picture:
    """A region in its surroundings: the mask, and over it the photo or what the model says."""
    image = sample.image()
    around = widened(surroundings(region.box, image.shape[:2]), image.shape[:2])
    height, width = around.bottom - around.top, around.right - around.left
    scale = LONGEST_SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    photo = Image.fromarray(image[around.top : around.bottom, around.left : around.right])
    photo = photo.resize(size[::-1], Image.Resampling.LANCZOS)
    mark(photo, Box(*region.box), around)
    colored = []
    for title, labels in (("mask", maps.given), ("model", maps.predicted)):
        picture = Image.fromarray(class_colors(_inside(labels, around, size, maps.scale), classes))
        mark(picture, Box(*region.box), around)
        colored.append(color_layer(title, np.asarray(picture)))
    mask, seen_there = colored
    layers = [mask, photo_layer("photo", photo), seen_there]
    legend = [Chip(classes.names[label], classes.colors[label]) for label in (region.given, region.predicted)]
    return Picture(cleaned(sample.name), layers, size, _facts(region, classes), legend)


def widened(box: Box, size: tuple[int, int]) -> Box:
    """A box on a photo (height, width) with more around it, so that pictures beside each other are of one shape."""
    sides = box.bottom - box.top, box.right - box.left
    wanted = max(sides[0], round(sides[1] * ASPECT)), max(sides[1], round(sides[0] / ASPECT))
    spans = []
    for first_one, last, least, length in zip(box[:2], box[2:], wanted, size, strict=True):
        least = min(least, length)
        start = min(max(0, int(first_one + last - least) // 2), length - least)
        spans.append((start, start + least))
    return Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _facts(region: Region, classes: Classes) -> str:
    top, left, *_ = region.box
    said, found = classes.names[region.given], classes.names[region.predicted]
    return (
        f"the mask says {said} ({100 * region.given_probability:.0f} % by the model), the model {found} "
        f"({100 * region.predicted_probability:.0f} %), from x {left}, y {top}; {region.pixels} pixels"
    )


def _inside(labels: np.ndarray, box: Box, size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """Labels (H W), of which each stands for `scale` pixels of the photo, in a box of the photo, at a size (h, w)."""
    ends = (box.top, box.bottom), (box.left, box.right)
    places = [
        ((start + (np.arange(wanted) + 0.5) * (end - start) / wanted) / step).astype(np.int64).clip(0, length - 1)
        for (start, end), wanted, step, length in zip(ends, size, scale, labels.shape, strict=True)
    ]
    return labels[np.ix_(*places)]
