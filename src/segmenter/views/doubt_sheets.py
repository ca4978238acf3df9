"""Doubtful masks for people: a sheet of each region (photo, mask, model, doubt), and tables of images and regions."""

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from segmenter.data.classes import Classes
from segmenter.data.samples import Sample
from segmenter.errors import cleaned
from segmenter.evaluation.contradictions import Region, Seen
from segmenter.evaluation.doubtful import Doubts, seen
from segmenter.inspection.places import Box
from segmenter.model.segmenter import Segmenter
from segmenter.views.heat import dimmed, glowing, mark
from segmenter.views.results import Results
from segmenter.views.sheets import Cell, Sheet, cell_size, draw_sheet

SHEETS = 24
AROUND = 0.6  # of a region's sides that are shown beside it
LEAST = 0.3  # of the photo's sides, so that one knows where one is
NARROWEST = 0.5  # of the longer side is the shorter one, where the photo allows
FRAME = 0.015  # of the longer side of what is shown, between its edge and a frame
COLORED = 0.6  # opacity of the labels
COLUMNS = ("photo", "mask", "model", "improbable label")
IMAGES, REGIONS, FOLDER = "images.csv", "regions.csv", "regions"


class DoubtfulRegion(NamedTuple):
    """A region to look at."""

    rank: int
    """From 1, among all regions."""
    sample: Sample
    region: Region
    picture: Image.Image


def doubtful_regions(models: Sequence[Segmenter], doubts: Doubts, most: int = SHEETS) -> Iterator[DoubtfulRegion]:
    """The most doubtful regions as pictures, those of one image after each other; each image is looked at once more."""
    ranked = list(enumerate(doubts.regions()[:most], 1))
    for sample in dict.fromkeys(sample.name for _, (sample, _) in ranked):
        own = [(rank, found, region) for rank, (found, region) in ranked if found.name == sample]
        image, maps = own[0][1].image(), seen(models, own[0][1])
        for rank, found, region in own:
            yield DoubtfulRegion(rank, found, region, region_sheet(image, maps, region, doubts.classes, found.name))


def region_sheet(image: np.ndarray, maps: Seen, region: Region, classes: Classes, name: str) -> Image.Image:
    """A region in its surroundings: photo (H W 3 uint8), mask, what the model says, where the label is improbable."""
    around = surroundings(region.box, image.shape[:2])
    size = cell_size(len(COLUMNS), (around.bottom - around.top, around.right - around.left))
    photo = Image.fromarray(image[around.top : around.bottom, around.left : around.right])
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    rows, columns = (
        ((first + (np.arange(count) + 0.5) * (last - first) / count) / scale).astype(int).clip(0, length - 1)
        for first, last, count, scale, length in zip(
            around[:2], around[2:], size[::-1], maps.scale, maps.given.shape, strict=True
        )
    )
    given, predicted, chance = (
        part[np.ix_(rows, columns)] for part in (maps.given, maps.predicted, maps.given_probability)
    )
    shades = np.nan_to_num(1 - chance) ** 3  # so that what the model only hesitates at does not glow
    colors, opacity = glowing(shades)
    base = dimmed(photo)
    doubt = Image.fromarray((base + (colors - base) * opacity).astype(np.uint8))
    pictures = [photo, _colored(photo, given, classes), _colored(photo, predicted, classes), doubt]
    frame = _inside(region.box, around)
    for picture in pictures:
        mark(picture, frame, around)
    said, seen_there = classes.names[region.given], classes.names[region.predicted]
    captions = ["", said, f"{seen_there} {region.predicted_probability:.0%}", f"{said} {region.given_probability:.0%}"]
    cells = [Cell(picture, caption) for picture, caption in zip(pictures, captions, strict=True)]
    title = f"{cleaned(name, 60)}: the mask says {said}, the model {seen_there}"
    words = f"{100 * region.doubt:.2f} % of the image is doubtful here. Bright: what the mask says is improbable."
    return draw_sheet(Sheet(title, words, COLUMNS, [("", cells)]))


