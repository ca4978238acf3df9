"""Proves that cross-entropy and Dice from grid logits, and their gradients, are those of torch in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from composition import CASES, LARGE, composed, smooth

from segmenter import upsample
from segmenter.upsample import Geometry, pixel_losses, stream

pytestmark = pytest.mark.usefixtures("one_thread")
EVERYTHING = 10**9


@pytest.fixture(autouse=True, params=[0, EVERYTHING], ids=["blocks", "tiles"])
def _way(request, monkeypatch):
    """Both ways must give the same, whichever is the faster one; windows are always worked on by blocks."""
    monkeypatch.setattr(pixel_losses, "FEW", request.param)
    monkeypatch.setattr(pixel_losses, "NEAR", request.param)


def labels_for(geometry: Geometry, images: int, classes: int, seed: int, ignore: int = 255) -> torch.Tensor:
    """Random labels (B H W), a fifth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images, *geometry.size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = ignore
    labels[0, 0, 0] = seed % classes  # one pixel at least is valid
    return labels


@pytest.mark.parametrize("case", CASES[1::4], ids=lambda case: str(case.seed))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradient(case, smoothing):
    geometry = case.geometry()
    logits = case.logits(geometry).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    classes, images = logits.shape[1], len(logits) // geometry.window_count
    ignore = 255 if classes < 255 else 65535
    labels = labels_for(geometry, images, classes, case.seed, ignore)
    weight = None if case.seed % 3 else torch.linspace(0.5, 3, classes)
    options = {"ignore": ignore, "smoothing": smoothing}
    found = upsample.cross_entropy(logits, labels, geometry, weight=weight, **options)
    wanted = F.cross_entropy(
        composed(exact, geometry),
        labels,
        weight=None if weight is None else weight.double(),
        ignore_index=ignore,
        label_smoothing=smoothing,
    )
    assert found.ndim == 0
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    found.backward()
    wanted.backward()
    largest = exact.grad.abs().max().item()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=2e-5 * largest + 5e-9)

    total, count = upsample.cross_entropy(logits, labels, geometry, weight=weight, reduction="sum", **options)
    valid = labels[labels != ignore]
    expected = torch.ones(classes)[valid].sum() if weight is None else weight[valid].sum()
    torch.testing.assert_close(count, expected)
    torch.testing.assert_close(total / count, found)


def both(geometry: Geometry, logits: torch.Tensor, labels: torch.Tensor, loss, reference) -> tuple[float, float]:
    """Differences of a loss and of its gradient from a reference on float64 pixel logits, relative to their sizes."""
    logits, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    found, wanted = loss(logits, labels, geometry), reference(composed(exact, geometry), labels)
    found.backward()
    wanted.backward()
    difference = (logits.grad.double() - exact.grad).norm() / exact.grad.norm()
    return abs(found.item() / wanted.item() - 1), difference.item()


@pytest.mark.parametrize("geometry", LARGE.values(), ids=LARGE)
def test_many_blocks(geometry):
    logits = smooth((2 * geometry.window_count, 13, *geometry.grid))
    labels = labels_for(geometry, 2, 13, 0)
    options = {"weight": torch.linspace(0.5, 2, 13), "smoothing": 0.1}
    value, gradient = both(
        geometry,
        logits,
        labels,
        lambda *given: upsample.cross_entropy(*given, **options),
        lambda pixels, labels: F.cross_entropy(
            pixels, labels, options["weight"].double(), ignore_index=255, label_smoothing=0.1
        ),
    )
    assert value < 1e-6
    assert gradient < 1e-6


def test_memory_at_the_usual_size(largest_tensor):
    """150 classes, 512 x 512 pixels: the largest tensor is less than a twentieth of the full logits."""
    geometry, logits = Geometry((32, 32), (512, 512)), smooth((1, 150, 32, 32)).requires_grad_()
    with largest_tensor() as largest:
        upsample.cross_entropy(logits, labels_for(geometry, 1, 150, 0), geometry).backward()
    assert largest.elements < 150 * 512 * 512 / 20


