"""Proves that labels, logits and counts are those of the float64 composition, in little memory."""

import pytest
import torch
import torch.nn.functional as F
from composition import CASES, assert_labels, composed, tolerance
from torch.utils._python_dispatch import TorchDispatchMode

from segmenter import upsample
from segmenter.upsample import Geometry, bands

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.seed))
def test_labels_and_logits_are_those_of_the_composition(case):
    geometry = case.geometry()
    logits = case.logits(geometry)
    assert_labels(upsample.labels(logits, geometry), logits, geometry)
    pixels = upsample.logits(logits, geometry)
    assert pixels.dtype == torch.float32
    expected = composed(logits, geometry)
    assert pixels.shape == expected.shape
    assert (pixels - expected).abs().max() <= tolerance(logits)


def test_the_cases_hold_every_kind_of_geometry():
    geometries = [case.geometry() for case in CASES]
    kinds = {
        "windows": lambda g: g.windows is not None,
        "overlap": lambda g: g.windows is not None and any(b < g.kept[1] for b in g.windows[1][1:2]),
        "300 classes": lambda g: CASES[geometries.index(g)].logits(g).shape[1] == 300,
        "enlarged at last": lambda g: g.final is not None and g.final[0] > g._canvas[0],
        "made smaller at last": lambda g: g.final is not None and g.final[1] < g._canvas[1],
        "mirrored": lambda g: g.mirrored,
        "corners aligned": lambda g: g.align_corners,
        "cropped": lambda g: g.kept != g.extent,
        "grid finer than the image": lambda g: g.grid[0] > g.size[0],
        "stride 14": lambda g: g.extent[0] == 14 * g.grid[0],
        "plain": lambda g: g.windows is None and g.final is None and not g.mirrored,
    }
    for name, holds in kinds.items():
        assert sum(map(holds, geometries)) >= 5, name


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
@pytest.mark.parametrize("windows", [None, ((0, 32), (0, 32))])
def test_exact_arithmetic_is_bit_identical_and_the_first_class_wins_ties(stride, windows):
    grid = (64 // stride, 128 // stride)
    geometry = Geometry(grid, (64, 128), content=(64, 128), windows=windows)
    generator = torch.Generator().manual_seed(stride)
    logits = torch.randint(-3, 4, (2 * geometry.window_count, 12, *grid), generator=generator).float()
    logits[:, 7] = logits[:, 2]  # a tie at every pixel
    pixels = composed(logits, geometry)
    first = (pixels == pixels.amax(1, keepdim=True)).float().argmax(1)  # of ones and zeros: the first one
    found = upsample.labels(logits, geometry)
    assert torch.equal(found, first)
    assert 7 not in found
    if windows is None:
        assert torch.equal(found, F.interpolate(logits, geometry.extent, mode="bilinear").argmax(1))
        assert torch.equal(upsample.logits(logits, geometry).double(), pixels)


def test_equal_logits_everywhere_are_class_zero():
    geometry = Geometry((3, 5), (48, 80), final=(61, 33))
    assert not upsample.labels(torch.full((1, 9, 3, 5), 0.25), geometry).any()


def test_half_precision_logits_are_taken_as_float32():
    geometry = Geometry((4, 5), (64, 80))
    logits = torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(upsample.labels(logits, geometry), upsample.labels(logits.float(), geometry))
    assert upsample.logits(logits, geometry).dtype == torch.float32


@pytest.mark.parametrize("band", [1, 5000])
def test_bands_change_nothing(monkeypatch, band):
    geometry = Geometry((4, 5), (64, 80), content=(61, 70), windows=((0, 20), (0, 30, 55)), final=(97, 131))
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2 * 6, 7, 4, 5, generator=generator)
    whole = torch.randint(-3, 4, (1, 7, 4, 5), generator=generator).float()
    plain = Geometry((4, 5), (64, 80), content=(61, 70))
    one_band, exact = upsample.labels(noise, geometry), upsample.labels(whole, plain)
    monkeypatch.setattr(bands, "BAND", band)
    rows = [rows for rows, _ in bands.bands(noise[:6], geometry)]
    assert len(rows) > 1
    assert [i for part in rows for i in range(part.start, part.stop)] == list(range(97))
    assert_labels(upsample.labels(noise, geometry), noise, geometry)
    # Matrix products of other shapes may round otherwise; where nothing is rounded, nothing changes.
    assert (upsample.labels(noise, geometry) != one_band).float().mean() < 1e-3
    assert torch.equal(upsample.labels(whole, plain), exact)


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("reduce", ["labels", "confusion", "labels_of_mean"])
@pytest.mark.parametrize("windowed", [False, True])
def test_no_tensor_of_classes_times_pixels(monkeypatch, reduce, windowed):
    monkeypatch.setattr(bands, "BAND", 50_000)
    classes, size = 40, (120, 150)
    windows = ((0, 20), (0, 16, 32)) if windowed else None
    geometry = Geometry((5, 6), (80, 96), windows=windows, final=size)
    logits = torch.randn(geometry.window_count, classes, 5, 6, generator=torch.Generator().manual_seed(2))
    truth = torch.zeros(1, *size, dtype=torch.int64)
    calls = {
        "labels": lambda: upsample.labels(logits, geometry),
        "confusion": lambda: upsample.confusion(logits, truth, geometry),
        "labels_of_mean": lambda: upsample.labels_of_mean([(logits, geometry)] * 3),
    }
    with Largest() as largest:
        calls[reduce]()
    pixels = size[0] * size[1]
    assert pixels <= largest.elements < classes * pixels / 4


