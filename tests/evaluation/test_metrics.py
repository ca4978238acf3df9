"""Proves the scores on a confusion matrix small enough to count by hand, absent classes included."""

import json

import numpy as np
import pytest

from segmenter.evaluation.metrics import Scores

# Truth in rows, prediction in columns. `ghost` is predicted but not there, `nothing` is neither.
COUNTS = np.array(
    [
        [6, 1, 1, 0],
        [2, 8, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
)
NAMES = ("sky", "road", "ghost", "nothing")


@pytest.fixture
def scores() -> Scores:
    return Scores(COUNTS, NAMES)


def test_scores_by_hand(scores):
    assert scores.iou[:3].tolist() == [6 / 10, 8 / 11, 0.0]
    assert scores.accuracy[:2].tolist() == [6 / 8, 8 / 10]
    assert np.isnan(scores.iou[3])
    assert np.isnan(scores.accuracy[2:]).all()
    assert scores.mean_iou == pytest.approx((6 / 10 + 8 / 11 + 0) / 3)  # all but the absent
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert scores.pixel_accuracy == 14 / 18


def test_json_has_none_where_there_is_nothing(scores):
    stored = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert [row["name"] for row in stored["classes"]] == list(NAMES)
    assert [row["iou"] for row in stored["classes"]] == [0.6, 8 / 11, 0.0, None]
    assert [row["accuracy"] for row in stored["classes"]] == [0.75, 0.8, None, None]
    assert [row["pixels"] for row in stored["classes"]] == [8, 10, 0, 0]
    assert stored["mean_iou"] == scores.mean_iou


def test_the_table_says_absent_and_never_nan(scores):
    lines = {line.split()[0]: line for line in scores.table().splitlines()}
    assert list(lines) == ["class", *NAMES, "mean"]
    assert lines["sky"].split() == ["sky", "60.00", "75.00", "44.44"]
    assert lines["ghost"].split()[:3] == ["ghost", "0.00", "-"]
    assert lines["ghost"].endswith("not in the truth")
    assert lines["nothing"].split()[1:3] == ["-", "-"]
    assert lines["nothing"].endswith("absent")
    assert "pixel accuracy 77.78" in lines["mean"]
    assert "nan" not in scores.table()


def test_no_pixel_at_all_is_no_error():
    empty = Scores(np.zeros((2, 2), np.int64), ("a", "b"))
    assert empty.mean_iou == empty.pixel_accuracy == empty.mean_accuracy == 0
    assert empty.table().count("absent") == 2
    json.dumps(empty.to_dict(), allow_nan=False)


def test_a_perfect_prediction_scores_one():
    perfect = Scores(np.diag([3, 1]), ("a", "b"))
    assert perfect.mean_iou == perfect.mean_accuracy == perfect.pixel_accuracy == 1
