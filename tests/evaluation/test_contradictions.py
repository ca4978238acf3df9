"""Proves that contradictions are weighed and compared as is written, against loops over pixels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from segmenter import upsample
from segmenter.data.classes import Classes, default_colors
from segmenter.evaluation import contradictions as module
from segmenter.evaluation.contradictions import Contradictions, Region, Seen, compared, contradictions
from segmenter.evaluation.doubtful import compare, looked_at, middles

IGNORE = 255


def random_seen(seed: int = 0, size: tuple[int, int] = (12, 15), classes: int = 4) -> Seen:
    """Labels in areas of three pixels, a tenth of them ignored, and probabilities that fit."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(classes, size=(2, *(-(-side // 3) for side in size)), dtype=np.uint8)
    given, predicted = coarse.repeat(3, 1).repeat(3, 2)[:, : size[0], : size[1]]
    given[generator.random(size) < 0.1] = IGNORE
    chance = np.where(given == predicted, 0.8, 0.3 * generator.random(size)).astype(np.float32)
    chance[given == IGNORE] = math.nan
    return Seen(given, predicted, chance, np.full(size, 0.7, np.float32), (2.0, 3.0))


def test_weights_and_softmin_are_those_of_a_loop(monkeypatch):
    seen = random_seen()
    monkeypatch.setattr(module, "PART", 50)
    found = contradictions(seen, IGNORE)
    weights, over, under, count = {}, 0.0, 0.0, 0
    for given, predicted, chance in zip(seen.given.flat, seen.predicted.flat, seen.given_probability.flat, strict=True):
        if given == IGNORE:
            continue
        count, over, under = count + 1, over + chance * math.exp(-chance / 0.1), under + math.exp(-chance / 0.1)
        if given != predicted:
            pair = int(given), int(predicted)
            weights[pair] = weights.get(pair, 0) + math.exp(-chance / module.SHARP)
    assert found.softmin == pytest.approx(over / under, rel=1e-5)
    assert {tuple(pair) for pair in found.pairs.tolist()} == weights.keys()
    for pair, weight in zip(found.pairs.tolist(), found.weights.tolist(), strict=True):
        assert weight == pytest.approx(weights[tuple(pair)] / count, rel=1e-5)


def test_a_region_says_where_it_is_and_what_it_holds():
    given, predicted = np.zeros((8, 10), np.uint8), np.zeros((8, 10), np.uint8)
    predicted[2:5, 3:7] = 2
    given[7, 0], predicted[7, 0] = 1, 0
    chance = np.where(given == predicted, 0.9, 0.02).astype(np.float32)
    chance[2, 3] = 0.5  # not clear: outside the region
    found = contradictions(Seen(given, predicted, chance, np.full((8, 10), 0.75, np.float32), (2.0, 3.0)), IGNORE)
    large, small = found.regions
    assert (large.given, large.predicted, large.box, large.pixels) == (0, 2, (4, 9, 10, 21), 66)
    assert large.given_probability == pytest.approx(0.02)
    assert large.predicted_probability == pytest.approx(0.75)
    assert large.doubt == pytest.approx(11 * math.exp(-0.02 / module.SHARP) / 80, rel=1e-5)
    assert (small.given, small.predicted, small.box) == (1, 0, (14, 0, 16, 3))


def test_regions_of_one_pair_are_apart_and_only_the_heaviest_are_kept(monkeypatch):
    monkeypatch.setattr(module, "REGIONS", 3)
    given, predicted = np.zeros((9, 20), np.uint8), np.zeros((9, 20), np.uint8)
    for number in range(5):
        predicted[: number + 1, 4 * number] = 1
    chance = np.where(given == predicted, 0.9, 0.01).astype(np.float32)
    found = contradictions(Seen(given, predicted, chance, chance, (1.0, 1.0)), IGNORE)
    assert [region.pixels for region in found.regions] == [5, 4, 3]
    assert [region.box[1] for region in found.regions] == [16, 12, 8]


