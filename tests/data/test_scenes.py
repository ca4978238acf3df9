"""Drawn scenes are valid, repeatable and independent of size; neither colour nor raw patches give classes away."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from segmenter.data.samples import SCENE_COUNTS, SCENE_SEEDS
from segmenter.data.scenes.scene import COLORS, NAMES, Scene, render

SIZE, PATCH = (96, 128), 8
PARTS = ("image", "labels", "depth", "things")
CLASSES = len(NAMES)


def stacked(seed: int, count: int) -> Scene:
    """Scenes of one seed, stacked along a first axis."""
    scenes = [render(seed, i, SIZE) for i in range(count)]
    return Scene(*(np.stack([getattr(s, part) for s in scenes]) for part in PARTS))


@pytest.fixture(scope="module")
def train() -> Scene:
    return stacked(SCENE_SEEDS["train"], 300)


@pytest.fixture(scope="module")
def held_out() -> Scene:
    return stacked(SCENE_SEEDS["test"], SCENE_COUNTS["test"])  # those that the demo is scored on


def mean_iou(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of intersection over union, counted over the whole set."""
    pairs = np.bincount(labels.ravel().astype(int) * CLASSES + predicted.ravel(), minlength=CLASSES**2)
    counts = pairs.reshape(CLASSES, CLASSES)
    hits = counts.diagonal()
    return float(np.mean(hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)))


def test_mean_iou_by_hand():
    labels = np.arange(CLASSES).repeat(2)
    predicted = labels.copy()
    predicted[1] = 1  # class 0: 1 of 2, class 1: 2 of 3, all others right
    assert mean_iou(predicted, labels) == pytest.approx((0.5 + 2 / 3 + CLASSES - 2) / CLASSES)


def test_names_and_colours():
    assert 8 <= CLASSES <= 12
    assert len(COLORS) == CLASSES == len(set(NAMES))
    gaps = [max(abs(np.subtract(a, b))) for i, a in enumerate(COLORS) for b in COLORS[:i]]
    assert min(gaps) >= 30


@pytest.mark.parametrize("index", [0, 1, 2, 7])
def test_the_same_numbers_give_the_same_scene(index):
    first, again, other = render(5, index, SIZE), render(5, index, SIZE), render(6, index, SIZE)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part), getattr(again, part))
    assert (first.image != other.image).mean() > 0.5


@pytest.mark.parametrize("size", [(32, 32), (33, 71), (97, 64), (128, 160), (60, 200)])
def test_any_size(size):
    for index in range(6):
        scene = render(3, index, size)
        assert scene.image.shape == (*size, 3)
        assert scene.image.dtype == np.uint8
        assert scene.labels.shape == scene.depth.shape == size
        assert scene.labels.dtype == np.uint8
        assert scene.depth.dtype == np.float32


def test_too_small():
    with pytest.raises(ValueError, match="31 x 64 pixels is too small to draw; the least is 32 x 32"):
        render(0, 0, (31, 64))


@pytest.mark.parametrize("index", range(6))
def test_the_same_scene_at_two_sizes(index):
    small, large = render(2, index, (96, 128)), render(2, index, (288, 384))
    middle = (slice(1, None, 3), slice(1, None, 3))
    assert (small.labels == large.labels[middle]).mean() > 0.97
    assert np.mean(np.abs(small.depth / large.depth[middle] - 1) < 0.05) > 0.95
    colours = large.image.reshape(96, 3, 128, 3, 3).mean((1, 3))
    assert np.abs(small.image - colours).mean() < 14


def test_labels_and_frequencies(train):
    assert train.labels.max() < CLASSES
    for label, name in enumerate(NAMES):
        share = (train.labels == label).mean()
        scenes = (train.labels == label).any((1, 2)).mean()
        assert 0.02 <= share <= 0.35, (name, share)
        assert scenes >= 0.2, (name, scenes)


def test_half_are_streets_and_half_are_rooms(train):
    floor = (train.labels == NAMES.index("floor")).any((1, 2))
    ground = (train.labels == NAMES.index("ground")).any((1, 2))
    assert floor[1::2].mean() > 0.95
    assert ground[0::2].mean() > 0.95
    assert not (floor & ground).any()


def test_depth(train):
    assert np.isfinite(train.depth).all()
    assert train.depth.min() > 0.3
    assert train.depth.max() <= 200
    assert (train.depth[train.labels == NAMES.index("sky")] == 200).all()
    assert train.depth[train.labels == NAMES.index("furniture")].max() < 10


def test_the_ground_comes_nearer_downwards(train):
    for ground in ("ground", "floor"):
        both = (train.labels[:, 1:] == NAMES.index(ground)) & (train.labels[:, :-1] == NAMES.index(ground))
        assert (train.depth[:, 1:] < train.depth[:, :-1])[both].all()


def test_cars_stand_before_what_is_behind_them(train):
    """Above a roof the depth is larger: the nearer thing is drawn over the farther one."""
    car = train.labels == NAMES.index("car")
    roof = car[:, 1:] & ~car[:, :-1]
    assert (train.depth[:, :-1][roof] > train.depth[:, 1:][roof]).mean() > 0.9


def test_colour_and_position_do_not_tell_the_class(train, held_out):
    """A pixel classifier on r g b y x stays under 0.35 mIoU, or a network would learn nothing but paint."""
    rng = np.random.default_rng(0)

    def sample(scenes: Scene, count: int) -> tuple[np.ndarray, np.ndarray]:
        image, row, column = (rng.integers(0, n, count) for n in scenes.labels.shape)
        return np.column_stack([scenes.image[image, row, column], row, column]), scenes.labels[image, row, column]

    classifier = HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=0)
    with threadpool_limits(1):  # its threads wait for each other, which takes minutes on a busy machine
        classifier.fit(*sample(train, 60_000))
    pixels, labels = sample(held_out, 60_000)
    assert 0.1 < mean_iou(classifier.predict(pixels).astype(int), labels) < 0.35


def test_raw_patches_do_not_tell_the_class_linearly(train, held_out):
    """Ridge regression from 8 x 8 x 3 values to the classes' shares of the patch stays under 0.55 mIoU."""

    def patches(values: np.ndarray) -> np.ndarray:
        cells = values.reshape(len(values), SIZE[0] // PATCH, PATCH, SIZE[1] // PATCH, PATCH, -1)
        return cells.transpose(0, 1, 3, 2, 4, 5).reshape(-1, PATCH * PATCH, cells.shape[-1])

    shares = patches(np.eye(CLASSES, dtype=np.float32)[train.labels]).mean(1)
    colours = [patches(s.image / np.float32(255)).reshape(-1, PATCH * PATCH * 3) for s in (train, held_out)]
    predicted = Ridge(1.0).fit(colours[0], shares).predict(colours[1]).argmax(-1)
    grid = predicted.reshape(len(held_out.labels), SIZE[0] // PATCH, SIZE[1] // PATCH)
    assert mean_iou(grid.repeat(PATCH, 1).repeat(PATCH, 2), held_out.labels) < 0.55


@pytest.mark.parametrize("index", range(8))
def test_each_thing_has_a_number_and_one_class(index):
    scene = render(3, index, SIZE)
    things = {"building", "tree", "car", "furniture"}
    for number in np.unique(scene.things):
        found = {NAMES[label] for label in np.unique(scene.labels[scene.things == number])}
        assert len(found) == 1 if number else not found & things
        assert number == 0 or found <= things