def test_as_near_to_float64_as_float32_can_be():
    geometry, logits = Geometry((16, 16), (256, 256)), smooth((1, 60, 16, 16))
    value, gradient = both(
        geometry,
        logits,
        labels_for(geometry, 1, 60, 0),
        upsample.cross_entropy,
        lambda pixels, labels: F.cross_entropy(pixels, labels, ignore_index=255),
    )
    assert value < 5e-7
    assert gradient < 5e-7


@pytest.mark.parametrize("size", [1, 3000])
@pytest.mark.parametrize("name", ["windows, enlarged", "enlarged", "stride 16, cropped, mirrored"])
def test_how_much_is_done_at_once_changes_nothing(monkeypatch, size, name):
    geometry = LARGE[name]
    logits, labels = smooth((2 * geometry.window_count, 5, *geometry.grid)), labels_for(geometry, 2, 5, 0)
    losses = []
    for chunk in (stream.CHUNK, size):
        monkeypatch.setattr(stream, "CHUNK", chunk)
        monkeypatch.setattr(pixel_losses, "SMALL", chunk)
        given = logits.clone().requires_grad_()
        losses.append(upsample.cross_entropy(given, labels, geometry, smoothing=0.1))
        losses[-1].backward()
        losses.append(given.grad)
    torch.testing.assert_close(losses[0], losses[2])
    torch.testing.assert_close(losses[1], losses[3])


@pytest.mark.parametrize("loss", [upsample.cross_entropy, upsample.dice])
def test_the_gradient_repeats_bit_for_bit(loss):
    geometry = Geometry((9, 7), (144, 112), content=(140, 101))
    logits, labels = smooth((2, 11, 9, 7)), labels_for(geometry, 2, 11, 0)
    gradients = []
    for _ in range(2):
        given = logits.clone().requires_grad_()
        loss(given, labels, geometry).backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)


def test_all_pixels_count_in_the_divisor():
    geometry = Geometry((3, 4), (48, 64), content=(45, 60))
    logits, labels = smooth((2, 6, 3, 4)), labels_for(geometry, 2, 6, 0)
    total, _ = upsample.cross_entropy(logits, labels, geometry, reduction="sum")
    found = upsample.cross_entropy(logits, labels, geometry, reduction="all_pixels")
    torch.testing.assert_close(found, total / (2 * 45 * 60))


@pytest.mark.parametrize(("below", "share"), [(0.5, 0.0), (0.3, 0.25), (0.0, 0.1), (1.0, 0.0), (0.7, 1.0)])
def test_hard_pixels(below, share):
    geometry = Geometry((9, 7), (144, 112), content=(140, 101))
    logits, labels = smooth((2, 6, 9, 7)), labels_for(geometry, 2, 6, 0)
    weight = torch.linspace(0.5, 2, 6)
    chance = composed(logits, geometry).softmax(1).gather(1, labels.masked_fill(labels == 255, 0)[:, None])[:, 0]
    of_valid = chance[labels != 255].sort().values
    least = of_valid[max(0, math.ceil(share * len(of_valid)) - 1)]
    hard = labels.masked_fill((chance >= below) & (chance > least), 255)
    assert (hard != 255).any()
    assert ((hard == 255).float().mean() > 0.3) == (below < 1 and share < 1)
    value, gradient = both(
        geometry,
        logits,
        labels,
        lambda *given: upsample.cross_entropy(*given, weight, hard=below, hard_share=share),
        lambda pixels, _: F.cross_entropy(pixels, hard, weight.double(), ignore_index=255),
    )
    assert value < 1e-6
    assert gradient < 1e-6
    _, count = upsample.cross_entropy(logits, labels, geometry, weight, hard=below, hard_share=share, reduction="sum")
    torch.testing.assert_close(count, weight[hard[hard != 255]].sum())