def one(weights: dict[tuple[int, int], float]) -> Contradictions:
    """An image with one region for each pair, which has half of its weight."""
    regions = [Region(*pair, (0, 0, 1, 1), 1, 0.0, 1.0, weight / 2) for pair, weight in weights.items()]
    return Contradictions(np.array([*weights]).reshape(-1, 2), np.array([*weights.values()]), 0.5, regions)


def test_what_is_usual_in_the_others_is_no_reason_to_doubt():
    images = [one({(0, 1): 0.10, (2, 1): 0.03}), one({(0, 1): 0.04}), one({(0, 1): 0.02}), one({})]
    first, second, third, none = compared(images)
    assert first.doubt == pytest.approx(0.10 - 2 * (0.04 + 0.02) / 3 + 0.03)
    assert [(r.given, r.predicted) for r in first.regions] == [(0, 1), (2, 1)]
    assert [r.doubt for r in first.regions] == pytest.approx([0.03, 0.015])
    assert (second.doubt, third.doubt, none.doubt) == (0, 0, 0)
    assert not second.regions


def test_an_image_alone_has_nothing_that_is_usual():
    (alone,) = compared([one({(0, 1): 0.1})])
    assert alone.doubt == pytest.approx(0.1)
    assert compared([]) == []


def test_a_mask_without_labels_is_not_doubtful():
    seen = random_seen()
    found = contradictions(replace(seen, given=np.full_like(seen.given, IGNORE)), IGNORE)
    assert compared([found])[0] == module.Doubt(0.0, 1.0, [])


def test_probabilities_that_are_not_numbers_count_as_none():
    given, predicted = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    nothing = np.full((2, 2), math.nan, np.float32)
    found = contradictions(Seen(given, predicted, nothing, nothing, (1.0, 1.0)), IGNORE)
    assert found.weights.tolist() == [1]
    assert found.softmin == 0


def test_labels_of_sixteen_bits():
    given, predicted = np.full((3, 3), 300, np.uint16), np.full((3, 3), 65000, np.int32)
    chance = np.zeros((3, 3), np.float32)
    found = contradictions(Seen(given, predicted, chance, chance + 1, (1.0, 1.0)), 65535)
    assert found.pairs.tolist() == [[300, 65000]]
    assert (found.regions[0].given, found.regions[0].predicted) == (300, 65000)


def test_models_see_what_the_mean_of_their_probabilities_says():
    generator = torch.Generator().manual_seed(0)
    geometry = upsample.Geometry((3, 4), (24, 32))
    passes = [(4 * torch.randn(1, 5, 3, 4, generator=generator), geometry) for _ in range(2)]
    mask = np.random.default_rng(0).integers(5, size=(24, 32), dtype=np.uint8)
    mask[:2] = IGNORE
    found = compare(passes, mask, Classes(tuple("abcde"), default_colors(5)))
    mean = sum(upsample.logits(*one).softmax(1)[0] for one in passes).numpy() / 2  # K H W
    assert np.array_equal(found.predicted, mean.argmax(0))
    np.testing.assert_allclose(found.predicted_probability, mean.max(0), atol=1e-5)
    expected = np.take_along_axis(mean, np.where(mask == IGNORE, 0, mask)[None].astype(int), 0)[0]
    expected[:2] = np.nan
    np.testing.assert_allclose(found.given_probability, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(3000, 4000), (20, 90000), (500, 501)])
def test_a_large_photo_is_looked_at_with_fewer_pixels(size):
    final = looked_at(size)
    assert 150_000 < math.prod(final) <= 200_000
    assert final[0] / final[1] == pytest.approx(size[0] / size[1], rel=0.1)
    places = middles(size[1], final[1])
    assert (len(places), places[0] >= 0, places[-1] < size[1]) == (final[1], True, True)


def test_a_small_photo_is_looked_at_as_it_is():
    assert looked_at((360, 480)) == (360, 480)
    assert middles(5, 5).tolist() == [0, 1, 2, 3, 4]
