"""Proves that the losses of depth and their gradients are those of a float64 computation written out by hand."""

import math

import numpy as np
import pytest
import torch

from segmenter.training.depth_losses import counts, inverse_loss, metric_loss

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("one_thread")
GAP = math.nan


def maps(count: int = 2, size: tuple[int, int] = (9, 13)) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth (B H W), a third of it not measured."""
    truth = RNG.uniform(0.05, 1, (count, *size))
    truth[RNG.random(truth.shape) < 0.33] = GAP
    return RNG.normal(1, 0.5, truth.shape), truth


# By hand: plain loops over the formulas of MiDaS, arXiv 1907.01341, section 5.


def known_pixels(truth: np.ndarray) -> list[tuple[int, int]]:
    return [(y, x) for y in range(truth.shape[0]) for x in range(truth.shape[1]) if not math.isnan(truth[y, x])]


def by_hand_normalized(image: np.ndarray, known: list[tuple[int, int]]) -> np.ndarray:
    values = sorted(image[place] for place in known)
    middle = values[(len(values) - 1) // 2]
    return (image - middle) / (sum(abs(value - middle) for value in values) / len(values))


def by_hand_aligned(image: np.ndarray, goal: np.ndarray, known: list[tuple[int, int]]) -> np.ndarray:
    a00 = sum(image[place] ** 2 for place in known)
    a01 = sum(image[place] for place in known)
    b0 = sum(image[place] * goal[place] for place in known)
    b1 = sum(goal[place] for place in known)
    scale = abs(len(known) * b0 - a01 * b1) / (a00 * len(known) - a01**2)  # least squares, but for the sign
    return scale * (image - a01 / len(known)) + b1 / len(known)


def by_hand_gradients(residual: np.ndarray, known: list[tuple[int, int]]) -> float:
    total = 0.0
    for step in (1, 2, 4, 8):
        here = {place for place in known if place[0] % step == 0 and place[1] % step == 0}
        sums = 0.0
        for y, x in here:
            sums += sum(abs(residual[n] - residual[y, x]) for n in ((y + step, x), (y, x + step)) if n in here)
        total += sums / max(len(here), 1)
    return total


def by_hand_inverse(predicted: np.ndarray, truth: np.ndarray, kind: str, weight: float) -> float:
    total = 0.0
    for image, true in zip(predicted, truth, strict=True):
        known = known_pixels(true)
        goal = by_hand_normalized(true, known)
        brought = by_hand_aligned(image, goal, known) if kind == "mse" else by_hand_normalized(image, known)
        residual = brought - goal
        sizes = sorted(abs(residual[place]) for place in known)
        if kind == "mse":
            sizes = [size**2 for size in sizes]
        if kind == "trimmed":
            sizes = sizes[: int(0.8 * len(sizes))]
        total += sum(sizes) / (2 * len(known)) + weight * by_hand_gradients(residual, known)
    return total


def by_hand_metric(predicted: np.ndarray, truth: np.ndarray, kind: str) -> float:
    total = 0.0
    for image, true in zip(predicted, truth, strict=True):
        known = known_pixels(true)
        if kind == "l1":
            total += sum(abs(image[place] - true[place]) for place in known) / len(known)
        else:
            logs = [math.log(image[place]) - math.log(true[place]) for place in known]
            mean = sum(logs) / len(logs)
            total += math.sqrt(sum(g * g for g in logs) / len(logs) - mean**2 / 2)
    return total


def slopes(function, image: np.ndarray) -> np.ndarray:
    """Gradient of a function by central differences."""
    found = np.zeros_like(image)
    for place in np.ndindex(image.shape):
        ends = []
        for change in (1e-6, -1e-6):
            moved = image.copy()
            moved[place] += change
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / 2e-6
    return found


def value_and_gradient(function, predicted: np.ndarray, dtype: torch.dtype) -> tuple[float, np.ndarray]:
    image = torch.tensor(predicted, dtype=dtype, requires_grad=True)
    loss = function(image)
    loss.backward()
    return loss.item(), image.grad.numpy()


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["mse", "mae", "trimmed"])
def test_inverse_loss_and_its_gradient(kind, weight):
    predicted, truth = maps()
    wanted = by_hand_inverse(predicted, truth, kind, weight)
    gradient = slopes(lambda image: by_hand_inverse(image, truth, kind, weight), predicted)
    for dtype, slack in ((torch.float64, 1e-7), (torch.float32, 2e-5)):
        true = torch.tensor(truth, dtype=dtype)
        value, found = value_and_gradient(lambda image, t=true: inverse_loss(image, t, kind, weight), predicted, dtype)
        assert value == pytest.approx(wanted, rel=slack)
        np.testing.assert_allclose(found, gradient, atol=slack)


@pytest.mark.parametrize("kind", ["silog", "l1"])
def test_metric_loss_and_its_gradient(kind):
    predicted, truth = np.abs(maps()[0]) + 0.1, maps()[1]
    wanted = by_hand_metric(predicted, truth, kind)
    gradient = slopes(lambda image: by_hand_metric(image, truth, kind), predicted)
    for dtype, slack in ((torch.float64, 1e-7), (torch.float32, 2e-5)):
        true = torch.tensor(truth, dtype=dtype)
        value, found = value_and_gradient(lambda image, t=true: metric_loss(image, t, kind), predicted, dtype)
        assert value == pytest.approx(wanted, rel=slack)
        np.testing.assert_allclose(found, gradient, atol=slack)


@pytest.mark.parametrize("kind", ["mse", "mae", "trimmed"])
def test_neither_scale_nor_shift_nor_unit_matters(kind):
    predicted, truth = (torch.tensor(array) for array in maps())
    loss = inverse_loss(predicted, truth, kind, 0.5)
    torch.testing.assert_close(inverse_loss(7 * predicted - 3, truth, kind, 0.5), loss)
    torch.testing.assert_close(inverse_loss(predicted, 1000 * truth, kind, 0.5), loss)
    assert inverse_loss(0.01 * truth.nan_to_num(1) + 5, truth, kind, 0.5) < 1e-9


@pytest.mark.parametrize("kind", ["mse", "mae", "trimmed"])
def test_upside_down_is_worse_than_flat_and_gets_better_on_the_way_there(kind):
    truth = torch.tensor(maps()[1])
    right, flat = truth.nan_to_num(0), torch.full_like(truth, 3.0)
    tilts = torch.tensor(maps()[0])
    losses = [inverse_loss(share * right + 0.02 * tilts, truth, kind, 0.0) for share in (-1, -0.05, 0.05, 1)]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[0] > inverse_loss(flat, truth, kind, 0.0) > losses[3]


def test_images_add_up_and_those_without_two_measurements_count_nothing():
    predicted, truth = (torch.tensor(array) for array in maps(4))
    truth[1] = GAP
    truth[2] = GAP
    truth[2, 3, 3] = 0.5
    assert counts(truth).tolist() == [True, False, False, True]
    for loss in (lambda p, t: inverse_loss(p, t, "mae", 0.5), lambda p, t: metric_loss(p.abs(), t, "silog")):
        alone = sum(loss(predicted[i : i + 1], truth[i : i + 1]) for i in (0, 3))
        torch.testing.assert_close(loss(predicted, truth), alone)
        image = predicted[1:3].clone().requires_grad_()
        loss(image, truth[1:3]).backward()
        assert (image.grad == 0).all()


@pytest.mark.parametrize("kind", ["mse", "mae", "trimmed"])
@pytest.mark.parametrize(
    ("image", "truth"),
    [
        (torch.ones(1, 4, 5), torch.rand(1, 4, 5)),
        (torch.rand(1, 4, 5), torch.ones(1, 4, 5)),
        (torch.rand(1, 1, 1).expand(1, 1, 2), torch.tensor([[[0.0, 1.0]]])),
        (torch.rand(1, 1, 7), torch.rand(1, 1, 7)),
    ],
    ids=["flat prediction", "flat truth", "two pixels", "one row"],
)
def test_degenerate_images_give_finite_gradients(image, truth, kind):
    image = image.clone().requires_grad_()
    inverse_loss(image, truth, kind, 0.5).backward()
    assert image.grad.isfinite().all()


def test_a_perfect_metric_prediction_has_a_finite_gradient():
    image = torch.rand(1, 4, 5).add(0.1).requires_grad_()
    metric_loss(image, image.detach(), "silog").backward()
    assert image.grad.isfinite().all()
