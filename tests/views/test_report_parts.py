"""Proves what goes into a report: logs as found, images worth a look, differences that are more than chance."""

import numpy as np
import pytest
from report_examples import CLASSES, label_evaluation, write_log

from segmenter.config import Recipe, Train
from segmenter.evaluation import bootstrap
from segmenter.evaluation.kept_labels import KeptLabels
from segmenter.views.report.choosing import choices
from segmenter.views.report.comparing import comparison
from segmenter.views.report.curves import POINTS, _smoothed, _thinned, curves, read_history
from segmenter.views.report.page import Table, Text
from segmenter.views.report.running import curves_section, training_tiles
from segmenter.views.report.scored import MEASURES

NAN = np.nan


def steps(count: int) -> list[dict]:
    return [{"step": i + 1, "loss": 1 / (i + 1), "lr": 0.1, "images_per_second": 4.0} for i in range(count)]


# ---- logs


def test_a_log_becomes_curves(tmp_path):
    lines = [*steps(4), {"step": 4, "val_mean_iou": 0.5}, *steps(6)[4:], {"step": 6, "val_mean_iou": 0.4}]
    history = read_history(write_log(tmp_path / "run", lines))
    assert history.values["loss"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert history.metrics == ["mean_iou"]
    assert history.best("mean_iou") == (4, 0.5)
    assert [plot.title for plot in curves({"run": history})] == ["Loss", "Validation: mIoU", "Learning rate"]
    assert "From 1 at step 1 to 0.1667 at step 6" in curves({"run": history})[0].words


def test_a_run_without_log_is_a_sentence(tmp_path):
    section = curves_section({"gone": read_history(tmp_path / "gone")})
    assert [block.words for block in section.blocks] == [
        "gone has no log.jsonl, so there are no curves of it: it is a model without its training."
    ]


@pytest.mark.parametrize(
    ("torn", "words"),
    [
        (['{"step": 7, "lo'], "1 line of the log.jsonl of run cannot be read and is left out."),
        (["[1]\n", "nothing\n", '{"loss": 1}\n'], "3 lines of the log.jsonl of run cannot be read and are left out."),
        (["[" * 100_000], "1 line of the log.jsonl of run cannot be read and is left out."),
        (["\0" * 500 + "\n"], "1 line of the log.jsonl of run cannot be read and is left out."),
    ],
    ids=["cut off", "others", "deep", "zeros"],
)
def test_a_torn_log_gives_what_it_has_and_says_so(tmp_path, torn, words):
    history = read_history(write_log(tmp_path / "run", [*steps(5), *torn]))
    section = curves_section({"run": history})
    assert history.values["loss"][0].tolist() == [1, 2, 3, 4, 5]
    assert [block.words for block in section.blocks if isinstance(block, Text)] == [words]


def test_numbers_that_are_none_are_left_out(tmp_path):
    bad = [f'{{"step": {step}, "loss": {value}}}\n' for step, value in ((1, "NaN"), (2, "Infinity"), (3, "true"))]
    lines = [*bad, steps(4)[3]]
    history = read_history(write_log(tmp_path / "run", lines))
    assert history.values["loss"][1].tolist() == [0.25]
    assert curves({"run": history})


def test_an_empty_log_has_no_curves(tmp_path):
    history = read_history(write_log(tmp_path / "run", []))
    assert curves({"run": history}) == []
    assert training_tiles(Recipe(), history) == []


def test_long_logs_are_thinned_to_means_and_keep_their_end():
    places, values = np.arange(1, 100_001.0), np.random.default_rng(0).normal(size=100_000)
    x, y = _thinned(places, values)
    assert len(x) == len(y) == POINTS
    assert (x[-1], y[-1]) == (places[-1], values[-1])
    assert (np.diff(x) > 0).all()
    assert y[:-1].mean() == pytest.approx(values.mean(), abs=1e-3)


def test_smoothing_keeps_straight_lines_and_ends():
    line = np.linspace(3, 7, 500)
    assert np.allclose(_smoothed(line), line)
    noisy = line + np.random.default_rng(0).normal(size=500)
    assert (_smoothed(noisy)[0], _smoothed(noisy)[-1]) == pytest.approx((noisy[0], noisy[-1]))


def test_how_long_it_took_follows_from_the_log(tmp_path):
    history = read_history(write_log(tmp_path / "run", [{"step": 3600, "loss": 1.0, "images_per_second": 4.0}]))
    tiles = training_tiles(Recipe(train=Train(batch=8, steps=7200)), history)
    assert [tile.value for tile in tiles] == ["3600", "1", "2 h 00 min"]
    assert tiles[0].note == "of 7200"


# ---- images


def test_no_image_is_chosen_twice_and_unknown_ones_never():
    score = np.array([0.9, 0.1, NAN, 0.5, 0.3, 0.8, 0.2, 0.7, 0.6])
    confidence = np.array([0.9, 0.1, 0.0, NAN, 0.3, 0.8, 0.2, 0.4, 0.6])
    found = {choice.title: choice.images for choice in choices(score, confidence, "mIoU")}
    assert found == {"Worst": [1, 6, 4], "Least sure": [2, 8], "Best": [0, 5, 7]}


def test_one_image_is_the_worst():
    assert [choice.images for choice in choices(np.array([0.4]), np.array([0.5]), "mIoU")] == [[0]]
    assert choices(np.array([]), np.array([]), "mIoU") == []


# ---- several runs


def compared(*kept: KeptLabels) -> list:
    by_run = {f"run{i}": one for i, one in enumerate(kept)}
    found = {name: bootstrap.intervals(one, 100) for name, one in by_run.items()}
    return comparison(by_run, found, MEASURES, CLASSES)


def table(blocks: list, title: str) -> Table:
    return next(block for block in blocks if isinstance(block, Table) and block.title == title)


def test_a_run_that_is_better_on_every_image_is_called_better():
    blocks = compared(label_evaluation(30, 0.6), label_evaluation(30, 0.9, 1))
    rows = {row[1].text: row for row in table(blocks, "Against run0").rows}
    assert rows["mIoU"][5].text == "better"
    assert rows["mIoU"][2].text.startswith("+")
    assert rows["mIoU"][2].tone == "good"
    assert [row[-1].text for row in table(blocks, "Classes").rows] == ["better"] * 3


def test_runs_that_differ_by_chance_are_not():
    blocks = compared(label_evaluation(30, 0.8), label_evaluation(30, 0.8, 1))
    assert {row[5].text for row in table(blocks, "Against run0").rows} == {"may be chance"}


def test_a_run_against_itself_shows_no_difference():
    one = label_evaluation(20)
    rows = table(compared(one, one), "Against run0").rows
    assert {row[2].text for row in rows} == {"0.0"}
    assert {row[5].text for row in rows} == {"may be chance"}


def test_runs_on_other_images_are_a_sentence_not_a_difference():
    blocks = compared(label_evaluation(9), label_evaluation(9, names="fields/{}"))
    texts = [block.words for block in blocks if isinstance(block, Text)]
    assert len(texts) == 1
    assert texts[0].startswith("run0 and run1 cannot be compared image by image: ")
    assert "evaluate both models on the same images" in texts[0]
    assert not [block for block in blocks if isinstance(block, Table) and block.title.startswith("Against")]



def test_three_runs_are_all_compared_with_the_first():
    blocks = compared(label_evaluation(20, 0.5), label_evaluation(20, 0.8, 1), label_evaluation(20, 0.4, 2))
    rows = [row for row in table(blocks, "Against run0").rows if row[1].text == "mIoU"]
    assert [(row[0].text, row[5].text) for row in rows] == [("run1", "better"), ("run2", "worse")]
    assert table(blocks, "Classes").columns == ["class", "run0: IoU %", "run1: IoU %", "run2: IoU %"]
