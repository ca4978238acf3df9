"""Proves that confidence is the top probability of the float64 composition, and that its labels are the labels."""

import pytest
import torch
from composition import CASES, composed
from test_probabilities import mean, several

from segmenter import upsample
from segmenter.upsample import Geometry, bands

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPERATURES = (1.0, 0.6, 1.7)


def tempered(passes, temperature: float) -> torch.Tensor:
    """Mean probabilities (K H W) of the composition at a temperature."""
    return (mean(passes).log() / temperature).softmax(0)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: str(case.seed))
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_of_one_pass_is_that_of_the_composition(case, temperature, monkeypatch):
    monkeypatch.setattr(bands, "TILE", 30_000)
    geometry = case.geometry()
    passes = [(case.logits(geometry)[: geometry.window_count], geometry)]
    labels, top = upsample.confidence(passes, temperature)
    assert torch.equal(labels, upsample.labels(*passes[0])[0])
    # In the composition the smallest probabilities of such logits (up to 250) would be 0, and their logarithm infinite.
    expected = (composed(*passes[0])[0] / temperature).softmax(0)
    torch.testing.assert_close(top.double(), expected.amax(0), atol=2e-5 / temperature, rtol=2e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("tile", [4000, 2_000_000])
def test_of_many_passes_is_that_of_their_mean(temperature, tile, monkeypatch):
    monkeypatch.setattr(bands, "TILE", tile)
    passes = several(0)
    labels, top = upsample.confidence(passes, temperature, torch.uint8)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), upsample.labels_of_mean(passes))
    torch.testing.assert_close(top.double(), tempered(passes, temperature).amax(0), atol=2e-6, rtol=2e-5)
    assert torch.equal(top, upsample.probability_of(passes, labels, temperature))


@pytest.mark.parametrize("passes", [several(2)[2:3], several(2)], ids=["one", "many"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_any_label_has_its_probability_and_an_ignored_one_none(passes, temperature):
    expected = tempered(passes, temperature)
    labels = torch.randint(9, expected.shape[1:], generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    chances = expected.gather(0, labels.long()[None])[0]
    labels[5:20, 30:50], chances[5:20, 30:50] = 255, torch.nan
    found = upsample.probability_of(passes, labels, temperature, ignore=255)
    torch.testing.assert_close(found.double(), chances, atol=2e-6, rtol=2e-5, equal_nan=True)


@pytest.mark.parametrize("passes", [several(2)[2:3], several(2)], ids=["one", "many"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_all_probabilities_at_a_temperature_agree_with_the_confidence(passes, temperature):
    found = torch.cat([part for _, part in upsample.mean_probabilities(passes, temperature)], 1)
    torch.testing.assert_close(found.double(), tempered(passes, temperature), atol=2e-6, rtol=2e-5)
    torch.testing.assert_close(found.amax(0), upsample.confidence(passes, temperature)[1])


def test_sharp_temperatures_and_sure_models_give_one_and_never_nan():
    geometry = Geometry((2, 3), (20, 30))
    logits = 300 * torch.randn(1, 12, 2, 3, generator=torch.Generator().manual_seed(4))
    for passes in ([(logits, geometry)], [(logits, geometry), (logits.flip(-1), geometry)]):
        for temperature in (0.01, 1.0, 100.0):
            _, top = upsample.confidence(passes, temperature)
            assert top.min() >= 1 / 12 - 1e-6
            assert top.max() <= 1 + 1e-6
    _, top = upsample.confidence([(logits[:, :1], geometry)])
    assert torch.equal(top, torch.ones(20, 30))


def test_labels_follow_logits_that_are_not_finite():
    logits = torch.randn(1, 4, 3, 4, generator=torch.Generator().manual_seed(6))
    logits[0, 2, 1, 1], logits[0, 3, 0, 3], logits[0, :, 2, 0] = torch.nan, -torch.inf, -100.0
    geometry = Geometry((3, 4), (24, 32))
    labels, top = upsample.confidence([(logits, geometry)])
    assert torch.equal(labels, upsample.labels(logits, geometry)[0])
    clean = composed(logits, geometry)[0].isfinite().all(0)
    assert torch.equal(top[clean].isnan(), torch.zeros(int(clean.sum()), dtype=torch.bool))


@pytest.mark.parametrize("count", [1, 6], ids=["one", "many"])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_no_tensor_has_all_classes_at_all_pixels(count, temperature, largest_tensor):
    geometry = Geometry((60, 60), (960, 960))
    coarse = torch.randn(1, 30, 15, 15, generator=torch.Generator().manual_seed(7))
    passes = [(5 * torch.nn.functional.interpolate(coarse, (60, 60), mode="bilinear"), geometry)] * count
    with largest_tensor() as largest:
        upsample.confidence(passes, temperature)
    assert largest.elements < 2 * 960 * 960  # a map of labels, with places beyond the border


def test_what_cannot_be_answered_is_refused():
    geometry = Geometry((2, 2), (32, 32))
    passes = [(torch.zeros(1, 3, 2, 2), geometry)]
    for temperature in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="it must be above 0"):
            upsample.confidence(passes, temperature)
    with pytest.raises(ValueError, match="2 windows of logits for one image"):
        upsample.confidence([(torch.zeros(2, 3, 2, 2), geometry)])
    with pytest.raises(ValueError, match=r"labels of shape \(31, 32\) for passes that end at \(32, 32\)"):
        upsample.probability_of(passes, torch.zeros(31, 32))
    with pytest.raises(ValueError, match="the labels hold 7, but there are 3 classes, and 255 is ignored"):
        upsample.probability_of(passes, torch.full((32, 32), 7), ignore=255)