def dice(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The formula, over all pixels at once."""
    valid = labels != 255
    chances = pixels.softmax(1).movedim(1, -1)[valid]  # pixels K
    targets = F.one_hot(labels[valid], pixels.shape[1]).double()
    scores = (2 * (chances * targets).sum(0) + 1) / (chances.sum(0) + targets.sum(0) + 1)
    return (1 - scores[targets.any(0)]).mean()


@pytest.mark.parametrize("name", ["stride 16, cropped", "stride 1.75", "corners aligned", "windows, enlarged"])
def test_dice(name):
    geometry = LARGE[name]
    logits = smooth((2 * geometry.window_count, 7, *geometry.grid))
    labels = labels_for(geometry, 2, 7, 0)
    labels[labels == 3] = 255  # a class that does not occur
    value, gradient = both(geometry, logits, labels, upsample.dice, dice)
    assert value < 1e-6
    assert gradient < 2e-6


def test_dice_of_what_is_perfect_and_of_what_is_not_there():
    geometry = Geometry((2, 2), (32, 32))
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 1] = 100
    logits.requires_grad_()
    assert upsample.dice(logits, torch.full((1, 32, 32), 1), geometry) < 1e-6
    nothing = upsample.dice(logits, torch.full((1, 32, 32), 255), geometry)
    assert nothing == 0
    nothing.backward()
    assert not logits.grad.any()


def test_without_gradient():
    geometry = Geometry((3, 4), (48, 64))
    logits, labels = smooth((1, 6, 3, 4)).requires_grad_(), labels_for(geometry, 1, 6, 0)
    wanted = upsample.cross_entropy(logits, labels, geometry)
    with torch.no_grad():
        found = upsample.cross_entropy(logits, labels, geometry)
    assert wanted.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, wanted)


def test_a_second_derivative_is_refused():
    geometry = Geometry((3, 4), (48, 64))
    logits, labels = smooth((1, 6, 3, 4)).requires_grad_(), labels_for(geometry, 1, 6, 0)
    loss = upsample.cross_entropy(logits, labels, geometry)
    with pytest.raises(RuntimeError, match="no second derivative: take its gradient without create_graph=True"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_under_autocast_and_in_a_compiled_function():
    geometry = Geometry((3, 4), (48, 64), align_corners=True)
    logits, labels = smooth((1, 6, 3, 4)), labels_for(geometry, 1, 6, 0)

    def step(logits):
        return 3 * upsample.cross_entropy(2 * logits, labels, geometry)

    results = []
    for run in (step, torch.autocast("cpu", torch.bfloat16)(step), torch.compile(step, backend="eager")):
        given = logits.clone().requires_grad_()
        loss = run(given)
        loss.backward()
        results.append((loss, given.grad))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad):
    geometry = Geometry((3, 4), (48, 64))
    logits = smooth((1, 6, 3, 4))
    logits[0, 2, 1, 1] = bad
    assert not upsample.cross_entropy(logits, labels_for(geometry, 1, 6, 0), geometry).isfinite()


def test_labels_that_are_no_classes_are_refused():
    geometry = Geometry((3, 4), (48, 64))
    for wrong, dtype in ((6, torch.int64), (200, torch.uint8), (-1, torch.int64)):
        labels = torch.full((1, 48, 64), 255, dtype=dtype)
        labels[0, 3, 3] = wrong
        with pytest.raises(ValueError, match=f"labels hold {wrong}, but there are 6 classes, and 255 is ignored"):
            upsample.cross_entropy(torch.zeros(1, 6, 3, 4), labels, geometry)


def test_other_labels_to_ignore_and_8_bit_labels():
    geometry = Geometry((3, 4), (48, 64))
    logits, labels = smooth((1, 6, 3, 4)), labels_for(geometry, 1, 6, 0)
    wanted = upsample.cross_entropy(logits, labels, geometry)
    torch.testing.assert_close(upsample.cross_entropy(logits, labels.byte(), geometry), wanted)
    torch.testing.assert_close(
        upsample.cross_entropy(logits, labels.masked_fill(labels == 255, -100), geometry, ignore=-100), wanted
    )
    pixels = composed(logits, geometry)
    torch.testing.assert_close(  # a class may be the one to ignore
        upsample.cross_entropy(logits, labels.masked_fill(labels == 255, 2), geometry, ignore=2).double(),
        F.cross_entropy(pixels, labels.masked_fill(labels == 255, 2), ignore_index=2),
    )


def test_sums_add_up_over_parts():
    geometry = Geometry((3, 4), (48, 64), content=(45, 60))
    logits = torch.randn(4, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = labels_for(geometry, 4, 6, 0)
    labels[2:, 10:] = 255  # the halves hold different numbers of pixels, so the mean of means would be wrong
    weight = torch.linspace(1, 2, 6)
    parts = [
        upsample.cross_entropy(logits[part], labels[part], geometry, weight=weight, reduction="sum")
        for part in (slice(0, 2), slice(2, 4))
    ]
    total, count = (sum(values) for values in zip(*parts, strict=True))
    whole = upsample.cross_entropy(logits, labels, geometry, weight=weight)
    torch.testing.assert_close(total / count, whole)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_valid_pixel_is_zero_with_zero_gradient(smoothing):
    geometry = Geometry((3, 4), (48, 64))
    logits = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.full((2, 48, 64), 255)
    loss = upsample.cross_entropy(logits, labels, geometry, smoothing=smoothing)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    total, count = upsample.cross_entropy(logits, labels, geometry, smoothing=smoothing, reduction="sum")
    assert total.item() == count.item() == 0


def test_ignored_pixels_have_no_influence():
    geometry = Geometry((2, 2), (32, 32))
    labels = torch.full((1, 32, 32), 255)
    labels[:, :4, :4] = 1  # within half a stride of the corner: only the first cell counts there
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    upsample.cross_entropy(logits, labels, geometry).backward()
    assert logits.grad[0, :, 0, 0].abs().min() > 0
    assert not logits.grad[0, :, 1].any()
    assert not logits.grad[0, :, :, 1].any()


def test_half_precision_logits():
    geometry = Geometry((3, 4), (48, 64))
    logits = torch.randn(1, 6, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    labels = labels_for(geometry, 1, 6, 0)
    loss = upsample.cross_entropy(logits, labels, geometry)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, upsample.cross_entropy(logits.detach().float(), labels, geometry))
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16
    assert logits.grad.isfinite().all()


def test_very_confident_logits_stay_finite():
    geometry = Geometry((3, 4), (48, 64))
    logits = (torch.randn(1, 6, 3, 4, generator=torch.Generator().manual_seed(0)) * 1e4).requires_grad_()
    loss = upsample.cross_entropy(logits, labels_for(geometry, 1, 6, 0), geometry)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_wrong_shapes_are_refused():
    geometry = Geometry((3, 4), (48, 64), content=(45, 60))
    logits, labels = torch.zeros(2, 6, 3, 4), torch.zeros(2, 45, 60, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"logits of shape \(2, 6, 4, 3\) do not fit a grid of \(3, 4\)"):
        upsample.cross_entropy(logits.mT, labels, geometry)
    for wrong in (labels[:1], labels[:, :44], labels.mT, labels[0]):
        with pytest.raises(ValueError, match=r"do not fit the pixels \(2, 45, 60\) of the geometry"):
            upsample.cross_entropy(logits, wrong, geometry)
    with pytest.raises(ValueError, match="reduction is 'none'; choose 'mean', 'sum', 'all_pixels'"):
        upsample.cross_entropy(logits, labels, geometry, reduction="none")
