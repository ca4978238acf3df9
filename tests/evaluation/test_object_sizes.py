"""Proves that objects are counted by size as defined: against brute force, and on pictures one can count by eye."""

import numpy as np
import pytest
from label_maps import flooded, patches

from segmenter.evaluation.confusions import count_confusions
from segmenter.evaluation.object_sizes import count_objects

AREAS = (4, 20)
EMPTY = {"objects": 0, "found": 0, "pixels": 0, "hits": 0, "wrong": 0}


def brute(truth, predicted, ignore, areas, instances=None) -> dict[tuple[int, int], dict[str, int]]:
    """Counts by class and size, region by region."""

    def size_of(pixels: int) -> int:
        return 0 if pixels < areas[0] else 1 if pixels <= areas[1] else 2

    valid, counts = truth != ignore, {}
    objects, sizes = flooded(truth, instances), np.zeros(truth.shape, int)
    for number in range(objects.max() + 1):
        inside = objects == number
        label = int(truth[inside][0])
        if label == ignore:
            continue
        sizes[inside] = size = size_of(inside.sum())
        row = counts.setdefault((label, size), dict(EMPTY))
        hits = int((predicted[inside] == label).sum())
        row["objects"] += 1
        row["found"] += hits >= inside.sum() / 2
        row["pixels"] += int(inside.sum())
        row["hits"] += hits
    found = flooded(np.where(valid, predicted, ignore))
    for number in range(found.max() + 1):
        inside = (found == number) & valid
        if not inside.any():
            continue
        label = int(predicted[inside][0])
        right = inside & (truth == label)
        size = size_of(inside.sum())
        if right.any():
            size = max(range(3), key=lambda s: ((sizes[right] == s).sum(), -s))
        wrong = int(inside.sum() - right.sum())
        if wrong:
            counts.setdefault((label, size), dict(EMPTY))["wrong"] += wrong
    return counts


def as_dict(table: np.ndarray) -> dict[tuple[int, int], dict[str, int]]:
    return {(int(row["class"]), int(row["size"])): {name: int(row[name]) for name in EMPTY} for row in table}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_instances", [False, True])
def test_counts_are_those_of_brute_force(seed, with_instances):
    truth = patches(seed, (37, 45), 4, cell=4)
    predicted = np.where(np.random.default_rng(seed).random(truth.shape) < 0.7, truth, patches(seed + 50, (37, 45), 4))
    predicted[predicted == 255] = 1
    instances = np.random.default_rng(seed).integers(0, 3, truth.shape) if with_instances else None
    found = as_dict(count_objects(truth, predicted, 255, AREAS, instances))
    assert found == brute(truth, predicted, 255, AREAS, instances)


def test_sizes_together_hold_the_confusion_matrix():
    truth, predicted = patches(7, (64, 80), 5), patches(8, (64, 80), 5, ignore=2)
    table = count_objects(truth, predicted, 255, AREAS)
    counts = np.zeros((5, 5), int)
    for row in count_confusions(truth, predicted, 255, 5):
        counts[row["true"], row["predicted"]] = row["pixels"]
    for label in range(5):
        rows = table[table["class"] == label]
        assert rows["pixels"].sum() == counts[label].sum()
        assert rows["hits"].sum() == counts[label, label]
        assert rows["wrong"].sum() == counts[:, label].sum() - counts[label, label]


def test_one_object_of_each_size_and_what_is_charged_to_it():
    truth = np.zeros((20, 40), np.uint8)
    truth[2:4, 2:4] = 1  # small: 4 pixels are not yet medium
    truth[10:14, 2:6] = 1  # medium: 16
    truth[2:12, 20:30] = 1  # large: 100
    predicted = truth.copy()
    predicted[2:4, 4:7] = 1  # the small one is predicted 6 pixels too wide
    predicted[10:14, 4:6] = 0  # half of the medium one is missed
    predicted[2:12, 20:25] = 0  # and half of the large one
    predicted[2, 20] = 0
    predicted[18, 35:39] = 1  # nothing is there; the region itself is small
    found = as_dict(count_objects(truth, predicted, 255, (5, 16)))
    assert found[1, 0] == {"objects": 1, "found": 1, "pixels": 4, "hits": 4, "wrong": 6 + 4}
    assert found[1, 1] == {"objects": 1, "found": 1, "pixels": 16, "hits": 8, "wrong": 0}
    assert found[1, 2] == {"objects": 1, "found": 1, "pixels": 100, "hits": 50, "wrong": 0}
    assert found[0, 2]["wrong"] == 8 + 50


def test_a_region_over_objects_of_two_sizes_is_charged_to_those_it_covers_most():
    truth = np.zeros((10, 30), np.uint8)
    truth[1:3, 1:3] = 1  # small
    truth[1:9, 10:20] = 1  # large
    predicted = np.zeros_like(truth)
    predicted[1:9, 1:20] = 1
    found = as_dict(count_objects(truth, predicted, 255, (5, 50)))
    assert found[1, 0]["wrong"] == 0
    assert found[1, 2]["wrong"] == 8 * 19 - 80 - 4


def test_an_image_of_one_class_or_without_labels():
    truth = np.zeros((5, 5), np.uint8)
    assert as_dict(count_objects(truth, truth, 255, AREAS)) == {
        (0, 2): {"objects": 1, "found": 1, "pixels": 25, "hits": 25, "wrong": 0}
    }
    assert len(count_objects(np.full((5, 5), 255, np.uint8), truth, 255, AREAS)) == 0


def test_many_classes_have_labels_of_16_bits():
    truth = np.array([[300, 300, 65535], [7, 299, 299]], np.uint16)
    found = as_dict(count_objects(truth, truth % 300, 65535, AREAS))
    assert set(found) == {(300, 0), (0, 0), (7, 0), (299, 0)}
    table = count_confusions(truth, truth % 300, 65535, 301)
    assert [tuple(row)[1:] for row in table.tolist()] == [(7, 7, 1), (299, 299, 2), (300, 0, 2)]
    with pytest.raises(ValueError, match="the labels hold 300, but there are 300 classes, and 65535 is ignored"):
        count_confusions(truth, truth % 300, 65535, 300)