def surroundings(box: tuple[int, int, int, int], size: tuple[int, int]) -> Box:
    """The part of a photo (height, width) that is shown of a region."""
    grown = ((last - first) * (1 + 2 * AROUND) for first, last in zip(box[:2], box[2:], strict=True))
    sides = [max(side, LEAST * max(size)) for side in grown]
    spans = []
    for first, last, length, side in zip(box[:2], box[2:], size, sides, strict=True):
        wanted = min(length, round(max(side, NARROWEST * min(max(sides), max(size)))))
        start = min(max(0, (first + last - wanted) // 2), length - wanted)
        spans.append((start, start + wanted))
    return Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _inside(box: tuple[int, int, int, int], around: Box) -> Box:
    """The region's frame, a little inside what is shown where it would lie on its edge."""
    margin = FRAME * max(around.bottom - around.top, around.right - around.left)
    high, low = (max(box[i], around[i] + margin) for i in (0, 1)), (min(box[i], around[i] - margin) for i in (2, 3))
    return Box(*high, *low)


def _colored(photo: Image.Image, labels: np.ndarray, classes: Classes) -> Image.Image:
    """Labels (H W) in their colours over the photo; ignored pixels show it as it is."""
    known = labels < len(classes)
    colors = np.array([*classes.colors, (0, 0, 0)], np.uint8)[np.where(known, labels, len(classes))]
    mixed = Image.blend(photo, Image.fromarray(colors), COLORED)
    return Image.composite(mixed, photo, Image.fromarray(known))


def claim(out: Path, overwrite: bool, most: int = SHEETS) -> Results:
    """The folder for the tables and so many sheets.

    Raises:
        UserError: it holds data, files of others in the place of results, or earlier results without `overwrite`.
    """
    results = Results(out, "check")
    results.claim([out / IMAGES, out / REGIONS, *(_sheet(out, rank) for rank in range(1, most + 1))], overwrite)
    return results


def write_doubts(results: Results, models: Sequence[Segmenter], doubts: Doubts, most: int = SHEETS) -> None:
    """Writes images.csv, regions.csv and regions/RANK.jpg into a folder that was claimed.

    Raises:
        UserError: a photo cannot be read any more, or there is no room.
    """
    out = results.folder
    for found in doubtful_regions(models, doubts, most):
        path = _sheet(out, found.rank)
        results.write(path, partial(found.picture.save, format="JPEG", quality=90, subsampling=0))
    _write_table(results, out / IMAGES, images_table(doubts))
    _write_table(results, out / REGIONS, regions_table(doubts, most))


def images_table(doubts: Doubts) -> list[list]:
    """Rank, name, doubt, softmin and regions of every image."""
    rows = [
        [rank, sample.name, _short(doubt.doubt), _short(doubt.softmin), len(doubt.regions)]
        for rank, (sample, doubt) in enumerate(zip(doubts.samples, doubts.doubts, strict=True), 1)
    ]
    return [["rank", "image", "doubt", "softmin", "regions"], *rows]


def regions_table(doubts: Doubts, sheets: int) -> list[list]:
    """All regions, most doubtful first; the first ones have a sheet."""
    head = ["rank", "image", "mask", "model", "left", "top", "width", "height", "pixels", "mask_probability"]
    rows = []
    for rank, (sample, region) in enumerate(doubts.regions(), 1):
        top, left, bottom, right = region.box
        names = [doubts.classes.names[label] for label in (region.given, region.predicted)]
        place = [left, top, right - left, bottom - top, region.pixels]
        numbers = map(_short, (region.given_probability, region.predicted_probability, region.doubt))
        sheet = f"{FOLDER}/{_name(rank)}" if rank <= sheets else ""
        rows.append([rank, sample.name, *names, *place, *numbers, sheet])
    return [[*head, "model_probability", "doubt", "sheet"], *rows]


def _sheet(out: Path, rank: int) -> Path:
    return out / FOLDER / _name(rank)


def _name(rank: int) -> str:
    return f"{rank:03d}.jpg"


def _short(value: float) -> str:
    return f"{value:.5f}"


def _write_table(results: Results, path: Path, rows: list[list]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode("utf-8", "surrogateescape")  # names of files may be no text
    results.write(path, lambda beside: beside.write_bytes(content))
