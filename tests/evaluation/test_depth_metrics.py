"""Proves that depth is aligned and scored as the literature defines it, on made-up pixels and on real disparity."""

import math

import numpy as np
import pytest
import torch
from skimage import data as pictures

from segmenter.config import Augment, Depth, DptDepth, Encoder, Recipe
from segmenter.data.depth_data import DEPTH_CLASSES, scene_depth
from segmenter.data.samples import SceneSample
from segmenter.errors import UserError
from segmenter.evaluation.depth_metrics import METRICS, DepthScores, align, errors, image_sums
from segmenter.evaluation.evaluate import evaluate, totals
from segmenter.model.segmenter import Segmenter

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("one_thread")


class Known:
    """A sample from arrays."""

    name, labelled = "known", True

    def __init__(self, image: np.ndarray, inverse: np.ndarray):
        self._image, self._inverse = image, inverse

    def image(self) -> np.ndarray:
        return self._image

    def target(self) -> np.ndarray:
        return self._inverse


def named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(METRICS, values.tolist(), strict=True))


def scored(sums: np.ndarray) -> dict[str, float]:
    return DepthScores(sums, "none").to_dict()


def untrained(target: str = "inverse", **depth) -> Segmenter:
    """A tiny model with random weights."""
    torch.manual_seed(0)
    recipe = Recipe(
        augment=Augment(short_side=64, crop=(64, 96)),
        encoder=Encoder("vit_tiny_patch16_224", depth=4, width=48, heads=3, drop_path=0.0),
        decoder=DptDepth(width=16),
        depth=Depth(target=target, **depth),
    )
    return Segmenter(recipe, DEPTH_CLASSES).eval()


def test_errors_are_those_of_the_definitions():
    truth, depth = RNG.uniform(1, 50, 200), RNG.uniform(1, 50, 200)
    found = named(errors(depth, truth))
    pairs = list(zip(depth.tolist(), truth.tolist(), strict=True))
    for power in (1, 2, 3):
        within = [max(p / t, t / p) < 1.25**power for p, t in pairs]
        assert found[f"delta{power}"] == pytest.approx(sum(within) / 200)
    assert found["abs_rel"] == pytest.approx(sum(abs(p - t) / t for p, t in pairs) / 200)
    assert found["sq_rel"] == pytest.approx(sum((p - t) ** 2 / t for p, t in pairs) / 200)
    assert found["rmse"] == pytest.approx(math.sqrt(sum((p - t) ** 2 for p, t in pairs) / 200))
    logs = [math.log(p) - math.log(t) for p, t in pairs]
    assert found["rmse_log"] == pytest.approx(math.sqrt(sum(g * g for g in logs) / 200))
    variance = sum(g * g for g in logs) / 200 - (sum(logs) / 200) ** 2
    assert found["silog"] == pytest.approx(100 * math.sqrt(variance))
    assert found["log10"] == pytest.approx(sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / 200)


def test_a_perfect_prediction():
    found = named(errors(np.array([1.0, 7, 80]), np.array([1.0, 7, 80])))
    assert found == dict.fromkeys(METRICS, 0.0) | {"delta1": 1, "delta2": 1, "delta3": 1}


def test_a_factor_changes_silog_not_and_a_quarter_is_not_within():
    truth = np.array([1.0, 2, 4, 8])
    found = named(errors(1.25 * truth, truth))
    assert found["silog"] == pytest.approx(0, abs=1e-9)
    assert found["delta1"] == 0  # the ratio must be below 1.25
    assert found["delta2"] == 1
    assert found["abs_rel"] == pytest.approx(0.25)


def test_least_squares_undoes_any_scale_and_shift():
    truth = RNG.uniform(0.01, 1, 1000)
    for scale, shift in ((3, 0), (0.002, 5), (40, 7)):
        np.testing.assert_allclose(align((truth - shift) / scale, truth, "least_squares"), truth, rtol=1e-6)


def test_least_squares_is_the_best_scale_and_shift():
    truth = RNG.uniform(0.01, 1, 100)
    predicted = truth + RNG.normal(size=100)
    solution, *_ = np.linalg.lstsq(np.stack([predicted, np.ones(100)], 1), truth, rcond=None)
    np.testing.assert_allclose(align(predicted, truth, "least_squares"), solution[0] * predicted + solution[1])


def test_upside_down_is_scored_as_knowing_nothing():
    truth = RNG.uniform(0.01, 1, 100)
    np.testing.assert_allclose(align(3 - 2 * truth, truth, "least_squares"), truth.mean())


@pytest.mark.parametrize("predicted", [np.zeros(5), np.full(5, 3.0), np.array([2.0])])
def test_without_spread_least_squares_gives_the_mean(predicted):
    truth = RNG.uniform(0.1, 1, len(predicted))
    np.testing.assert_allclose(align(predicted, truth, "least_squares"), truth.mean())


