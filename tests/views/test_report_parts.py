"""Proves what goes into a report: logs as found, images worth a look, differences that are more than chance."""

import numpy as np
import pytest
from report_examples import CLASSES, label_evaluation, write_log

from segmenter.config import Recipe, Train
from segmenter.evaluation import bootstrap
from segmenter.evaluation.kept_labels import KeptLabels
from segmenter.inspection.places import Box
from segmenter.views.report.attending import asked_point
from segmenter.views.report.choosing import choices
from segmenter.views.report.comparing import comparison
from segmenter.views.report.curves import POINTS, _smoothed, _thinned, curves, read_history
from segmenter.views.report.depth import disagreement
from segmenter.views.report.doubting import most_contradicted, widened
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


def test_smoothing_keeps_straight_lines_and_no_single_value_is_an_end():
    line = np.linspace(3, 7, 500)
    assert np.allclose(_smoothed(line)[10:-10], line[10:-10])
    values = np.zeros(500)
    values[-1] = 7.0
    assert _smoothed(values)[-1] == pytest.approx(1.0)  # seven points


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


# ---- doubtful masks, attention


def test_the_images_of_which_most_is_wrong_with_confidence_come_first():
    kept = label_evaluation(4)
    kept.calibration[:] = 0
    kept.calibration[:, 14] = [(100, 99, 90), (100, 99, 100), (100, 99, 40), (100, 99, 70)]
    kept.calibration[1, 3] = (900, 200, 0)  # wrong, but not sure
    assert most_contradicted(kept) == ["streets/2", "streets/3", "streets/0"]


@pytest.mark.parametrize(
    ("box", "size", "wanted"),
    [
        ((10, 10, 40, 50), (300, 400), (10, 10, 40, 50)),
        ((0, 180, 300, 200), (300, 400), (0, 0, 300, 400)),
        ((100, 0, 110, 400), (300, 400), (0, 0, 300, 400)),
        ((20, 20, 50, 30), (60, 60), (20, 5, 50, 45)),
        ((0, 0, 60, 5), (60, 60), (0, 0, 60, 60)),  # as far as the photo goes
    ],
)
def test_pictures_of_regions_are_of_one_shape_within_the_photo(box, size, wanted):
    assert widened(Box(*box), size) == wanted


class Labelled:
    """A sample of which only the truth is asked for."""

    def __init__(self, truth):
        self.truth = truth

    def target(self):
        return self.truth


def test_the_patch_that_is_asked_lies_in_the_rarest_class_that_is_large_enough():
    truth = np.zeros((100, 120), np.uint8)
    truth[40:60, 80:100], truth[0, 0], truth[90:] = 1, 2, 255
    (row, column), of = asked_point(Labelled(truth), CLASSES)
    assert truth[row, column] == 1
    assert of == "<b>red</b> at "


@pytest.mark.parametrize("truth", [np.full((10, 20), 255, np.uint8), np.zeros((10, 20), np.float32)])
def test_without_classes_the_middle_is_asked(truth):
    assert asked_point(Labelled(truth), CLASSES) == ((5, 10), "")


# ---- depth


def test_errors_of_depth_are_factors_and_relative_depth_is_aligned_first():
    truth = np.array([[0.1, 0.2, 0.4, 0.8, np.nan, 0.0]])
    metric = disagreement(np.array([[0.1, 0.4, 0.2, 80.0, 1.0, 1.0]]), truth, metric=True)
    assert metric[0, :4] == pytest.approx([0, 1, 1, 1])
    assert np.isnan(metric[0, 4:]).all()
    relative = disagreement(5 * truth + 3, truth, metric=False)
    assert relative[0, :4] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert np.isnan(disagreement(truth, np.full((1, 6), np.nan), metric=True)).all()
