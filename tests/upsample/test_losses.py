"""Proves that the cross-entropy from grid logits and its gradient are those of torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from composition import CASES, composed

from segmenter import upsample
from segmenter.upsample import Geometry

pytestmark = pytest.mark.usefixtures("one_thread")


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
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=2e-5 * largest + 1e-9)

    total, count = upsample.cross_entropy(logits, labels, geometry, weight=weight, reduction="sum", **options)
    valid = labels[labels != ignore]
    expected = torch.ones(classes)[valid].sum() if weight is None else weight[valid].sum()
    torch.testing.assert_close(count, expected)
    torch.testing.assert_close(total / count, found)


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
    with pytest.raises(ValueError, match="reduction is 'none'; choose 'mean' or 'sum'"):
        upsample.cross_entropy(logits, labels, geometry, reduction="none")
