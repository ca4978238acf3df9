"""Proves that overlays show every class with colour and name, uncut at any size, and what label PNGs hold."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segmenter.data.classes import Classes, default_colors
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.views.labels import label_picture
from segmenter.views.overlay import overlay

LONG = "a name of a class that is so long that nobody would ever want to read it in a legend"


def result(labels: np.ndarray, names: list[str]) -> SimpleNamespace:
    """What `predict` gives, with these labels."""
    return SimpleNamespace(task="labels", labels=labels, classes=Classes(tuple(names), default_colors(len(names))))


def stripes(size: tuple[int, int], count: int) -> np.ndarray:
    """Labels (H W) of all `count` classes, where there are as many pixels."""
    return (np.arange(size[0] * size[1]) * count // (size[0] * size[1])).reshape(size).astype(np.uint8)


@pytest.fixture
def written(monkeypatch) -> list[tuple[str, tuple[int, int, int, int]]]:
    """The texts drawn, with the boxes (left, top, right, bottom) that they fill."""
    texts, draw = [], ImageDraw.ImageDraw.text

    def recording(self, place, text, **options):
        places = {key: options[key] for key in ("font", "anchor")}
        texts.append((text, self.textbbox(place, text, **places)))
        draw(self, place, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recording)
    return texts


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ((1, 1), ["a"]),
        ((9, 7), ["a", "and b", LONG]),
        ((16, 16), [f"class {i}" for i in range(40)]),
        ((200, 300), [f"class {i}" for i in range(150)]),
        ((1200, 60), ["sky", "road"]),
        ((60, 1200), ["Straße", "Дорога", "forêt"]),
        ((1500, 2000), ["sky", "road", LONG]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_legend_shows_every_class_whole(size, names, written):
    labels = stripes(size, len(names))
    found = result(labels, names)
    picture = overlay(np.full((*size, 3), 128, np.uint8), found)
    assert len(written) == len(names)
    boxes = [box for _, box in written]
    # As high as the photo, or as the legend where that needs more.
    assert picture.height == size[0] or size[0] < picture.height < max(box[3] for box in boxes) + 20
    legend = np.array(picture)[:, size[1] :]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= legend.shape[1]
        assert 0 <= top < bottom <= legend.shape[0]
    left, top, right, bottom = np.array(boxes).T
    beside = (left[:, None] >= right) | (right[:, None] <= left)
    below = (top[:, None] >= bottom) | (bottom[:, None] <= top)
    assert (beside | below).sum() == len(boxes) * (len(boxes) - 1), "texts touch no other"
    for color in found.classes.colors:
        assert (legend == color).all(-1).sum() >= 80, "a box of the colour"
    for name, share in zip(names, np.bincount(labels.ravel()) / labels.size, strict=True):
        percent = f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"
        start = name if len(name) <= 40 else name[:20]
        assert any(text.startswith(start) and text.endswith(percent) for text, _ in written)


def test_classes_that_are_not_in_the_picture_are_not_in_the_legend(written):
    labels = np.full((50, 50), 2, np.uint8)
    labels[:10] = 1
    overlay(np.zeros((50, 50, 3), np.uint8), result(labels, ["a", "b", "c", "d"]))
    assert [text for text, _ in written] == ["c  80 %", "b  20 %"]


def test_colours_are_mixed_with_the_photo_and_pure_at_borders():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    photo = np.full((40, 40, 3), 100, np.uint8)
    found = result(labels, ["a", "b"])
    pixels = np.array(overlay(photo, found, opacity=0.5, legend=False)).astype(int)
    assert pixels.shape == (40, 40, 3)
    for column, label in ((5, 0), (35, 1)):
        assert np.abs(pixels[20, column] - (100 + np.array(found.classes.colors[label])) / 2).max() <= 1
    assert (pixels[:, 19] == found.classes.colors[0]).all()
    assert (np.array(overlay(photo, found, opacity=0.0, legend=False))[:, 5] == 100).all()


def test_a_photo_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"the photo is \(4, 5\) pixels, the labels are \(5, 4\)"):
        overlay(np.zeros((4, 5, 3), np.uint8), result(np.zeros((5, 4), np.uint8), ["a"]))


def test_a_label_png_holds_class_ids_and_their_colours():
    names = [f"class {i}" for i in range(20)]
    labels = stripes((10, 30), 20)
    classes = result(labels, names).classes
    file = io.BytesIO()
    label_picture(labels, classes).save(file, format="PNG")
    stored = Image.open(file)
    assert (stored.format, stored.mode) == ("PNG", "P")
    assert np.array_equal(np.array(stored), labels)
    palette = np.array(stored.getpalette()).reshape(-1, 3)
    assert palette[:20].tolist() == [list(color) for color in classes.colors]
    assert np.array_equal(np.array(stored.convert("RGB")), np.array(classes.colors)[labels])


@pytest.mark.parametrize("count", [255, 256, 300])
def test_label_pngs_of_very_many_classes(tiny_recipe, count):
    classes = Classes(tuple(f"class {i}" for i in range(count)), default_colors(count))
    model = Segmenter(tiny_recipe("", decoder={"name": "linear"}), classes).eval()
    labels = predict(model, np.zeros((3, 4, 3), np.uint8)).labels
    picture = label_picture(labels, classes)
    assert picture.mode == ("P" if count == 255 else "I;16")
    assert np.array_equal(np.array(picture), labels)