def test_the_median_undoes_a_scale_alone():
    truth = RNG.uniform(0.01, 1, 101)
    np.testing.assert_allclose(align(truth / 9, truth, "median"), truth)
    assert not np.allclose(align(truth + 1, truth, "median"), truth)
    # An odd number of pixels: the median of the depth is that of its inverse.
    np.testing.assert_allclose(np.median(1 / align(truth + 1, truth, "median")), np.median(1 / truth))
    assert np.array_equal(align(truth, 2 * truth, "none"), truth)
    assert np.array_equal(align(-truth, truth, "median"), -truth)  # there is no scale that helps


def test_what_is_not_measured_or_too_far_is_not_scored():
    truth = np.array([[0.5, 0.25, np.nan], [0.0, 0.01, 0.0125]], np.float32)
    predicted = np.array([[0.5, 0.25, 99], [99, 99, 0.0125]], np.float32)
    found = scored(image_sums(predicted, truth, "none", max_depth=80))
    assert (found["images"], found["delta1"], found["rmse"]) == (1, 1, 0)
    found = scored(image_sums(np.full((2, 3), -1, np.float32), truth, "none", max_depth=80))
    assert found["rmse"] == pytest.approx(math.sqrt((78**2 + 76**2) / 3))  # farther than 80 m counts as 80 m
    nothing = image_sums(predicted, np.full((2, 3), np.nan, np.float32), "least_squares", 80)
    assert not nothing.any()
    assert scored(nothing) == dict.fromkeys(METRICS, 0) | {"alignment": "none", "images": 0}


def test_sums_of_parts_are_those_of_the_whole():
    model, samples = untrained(), [SceneSample(str(i), 1, i, scene_depth) for i in range(5)]
    parts = [totals(model, part, show=False) for part in (samples[::2], samples[1::2])]
    whole = totals(model, samples, show=False)
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-12)
    assert whole[0] == 5
    scores = evaluate(model, samples, workers=1, show=False)
    assert isinstance(scores, DepthScores)
    np.testing.assert_allclose(scores.sums, whole, rtol=1e-12)
    assert scores.alignment == "least_squares"
    assert scores.to_dict()["delta1"] == scores.delta1
    assert scores.table().splitlines()[-1] == "means over 5 images; alignment least squares"
    assert [line.split()[0] for line in scores.table().splitlines()[:-1]] == list(METRICS)


def test_a_metric_model_is_scored_as_it_is():
    model, samples = untrained("metric"), [SceneSample(str(i), 1, i, scene_depth) for i in range(2)]
    assert evaluate(model, samples, show=False).alignment == "none"
    aligned = evaluate(model, samples, alignment="least_squares", show=False)
    assert aligned.abs_rel < evaluate(model, samples, alignment="none", show=False).abs_rel


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alignment": "none"}, "inverse depth up to an unknown scale and shift, which alignment none cannot score"),
        ({"multiscale": True}, "multiscale averages class probabilities, and a model of depth gives none"),
    ],
)
def test_what_cannot_be_scored_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        evaluate(untrained(), [SceneSample("0", 1, 0, scene_depth)], **options)


def test_nothing_to_score_is_refused():
    with pytest.raises(UserError, match="there are no images to evaluate on; choose another split"):
        evaluate(untrained(), [])
    with pytest.raises(UserError, match=r"nothing measured lies within depth.max_depth, 0.1 m; is data.depth_scale"):
        evaluate(untrained(max_depth=0.1), [SceneSample("0", 1, 0, scene_depth)], show=False)


# The real disparity of Middlebury's motorcycle, which comes with scikit-image


@pytest.fixture(scope="module")
def motorcycle() -> Known:
    left, _, disparity = pictures.stereo_motorcycle()
    return Known(left, np.where(np.isfinite(disparity), disparity, np.nan).astype(np.float32))


def test_noisy_affine_disparity_of_the_motorcycle_aligns(motorcycle):
    truth = motorcycle.target()
    noise = RNG.normal(0, 0.1, truth.shape)
    predicted = (0.03 * (np.nan_to_num(truth) + noise) + 4).astype(np.float32)
    found = scored(image_sums(predicted, truth, "least_squares", max_depth=80))
    assert found["delta1"] == 1
    assert 0.001 < found["abs_rel"] < 0.01
    wrong = scored(image_sums(predicted, truth, "median", max_depth=80))
    assert wrong["delta1"] < 0.9


def test_an_untrained_network_on_the_motorcycle(motorcycle):
    scores = evaluate(untrained(), [motorcycle], show=False).to_dict()
    assert scores.pop("alignment") == "least_squares"
    assert scores.pop("images") == 1
    assert all(math.isfinite(value) for value in scores.values())
    assert 0 < scores["delta1"] < 1
    black = Known(np.zeros_like(motorcycle.image()), motorcycle.target())
    assert 0 < evaluate(untrained(), [black], show=False).delta1 < 1
