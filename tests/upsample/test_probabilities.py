"""Proves that mean probabilities over passes, and their labels, are those of the float64 composition."""

from dataclasses import replace

import pytest
import torch
from composition import CASES, composed

from segmenter import upsample
from segmenter.upsample import Geometry, bands

pytestmark = pytest.mark.usefixtures("one_thread")


def mean(passes) -> torch.Tensor:
    """Mean probabilities (K H W) of the composition."""
    return sum(composed(logits, geometry)[0].softmax(0) for logits, geometry in passes) / len(passes)


def collected(passes) -> torch.Tensor:
    parts = list(upsample.mean_probabilities(passes))
    rows = [row for part, _ in parts for row in range(part.start, part.stop)]
    assert rows == list(range(passes[0][1].size[0]))
    return torch.cat([probabilities for _, probabilities in parts], 1)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: str(case.seed))
@pytest.mark.parametrize("band", [30_000, 2_000_000])
def test_one_pass_is_the_composition(case, band, monkeypatch):
    monkeypatch.setattr(bands, "TILE", band)
    geometry = case.geometry()
    passes = [(case.logits(geometry)[: geometry.window_count], geometry)]
    found, expected = collected(passes), mean(passes)
    # Logits of up to 250 carry float32 errors of 1e-5 into the exponent.
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-4)


def several(seed: int):
    """Three scales, each straight and mirrored, that end at one size."""
    generator = torch.Generator().manual_seed(seed)
    passes = []
    for extent, windows in (((48, 64), None), ((64, 80), ((0, 16), (0, 30))), ((96, 64), ((0,), (0, 40)))):
        grid = (extent[0] // 16, extent[1] // 16)
        geometry = Geometry(grid, extent, windows=windows, final=(71, 93))
        for mirrored in (False, True):
            logits = torch.randn(geometry.window_count, 9, *grid, generator=generator) * 3
            passes.append((logits, replace(geometry, mirrored=mirrored)))
    return passes


def test_passes_are_averaged_and_their_labels_the_best(monkeypatch):
    passes = several(0)
    expected = mean(passes)
    for band in (4000, 2_000_000):
        monkeypatch.setattr(bands, "TILE", band)
        found = collected(passes)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
        labels = upsample.labels_of_mean(passes)
        assert labels.dtype == torch.int64
        chosen = expected.gather(0, labels[None])[0]
        assert (expected.amax(0) - chosen).max() <= 1e-6


def test_a_pass_and_its_mirror_image_give_a_symmetric_result():
    logits = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(5))
    logits = logits + logits.flip(-1)  # of a symmetric image
    geometry = Geometry((3, 5), (48, 80))
    found = collected([(logits, geometry), (logits, replace(geometry, mirrored=True))])
    torch.testing.assert_close(found, found.flip(-1))


def test_labels_of_one_pass_are_the_labels():
    for logits, geometry in several(1):
        found = upsample.labels_of_mean([(logits, geometry)])
        assert torch.equal(found, upsample.labels(logits, geometry)[0])


def test_passes_that_do_not_belong_together_are_refused():
    logits = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match=r"one size, not \[\(32, 32\), \(9, 9\)\]"):
        list(
            upsample.mean_probabilities(
                [(logits, Geometry((2, 2), (32, 32))), (logits, Geometry((2, 2), (32, 32), final=(9, 9)))]
            )
        )
    with pytest.raises(ValueError, match="one size"):
        list(upsample.mean_probabilities([]))
    with pytest.raises(ValueError, match="2 windows of logits for one image of 1 windows"):
        list(upsample.mean_probabilities([(torch.zeros(2, 3, 2, 2), Geometry((2, 2), (32, 32)))]))
    with pytest.raises(ValueError, match="do not fit a grid"):
        upsample.labels_of_mean([(torch.zeros(1, 3, 2, 3), Geometry((2, 2), (32, 32)))])
