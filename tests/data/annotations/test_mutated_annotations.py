"""Valid annotations with one value replaced by another, whatever it is: they are read, or refused with a sentence."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from test_annotation_formats import (
    SIZE,
    coco_content,
    cvat_content,
    label_studio_result,
    labelme_content,
    labelme_shape,
    percent,
    picture,
    square,
    supervisely,
    supervisely_bitmap,
    write,
)

from segmenter import open_data
from segmenter.errors import UserError

MUTATIONS = 100  # of each format
JUNK = (
    None, True, 0, -1, 1, 2**40, 10**30, 0.5, -3.7, 1e308, float("nan"), float("inf"), "", "x", "0", "a.jpg",
    "../a.jpg", "\x00", "background", "__ignore__", [], [[]], [None], ["x", "y"], [1], [1, 2], [[1, 2]],
    [[1, 2], [3, 4]], {}, {"a": 1}, {"size": [1, 1], "counts": "0"}, {"size": [40, 60], "counts": [2400]},
    [[[[[[]]]]]],
)  # fmt: skip


def nodes(content: object) -> Iterator[tuple[object, object]]:
    """Every place in JSON, as what holds it and its key or position there."""
    places = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in places:
        yield content, key
        if isinstance(value, dict | list):
            yield from nodes(value)


def coco_file(root: Path) -> tuple[Path, object]:
    packed = coco.encode(np.ones(SIZE, np.uint8, order="F"))
    run_lengths = {"size": list(SIZE), "counts": packed["counts"].decode()}
    plain = {"size": list(SIZE), "counts": [100, 200, 2100]}
    found = [(3, [square(0, 0, 9, 9), square(20, 20, 29, 39)], 0), (11, run_lengths, 0), (3, plain, 1)]
    return root / "x.json", coco_content(found, info={"year": 2024})


def labelme_file(root: Path) -> tuple[Path, object]:
    shapes = [
        labelme_shape("dog", [[0, 0], [30, 0], [30, 30], [0, 30]]),
        labelme_shape("cat", [[50, 40], [20, 20]], "rectangle"),
        labelme_shape("cat", [[30, 20], [35, 20]], "circle"),
    ]
    return root / "a.json", labelme_content(shapes)


def label_studio_file(root: Path) -> tuple[Path, object]:
    results = [
        label_studio_result("polygonlabels", "dog", points=percent(*square(0, 0, 30, 30))),
        label_studio_result("rectanglelabels", "cat", x=10, y=10, width=30, height=20, rotation=5),
        label_studio_result("brushlabels", "cat", format="rle", rle=[0, 0, 0x25, 0x80, 0x38, 0xFF, 0xFF, 0, 7]),
    ]
    return root / "x.json", [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": results}]}]


def supervisely_file(root: Path) -> tuple[Path, object]:
    supervisely(root, [])
    ring = [[0, 0], [30, 0], [30, 30], [0, 30]]
    objects = [
        {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": ring, "interior": [ring[:3]]}},
        {
            "classTitle": "cat",
            "geometryType": "bitmap",
            "bitmap": {"origin": [5, 3], "data": supervisely_bitmap(np.eye(6))},
        },
    ]
    return root / "train/ann/a.jpg.json", {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects}


def supervisely_meta(root: Path) -> tuple[Path, object]:
    path, content = supervisely_file(root)
    write(path, content)
    return root / "meta.json", {"classes": [{"title": "dog", "color": "#00FF00"}, {"title": "cat"}], "tags": []}


def read_all(root: Path) -> None:
    """Opens a folder and draws every label map; only a sentence for people may come of it."""
    with contextlib.suppress(UserError):
        for split in open_data(root).splits.values():
            for sample in split:
                assert sample.target().shape == SIZE


@pytest.mark.parametrize("make", [coco_file, labelme_file, label_studio_file, supervisely_file, supervisely_meta])
def test_json_with_any_value_replaced_is_read_or_refused(make: Callable, tmp_path):
    chance = random.Random(0)
    picture(tmp_path / "a.jpg")
    path, content = make(tmp_path)
    for _ in range(MUTATIONS):
        changed = copy.deepcopy(content)
        holder, key = chance.choice(list(nodes(changed)))
        if isinstance(holder, dict) and chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = chance.choice(JUNK)
        write(path, changed)
        read_all(tmp_path)


def test_texts_with_any_part_replaced_are_read_or_refused(tmp_path):
    chance = random.Random(0)
    shapes = [
        '<polygon label="dog" points="0,0;30,0;30,30;0,30" z_order="1"/>',
        '<mask label="cat" rle="1, 2, 3, 2" left="52" top="4" width="4" height="2" z_order="2"/>',
        '<ellipse label="dog" cx="50" cy="10" rx="3" ry="3" rotation="4"/>',
    ]
    voc = "<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size>"
    corners = "<x1>0</x1><y1>0</y1><x2>9</x2><y2>0</y2><x3>9</x3><y3>9</y3>"
    voc += f"<object><name>cat</name><polygon>{corners}</polygon></object></annotation>"
    texts = {
        "annotations.xml": cvat_content(*shapes),
        "a.xml": voc,
        "a.txt": "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0 0 1 0 1 1 0 1\n",
        "data.yaml": "names: [cat, dog]\nnc: 2\ntrain: images/train\n",
        "labelmap.txt": "cat:0,0,0::\ndog:9,9,9::\n",
        "_classes.csv": "Pixel Value, Class\n0, cat\n1, dog\n",
    }
    together = {"a.txt": "data.yaml", "data.yaml": "a.txt", "labelmap.txt": "", "_classes.csv": ""}
    for name, text in texts.items():
        root = tmp_path / name
        picture(root / "a.jpg")
        if other := together.get(name):
            write(root / other, texts[other])
        elif name in together:
            picture(root / "a_mask.png")
        for _ in range(MUTATIONS):
            start = chance.randrange(len(text))
            junk = chance.choice(
                ['"', "<", "&", ";", ",", ":", "-", "9" * 30, "nan", "1e999", "\x00", "", "é", "\n", "{", "["]
            )
            write(root / name, text[:start] + junk + text[start + chance.randrange(6) :])
            read_all(root)
