"""Proves the bootstrap on known statistics: of a mean, its spread; of two models, what pairing takes away."""

import numpy as np
import pytest
from kept_examples import kept_labels, random_counts

from segmenter.errors import UserError
from segmenter.evaluation import bootstrap
from segmenter.evaluation.depth_metrics import METRICS
from segmenter.evaluation.kept_depth import DISTANCES, KeptDepth


def depth(abs_rel: np.ndarray, alignment: str = "none") -> KeptDepth:
    """Images whose every metric is this number, so that the score is a plain mean."""
    images = len(abs_rel)
    errors = np.concatenate([np.ones((images, 1)), np.repeat(abs_rel[:, None], len(METRICS), 1)], 1)
    return KeptDepth(
        names=tuple(str(i) for i in range(images)),
        sizes=np.full((images, 2), 32, np.int32),
        errors=errors,
        distances=np.ones((images, DISTANCES, 4)),
        edges=tuple(range(DISTANCES + 1)),
        alignment=alignment,
    )


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = bootstrap.intervals(depth(values), draws=4000)["abs_rel"]
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = bootstrap.intervals(depth(random.normal(3, 1, 60)), draws=300)["abs_rel"]
        held += bool(found.low <= 3 <= found.high)
    assert 0.90 <= held / 200 <= 0.99


def test_draws_are_those_of_a_loop_over_images():
    counts = random_counts(5, 3, seed=4)
    kept, random = kept_labels(counts), np.random.default_rng(9)
    drawn = []
    for _ in range(50):
        total = counts[random.integers(5, size=5)].sum(0)
        hits = np.diag(total)
        drawn.append((hits / (total.sum(0) + total.sum(1) - hits)).mean())
    found = bootstrap.intervals(kept, draws=50, seed=9)["mean_iou"]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))


def test_a_seed_gives_the_same_interval_whatever_fits_in_memory(monkeypatch):
    kept = kept_labels(random_counts(9, 3, seed=2))
    whole = bootstrap.intervals(kept, draws=40, seed=3)
    monkeypatch.setattr(bootstrap, "HELD", 3 * kept.columns)  # three draws and three images at a time
    parts = bootstrap.intervals(kept, draws=40, seed=3)
    for name, one in whole.items():
        np.testing.assert_allclose(parts[name].low, one.low, rtol=1e-12)
        np.testing.assert_allclose(parts[name].high, one.high, rtol=1e-12)
    assert bootstrap.intervals(kept, draws=40, seed=4)["mean_iou"].low != whole["mean_iou"].low


def test_a_class_of_one_image_is_measured_in_the_draws_that_have_it():
    counts = random_counts(4, 3, seed=6)
    counts[:, 2], counts[:, :, 2] = 0, 0
    counts[1, 2, 2], counts[1, 2, 0] = 30, 10
    found = bootstrap.intervals(kept_labels(counts), draws=200)
    assert found["class_iou"].value[2] == found["class_iou"].low[2] == found["class_iou"].high[2] == 0.75
    assert np.isfinite(found["mean_iou"].low)


def test_pairing_finds_a_small_difference_between_models_on_hard_and_easy_images():
    random = np.random.default_rng(2)
    hard = random.normal(3, 1, 100)
    better = depth(hard - 0.05 + random.normal(0, 0.05, 100))
    found = bootstrap.differences(depth(hard), better)["abs_rel"]
    assert found.value == pytest.approx(-0.05, abs=0.02)
    assert found.high < 0
    assert found.p < 0.01
    alone = bootstrap.intervals(better)["abs_rel"]
    assert alone.low < hard.mean() < alone.high  # which could not tell them apart


def test_models_that_do_not_differ_are_called_different_as_rarely_as_they_should():
    random = np.random.default_rng(3)
    hard = random.normal(3, 1, (200, 50))
    found = [
        bootstrap.differences(depth(one), depth(one + random.normal(0, 1, 50)), draws=300)["abs_rel"].p for one in hard
    ]
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.11


def test_a_model_does_not_differ_from_itself():
    kept = kept_labels(random_counts(6, 3, seed=5))
    found = bootstrap.differences(kept, kept)
    assert (found["mean_iou"].value, found["mean_iou"].low, found["mean_iou"].high) == (0, 0, 0)
    assert found["mean_iou"].p == 1


def test_images_in_another_order_are_paired_by_name():
    counts = random_counts(6, 3, seed=5)
    kept, order = kept_labels(counts), [3, 1, 5, 0, 2, 4]
    found = bootstrap.differences(kept, kept.select(order))
    assert found["mean_iou"].value == found["mean_iou"].high == 0


COUNTS = random_counts(3, 3, seed=0)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (depth(np.ones(3)), "one evaluation is of labels, the other of depth; compare those of one task"),
        (kept_labels(random_counts(3, 4, 0)), r"has the classes 3 \(class 0, class 1, class 2 ...\), the other 4"),
        (kept_labels(random_counts(4, 3, 0)), "streets/3 and 0 others of the images are in one of the evaluations"),
        (kept_labels(COUNTS[[0, 2, 1]]), "the truth of streets/1 and 1 other images is not the same in both"),
    ],
)
def test_evaluations_of_different_data_are_not_compared(other, said):
    with pytest.raises(UserError, match=said):
        bootstrap.differences(kept_labels(COUNTS), other)


def test_other_definitions_are_not_compared():
    with pytest.raises(UserError, match="depth to 8 m, alignment none, the other depth to 8 m, alignment least"):
        bootstrap.differences(depth(np.ones(3)), depth(np.ones(3), "least_squares"))
    twice = kept_labels(COUNTS, names=("a", "a", "b"))
    assert bootstrap.differences(twice, twice)["mean_iou"].value == 0
    with pytest.raises(UserError, match="images have names twice and come in another order"):
        bootstrap.differences(twice, twice.select([2, 0, 1]))


def test_no_images_have_no_interval():
    with pytest.raises(UserError, match="there are no images to draw from; choose some"):
        bootstrap.intervals(kept_labels(COUNTS).select([]))
