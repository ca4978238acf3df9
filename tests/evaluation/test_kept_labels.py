"""Proves that what is kept of images adds up to the whole, and that every measure is that of its definition."""

import numpy as np
import pytest
from kept_examples import kept_labels, random_counts

from segmenter.evaluation.kept_labels import CONFUSIONS, SIZES
from segmenter.evaluation.metrics import Scores

COUNTS = random_counts(7, 4, seed=1)


@pytest.fixture(scope="module")
def kept():
    return kept_labels(COUNTS)


def test_counts_of_images_add_up_to_the_total(kept):
    assert np.array_equal(sum(kept.confusion_of(image) for image in range(7)), kept.confusion)
    assert np.array_equal(kept.confusion, COUNTS.sum(0))
    assert all(np.array_equal(kept.confusion_of(image), COUNTS[image]) for image in range(7))
    assert kept.confusion.dtype == np.int64


def test_measures_of_an_image_are_its_scores(kept):
    for image, counts in enumerate(COUNTS):
        scores = Scores(counts, kept.classes)
        assert kept.scores_of(image).to_dict() == scores.to_dict()
        assert kept.per_image["mean_iou"][image] == pytest.approx(scores.mean_iou)
        assert kept.per_image["mean_accuracy"][image] == pytest.approx(scores.mean_accuracy)
        assert kept.per_image["pixel_accuracy"][image] == pytest.approx(scores.pixel_accuracy)
        np.testing.assert_allclose(kept.measures(kept.sums(image, image + 1))["class_iou"][0], scores.iou)


def test_measures_of_all_images_are_the_scores(kept):
    found = kept.measures(kept.sums(0, 7).sum(0))
    assert found["mean_iou"] == pytest.approx(kept.scores.mean_iou)
    rows, columns, hits = (
        sum(part.astype(float)) for part in (COUNTS.sum(2), COUNTS.sum(1), np.einsum("ikk->ik", COUNTS))
    )
    np.testing.assert_allclose(found["class_iou"], hits / (rows + columns - hits))
    near = sum(np.einsum("ikk->ik", COUNTS) // 4), sum(COUNTS.sum(2) // 2), sum(COUNTS.sum(1) // 2)
    np.testing.assert_allclose(found["class_boundary_iou"], near[0] / (near[1] + near[2] - near[0]))
    assert found["class_size_iou"].shape == (len(SIZES), 4)
    assert found["class_size_iou"][1, 1] == pytest.approx(hits[1] / (rows[1] + columns[1] - hits[1]))
    assert np.isnan(found["class_size_iou"][1, 2])  # class 2 has large objects alone
    assert found["calibration_error"] == pytest.approx(abs(0.95 - hits.sum() / rows.sum()))


def test_nothing_labelled_is_nan_and_not_an_error():
    counts = random_counts(2, 3, seed=0)
    counts[1] = 0
    kept = kept_labels(counts)
    assert np.isnan(kept.per_image["mean_iou"]).tolist() == [False, True]
    assert np.isnan(kept.confidence).tolist() == [False, True]
    assert kept.confidence[0] == pytest.approx(0.95)
    assert kept.scores_of(1).mean_iou == 0


def test_confused_pairs_come_with_pixels_share_and_images(kept):
    total = COUNTS.sum(0)
    worst = max(((t, p) for t in range(4) for p in range(4) if t != p), key=lambda pair: total[pair])
    found = kept.confused()
    assert (found[0].true, found[0].predicted) == worst
    assert found[0].pixels == total[worst]
    assert found[0].share == pytest.approx(total[worst] / total[worst[0]].sum())
    assert found[0].images == (COUNTS[(slice(None), *worst)] > 0).sum()
    assert [pair.pixels for pair in found] == sorted((pair.pixels for pair in found), reverse=True)
    assert sum(pair.pixels for pair in found) == total.sum() - np.trace(total)
    assert len(kept.confused(most=2)) == 2


def test_images_are_found_by_what_they_contain(kept):
    pixels = COUNTS[:, 1, 2]
    assert kept.containing(true=1, predicted=2).tolist() == [
        image for image in np.argsort(-pixels, kind="stable") if pixels[image]
    ]
    assert sorted(kept.containing(true=0)) == list(range(7))
    assert kept.containing(predicted=3)[0] == COUNTS.sum(1)[:, 3].argmax()


def test_some_images_are_an_evaluation_of_their_own(kept):
    some = kept.select([5, 0, 2])
    assert some.names == ("streets/5", "streets/0", "streets/2")
    assert np.array_equal(some.confusion, COUNTS[[5, 0, 2]].sum(0))
    assert np.array_equal(some.sums(0, 3), kept.sums(0, 7)[[5, 0, 2]])
    assert kept.select([]).per_image["mean_iou"].shape == (0,)
    assert kept.confusions.dtype == CONFUSIONS


def test_sums_in_parts_are_those_of_the_whole(kept):
    assert np.array_equal(np.concatenate([kept.sums(0, 3), kept.sums(3, 7)]), kept.sums(0, 7))
    assert kept.sums(0, 7).shape == (7, kept.columns)
