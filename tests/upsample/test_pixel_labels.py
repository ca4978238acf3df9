"""Proves that labels, logits and counts are those of the float64 composition, in little memory."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from composition import CASES, LARGE, assert_labels, composed, smooth, tolerance

from segmenter import upsample
from segmenter.upsample import Geometry, argmax, bands, candidates

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


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("geometry", LARGE.values(), ids=LARGE)
def test_labels_of_many_blocks(geometry, noise):
    shape = (2 * geometry.window_count, 13, *geometry.grid)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1)) if noise else smooth(shape)
    assert_labels(upsample.labels(logits, geometry), logits, geometry)


@pytest.mark.parametrize("classes", [256, 257, 300])
def test_many_classes(classes):
    geometry = Geometry((4, 5), (64, 80))
    logits = torch.randn(1, classes, 4, 5, generator=torch.Generator().manual_seed(0))
    logits[:, -1, 2, 2] = 9
    found = upsample.labels(logits, geometry)
    assert found.dtype == torch.int64
    assert_labels(found, logits, geometry)
    assert found.max() == classes - 1
    narrow = torch.int32 if classes > 256 else torch.uint8
    assert torch.equal(upsample.labels(logits, geometry, narrow), found.to(narrow))


def test_one_class_is_everywhere():
    assert not upsample.labels(torch.randn(2, 1, 3, 4), Geometry((3, 4), (48, 64))).any()


def test_the_cases_hold_every_kind_of_geometry():
    geometries = [case.geometry() for case in CASES]
    kinds = {
        "windows": lambda g: g.windows is not None,
        "overlap": lambda g: g.windows is not None and any(b < g.window_size[1] for b in g.windows[1][1:2]),
        "300 classes": lambda g: CASES[geometries.index(g)].logits(g).shape[1] == 300,
        "enlarged at last": lambda g: g.final is not None and g.final[0] > g._canvas[0],
        "made smaller at last": lambda g: g.final is not None and g.final[1] < g._canvas[1],
        "mirrored": lambda g: g.mirrored,
        "corners aligned": lambda g: g.align_corners,
        "cropped": lambda g: g.window_size != g.extent,
        "grid finer than the image": lambda g: g.grid[0] > g.size[0],
        "stride 14": lambda g: g.extent[0] == 14 * g.grid[0],
        "plain": lambda g: g.windows is None and g.final is None and not g.mirrored,
    }
    for name, holds in kinds.items():
        assert sum(map(holds, geometries)) >= 5, name


@pytest.mark.parametrize("stride", [2, 8, 16, 32, 64])
@pytest.mark.parametrize("windows", [None, ((0, 32), (0, 32))])
@pytest.mark.parametrize("final", [False, True])
def test_exact_arithmetic_is_bit_identical_and_the_first_class_wins_ties(stride, windows, final):
    grid = (64 // stride, 128 // stride)
    geometry = Geometry(grid, (64, 128), content=(64, 128), windows=windows)
    if final:
        geometry = replace(geometry, final=tuple(2 * side for side in geometry.size))
    generator = torch.Generator().manual_seed(stride)
    logits = torch.randint(-3, 4, (2 * geometry.window_count, 12, *grid), generator=generator).float()
    logits[:, 7] = logits[:, 2]  # a tie at every pixel
    pixels = composed(logits, geometry)
    first = (pixels == pixels.amax(1, keepdim=True)).float().argmax(1)  # of ones and zeros: the first one
    found = upsample.labels(logits, geometry)
    assert torch.equal(found, first)
    assert 7 not in found
    if windows is None and not final:
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


@pytest.mark.parametrize("size", [1, 5000])
def test_how_much_is_done_at_once_changes_nothing(monkeypatch, size):
    windowed = Geometry((4, 5), (64, 80), content=(61, 70), windows=((0, 20), (0, 30, 55)), final=(97, 131))
    plain = Geometry((4, 5), (64, 80), content=(61, 70))
    generator = torch.Generator().manual_seed(1)
    cases = [
        (torch.randn(2 * 6, 7, 4, 5, generator=generator), windowed),
        (torch.randint(-3, 4, (1, 7, 4, 5), generator=generator).float(), plain),
        (torch.randn(1, 7, 61, 70, generator=generator), Geometry((61, 70), (61, 70))),
    ]
    before = [upsample.labels(*case) for case in cases]
    for module, name in ((bands, "TILE"), (argmax, "POINTS"), (candidates, "PIXELS")):
        monkeypatch.setattr(module, name, size)
    for (logits, geometry), expected in zip(cases, before, strict=True):
        found = upsample.labels(logits, geometry)
        assert_labels(found, logits, geometry)
        # Products of other shapes may round otherwise.
        assert (found != expected).float().mean() < 1e-3
    assert torch.equal(upsample.labels(*cases[1]), before[1])  # nothing is rounded there


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_what_the_network_computes_in_changes_nothing(precision):
    geometry = Geometry((4, 5), (64, 80), final=(97, 131))
    logits = torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(0)) * 30
    expected = upsample.labels(logits, geometry)
    probabilities = [part for _, part in upsample.mean_probabilities([(logits, geometry)])]
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(upsample.labels(logits, geometry), expected)
            found = [part for _, part in upsample.mean_probabilities([(logits, geometry)])]
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(*pair) for pair in zip(found, probabilities, strict=True))


def test_in_a_compiled_function():
    geometry = Geometry((4, 5), (64, 80))
    logits = torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(lambda x: upsample.labels(x * 2, geometry) + 1, backend="eager")
    assert torch.equal(compiled(logits), upsample.labels(logits * 2, geometry) + 1)


@pytest.mark.parametrize("reduce", ["labels", "confusion", "labels_of_mean"])
@pytest.mark.parametrize("windowed", [False, True])
def test_no_tensor_of_classes_times_pixels(monkeypatch, largest_tensor, reduce, windowed):
    monkeypatch.setattr(bands, "TILE", 50_000)
    monkeypatch.setattr(argmax, "POINTS", 50_000)
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
    with largest_tensor() as largest:
        calls[reduce]()
    pixels = size[0] * size[1]
    assert pixels / 4 <= largest.elements < classes * pixels / 4


@pytest.mark.parametrize("final", [None, (700, 600)])
def test_memory_at_the_usual_size(largest_tensor, final):
    """150 classes, 512 x 512 pixels: the largest tensor is less than a twentieth of the full logits."""
    geometry = Geometry((32, 32), (512, 512), final=final)
    with largest_tensor() as largest:
        upsample.labels(smooth((1, 150, 32, 32)), geometry)
    assert largest.elements < 150 * 512 * 512 / 20


NOT_FINITE = {
    "plain": Geometry((4, 5), (64, 80), content=(60, 77)),
    "mirrored": Geometry((4, 5), (64, 80), content=(60, 77), mirrored=True),
    "corners aligned": Geometry((4, 5), (61, 78), align_corners=True),
    "windows": Geometry((4, 5), (64, 80), windows=((0, 40), (0, 33)), final=(110, 140)),
    "made smaller": Geometry((4, 5), (64, 80), final=(7, 9)),
}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("geometry", NOT_FINITE.values(), ids=NOT_FINITE)
def test_what_is_not_finite_stays_where_its_cell_has_weight(geometry, bad):
    # As in torch's argmax, nan is the largest value and the first one wins. torch multiplies cells of weight zero
    # too, which spreads what is not finite a little further; never less far.
    logits = torch.randn(2 * geometry.window_count, 6, 4, 5, generator=torch.Generator().manual_seed(3))
    here = torch.zeros_like(logits)
    here[0, 3, 2, 2] = 1
    reach = composed(here, geometry)[:, 3] > 0  # pixels of the cell
    assert reach[0].any()
    assert not reach[1].any()
    spoilt = logits.masked_fill(here > 0, bad)
    assert not composed(spoilt, geometry)[:, 3][reach].isfinite().any()
    found = upsample.labels(spoilt, geometry)
    pixels = composed(logits.masked_fill(here > 0, 0), geometry)
    pixels[:, 3][reach] = -torch.inf if bad == -torch.inf else torch.inf
    best, second = pixels.topk(2, 1).values.unbind(1)
    clear = best - second > tolerance(logits)
    assert torch.equal(found[clear], pixels.argmax(1)[clear])
    assert clear[reach].any()

    passes = [(spoilt[: geometry.window_count], geometry)]
    probabilities = torch.cat([part for _, part in upsample.mean_probabilities(passes)], 1)
    if bad == -torch.inf:
        assert probabilities.isfinite().all()
        assert torch.equal(probabilities[3] == 0, reach[0])
    else:
        assert torch.equal(probabilities.isnan(), reach[:1].expand(6, -1, -1))


def test_where_values_that_are_not_finite_meet():
    geometry = Geometry((2, 2), (32, 32))
    logits = torch.zeros(1, 4, 2, 2)
    logits[0, 3] = torch.inf
    assert (upsample.labels(logits, geometry) == 3).all()
    logits[0, 2, 0, 0] = torch.nan
    found = upsample.labels(logits, geometry)
    assert (found[0, :24, :24] == 2).all()
    assert (found[0, 24:] == 3).all()
    assert (found[0, :, 24:] == 3).all()
    logits[0, 2, 0, 0] = 0
    logits[0, 1] = torch.tensor([[-torch.inf, 0], [0, torch.inf]])
    found = upsample.labels(logits, geometry)  # nan where they meet, beyond that infinite as class 3, and before it
    assert (found[0, 8:, 8:] == 1).all()
    assert (found == 1).sum() == 24 * 24


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


def test_true_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="labels hold 3, but there are 3 classes, and 255 is ignored"):
        upsample.count(torch.zeros(1, 2, dtype=torch.uint8), torch.tensor([[255, 3]]), 3)


def test_wrong_true_labels_are_refused():
    geometry = Geometry((4, 5), (64, 80))
    with pytest.raises(ValueError, match=r"\(1, 64, 80\) against labels \(1, 80, 64\)"):
        upsample.confusion(torch.zeros(1, 3, 4, 5), torch.zeros(1, 80, 64, dtype=torch.int64), geometry)
