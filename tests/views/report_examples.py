"""Evaluations and runs made up for tests of reports."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from segmenter.data.classes import Classes
from segmenter.evaluation.kept_depth import BY_DISTANCE, DISTANCES, KeptDepth
from segmenter.evaluation.kept_labels import BINS, BOUNDARIES, CONFUSIONS, OBJECTS, KeptLabels

CLASSES = Classes(("ground", "<b>red</b>", 'a "quoted" one'), ((0, 0, 0), (220, 40, 40), (40, 40, 220)))
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}


def label_evaluation(images: int = 9, skill: float = 0.8, seed: int = 0, names: str = "streets/{}") -> KeptLabels:
    """An evaluation in which a share of the pixels is right, another one in each image."""
    random, count = np.random.default_rng(seed), len(CLASSES)
    truth = np.random.default_rng(1).integers(100, 1000, (images, count))
    share = np.clip(skill + random.normal(0, 0.05, (images, count)), 0.05, 1)
    counts = np.zeros((images, count, count), np.int64)
    for k in range(count):
        counts[:, k, k] = truth[:, k] * share[:, k]
        counts[:, k, (k + 1) % count] = truth[:, k] - counts[:, k, k]
    confusions = np.array([(i, t, p, counts[i, t, p]) for i, t, p in np.argwhere(counts).tolist()], CONFUSIONS)
    each = [(i, k) for i in range(images) for k in range(count)]
    hits, columns = np.einsum("ikk->ik", counts), counts.sum(1)
    objects = [(i, k, k, 2, 1, truth[i, k], hits[i, k], columns[i, k] - hits[i, k]) for i, k in each]
    boundaries = [(i, k, truth[i, k] // 2, columns[i, k] // 2, hits[i, k] // 4) for i, k in each]
    calibration = np.zeros((images, BINS, 3))
    calibration[:, 12] = np.stack([truth.sum(1), 0.85 * truth.sum(1), hits.sum(1)], 1)
    return KeptLabels(
        classes=CLASSES.names,
        names=tuple(names.format(i) for i in range(images)),
        sizes=np.full((images, 2), 64, np.int32),
        confusions=confusions,
        objects=np.array(objects, OBJECTS),
        boundaries=np.array(boundaries, BOUNDARIES),
        calibration=calibration,
    )


def depth_evaluation(images: int = 6, seed: int = 0) -> KeptDepth:
    """An evaluation whose errors grow with distance; nothing lies in the last range."""
    random = np.random.default_rng(seed)
    errors = np.ones((images, 10))
    errors[:, 1:] = random.uniform(0.1, 0.9, (images, 9))
    distances = np.zeros((images, DISTANCES, len(BY_DISTANCE)))
    for place in range(DISTANCES - 1):
        pixels = random.integers(50, 100, images)
        relative = 0.05 * (place + 1)
        distances[:, place] = np.stack([pixels, relative * pixels, 0.2 * pixels, (1 - relative) * pixels], 1)
    names = tuple(f"room{i}" for i in range(images))
    edges = tuple(np.linspace(0, 80, DISTANCES + 1).tolist())
    return KeptDepth(names, np.full((images, 2), 64, np.int32), errors, distances, edges)


def write_log(folder: Path, lines: list[object]) -> Path:
    """log.jsonl of these lines; texts are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text)
    return folder


class Parsed(HTMLParser):
    """A page's elements with their attributes, its texts, and whether every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"nothing is open, but {tag} is closed"
        assert self.open[-1] == tag, f"{self.open[-1]} is open, but {tag} is closed"
        self.open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
