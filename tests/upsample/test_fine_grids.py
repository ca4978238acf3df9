"""Proves that where pixels are cells torch's own loss takes the logits as they are, and nothing is enlarged."""

import pytest
import torch
import torch.nn.functional as F
from composition import assert_labels, composed

from segmenter import upsample
from segmenter.upsample import Geometry, pixel_losses
from segmenter.upsample.axis import Axis

pytestmark = pytest.mark.usefixtures("one_thread")

FINE = {
    "as it is": Geometry((40, 50), (40, 50)),
    "cropped": Geometry((40, 50), (40, 50), content=(37, 41)),
    "mirrored": Geometry((40, 50), (40, 50), content=(40, 45), mirrored=True),
    "corners aligned": Geometry((40, 50), (40, 50), align_corners=True),
    "one row": Geometry((1, 50), (1, 50)),
}
HALF = {"rows alone": Geometry((40, 5), (40, 80)), "columns alone": Geometry((5, 90), (80, 90), content=(79, 85))}


@pytest.fixture
def no_matrix(monkeypatch):
    """Enlarging anything fails."""

    def refuse(*_):
        raise AssertionError("pixels that are cells need no weights")

    monkeypatch.setattr(Axis, "matrix", refuse)


@pytest.fixture
def taken(monkeypatch):
    """Elements of each of the logits that torch's loss was called with."""
    sizes, cross_entropy = [], F.cross_entropy

    def call(logits, *given, **options):
        sizes.append(logits.numel())
        return cross_entropy(logits, *given, **options)

    monkeypatch.setattr(F, "cross_entropy", call)
    return sizes


def made(geometry: Geometry, classes: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two images, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (2, *geometry.size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return torch.randn(2, classes, *geometry.grid, generator=generator) * 3, labels


@pytest.mark.parametrize("geometry", FINE.values(), ids=FINE)
@pytest.mark.parametrize("small", [pixel_losses.SMALL, 2000])
def test_torch_takes_the_logits_as_they_are(geometry, small, no_matrix, taken, monkeypatch):
    monkeypatch.setattr(pixel_losses, "SMALL", small)
    logits, labels = made(geometry)
    given = logits.clone().requires_grad_()
    upsample.cross_entropy(given, labels, geometry).backward()
    assert sum(taken) == 2 * 30 * geometry.size[0] * geometry.size[1]
    assert max(taken) <= max(small, 30 * geometry.size[1])
    wanted = logits.clone().requires_grad_()
    F.cross_entropy(composed(wanted, geometry), labels, ignore_index=255).backward()
    torch.testing.assert_close(given.grad, wanted.grad)


@pytest.mark.parametrize("geometry", FINE.values(), ids=FINE)
def test_labels_are_those_of_the_cells(geometry, no_matrix):
    logits, _ = made(geometry)
    assert torch.equal(upsample.labels(logits, geometry), composed(logits, geometry).argmax(1))
    probabilities = torch.cat([part for _, part in upsample.mean_probabilities([(logits[:1], geometry)])], 1)
    wanted = composed(logits[:1], geometry)[0].softmax(0)
    torch.testing.assert_close(probabilities.double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("geometry", HALF.values(), ids=HALF)
@pytest.mark.parametrize("small", [pixel_losses.SMALL, 2000])
@pytest.mark.parametrize("side", [pixel_losses.SIDE, 20])
def test_along_one_axis_alone(geometry, small, side, monkeypatch):
    monkeypatch.setattr(pixel_losses, "SMALL", small)
    monkeypatch.setattr(pixel_losses, "SIDE", side)
    logits, labels = made(geometry, 20)
    assert_labels(upsample.labels(logits, geometry), logits, geometry)
    given, wanted = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = upsample.cross_entropy(given, labels, geometry)
    expected = F.cross_entropy(composed(wanted, geometry), labels, ignore_index=255)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    (given_gradient,), (wanted_gradient,) = torch.autograd.grad(loss, given), torch.autograd.grad(expected, wanted)
    assert (given_gradient.double() - wanted_gradient).norm() < 1e-6 * wanted_gradient.norm()


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_left_to_torch(classes, taken):
    geometry = Geometry((9, 12), (144, 192))
    logits, labels = made(geometry, classes)
    upsample.cross_entropy(logits, labels, geometry)
    assert sum(taken) == 2 * classes * 144 * 192