def test_the_band_of_a_photo_is_far_below_classes_times_pixels():
    size, classes = (1200, 1600), 150
    assert classes * size[0] * size[1] / bands.BAND > 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_do_not_crash(bad):
    # As in torch's argmax, NaN counts as the largest value and the first NaN wins. Infinities become NaN
    # where their weight is zero, so that a class with one may win far from it; other images are not touched.
    geometry = Geometry((4, 5), (64, 80), content=(60, 77))
    logits = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(3))
    clean = upsample.labels(logits, geometry)
    logits[0, 3, 2, 2] = bad
    labels = upsample.labels(logits, geometry)
    assert labels.dtype == torch.int64
    assert labels.min() >= 0
    assert labels.max() < 6
    assert torch.equal(labels[1], clean[1])
    nan = composed(logits, geometry)[0].isnan().any(0)
    assert (labels[0][nan] == 3).all()


def test_all_nan_is_class_zero_as_in_torch():
    geometry = Geometry((2, 2), (4, 4))
    logits = torch.full((1, 3, 2, 2), float("nan"))
    assert torch.equal(upsample.labels(logits, geometry), composed(logits, geometry).argmax(1))


def test_counts_are_those_of_the_labels():
    geometry = Geometry((4, 5), (64, 80), windows=((0, 30), (0,)), final=(50, 41), mirrored=True)
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(4, 5, 4, 5, generator=generator)
    truth = torch.randint(0, 6, (2, 50, 41), generator=generator)
    truth[truth == 5] = 255
    predicted = upsample.labels(logits, geometry)
    expected = torch.zeros(5, 5, dtype=torch.int64)
    for true in range(5):
        for guess in range(5):
            expected[true, guess] = ((truth == true) & (predicted == guess)).sum()
    counts = upsample.confusion(logits, truth, geometry)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, expected)
    assert counts.sum() == (truth != 255).sum()
    assert torch.equal(upsample.count(predicted, truth, 5, ignore=255), expected)
    assert not upsample.count(predicted, torch.full_like(truth, 255), 5).any()


def test_counts_of_more_than_255_classes():
    predicted = torch.tensor([[0, 299, 299]])
    truth = torch.tensor([[0, 299, 65535]])
    counts = upsample.count(predicted, truth, 300, ignore=65535)
    assert counts[0, 0] == counts[299, 299] == 1
    assert counts.sum() == 2


def test_counts_take_8_bit_labels_without_overflow():
    truth = torch.tensor([[200, 255]], dtype=torch.uint8)
    counts = upsample.count(torch.tensor([[199, 0]], dtype=torch.uint8), truth, 201)
    assert counts[200, 199] == counts.sum() == 1


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 3, 4, 5), (3, 4, 5)])
def test_wrong_shapes_are_refused(shape):
    geometry = Geometry((4, 5), (64, 80), windows=((0, 8), (0,)))
    for function in (upsample.labels, upsample.logits):
        with pytest.raises(ValueError, match=r"do not fit a grid of \(4, 5\) with 2 windows"):
            function(torch.zeros(shape), geometry)


def test_wrong_true_labels_are_refused():
    geometry = Geometry((4, 5), (64, 80))
    with pytest.raises(ValueError, match=r"\(1, 64, 80\) against labels \(1, 80, 64\)"):
        upsample.confusion(torch.zeros(1, 3, 4, 5), torch.zeros(1, 80, 64, dtype=torch.int64), geometry)
