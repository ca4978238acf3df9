"""Proves that images are resized, cropped and distorted as Segmenter's published code does it."""

import math

import numpy as np
import pytest
import torch

from segmenter import config
from segmenter.data import transforms
from segmenter.data.transforms import augment, resize_for_evaluation, resize_image, resize_labels, target_size


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=seeded(seed))


# Sizes: recorded from mmsegmentation's Resize with keep_ratio.
@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((90, 130), 0.5, (32, 46)),
        ((90, 130), 0.75, (48, 69)),
        ((90, 130), 1.0, (64, 92)),
        ((90, 130), 1.25, (80, 116)),
        ((150, 101), 1.0, (95, 64)),
        ((150, 101), 1.75, (166, 112)),
        ((40, 260), 1.0, (39, 256)),  # the long side's limit
        ((40, 260), 1.5, (59, 384)),
        ((1, 4000), 1.0, (1, 256)),
    ],
)
def test_evaluation_size(size, ratio, expected):
    assert target_size(size, 64, 4.0, ratio) == expected
    image = np.zeros((*size, 3), np.uint8)
    assert resize_for_evaluation(image, 64, 4.0, ratio).shape == (3, *expected)


def bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H W 3 to h w 3 as OpenCV defines it: pixel centres, no antialias, borders repeated."""
    for axis, (old, new) in enumerate(zip(image.shape, size, strict=False)):
        at = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = (low + 1).clip(max=old - 1)
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


@pytest.mark.parametrize("size", [(20, 33), (64, 64), (45, 117), (41, 50)])
def test_images_are_resized_without_antialias(size):
    image = noise(45, 60)
    result = resize_image(image, size).permute(1, 2, 0).numpy().astype(float)
    expected = bilinear(image.permute(1, 2, 0).numpy().astype(float), size)
    assert np.abs(result - expected).max() <= 1.01


@pytest.mark.parametrize("size", [(3, 4), (7, 5), (10, 13), (100, 99)])
def test_labels_are_resized_to_the_floor(size):
    labels = torch.arange(70).reshape(7, 10).to(torch.uint8)
    expected = [
        [labels[math.floor(y * 7 / size[0] + 1e-9), math.floor(x * 10 / size[1] + 1e-9)] for x in range(size[1])]
        for y in range(size[0])
    ]
    assert resize_labels(labels, size).tolist() == torch.tensor(expected).tolist()


def test_mirrored_and_read_only_arrays_are_taken():
    image = noise(8, 8).permute(1, 2, 0).numpy()
    image.flags.writeable = False
    flipped = resize_for_evaluation(image[:, ::-1], 8, 4.0)
    assert torch.equal(flipped.flip(2), resize_for_evaluation(image, 8, 4.0))


def quiet(**changes) -> config.Augment:
    """Settings under which nothing is random but what a test sets."""
    settings = {"short_side": 40, "crop": (32, 32), "scale": (1.0, 1.0), "flip": 0.0, "distortion": False}
    return config.Augment(**(settings | {"max_class_share": 1.0} | changes))


def halves(height: int = 40, width: int = 40, edge: int = 20) -> torch.Tensor:
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[:, edge:] = 1
    return labels


def test_image_and_labels_stay_together():
    """Labels that are the image's own grey levels must still be that after resize, crop and mirror image."""
    labels = torch.arange(40).repeat_interleave(40).reshape(40, 40).to(torch.uint8)
    labels = (labels + torch.arange(40).to(torch.uint8)) * 3
    image = labels.expand(3, -1, -1)
    for seed in range(10):
        out, pixels = augment(image, labels, quiet(flip=0.5), 255, seeded(seed))
        assert out.shape == (3, 32, 32)
        assert (out[0] == pixels).all()


def test_random_sizes_are_those_of_the_published_code():
    settings = quiet(short_side=100, scale=(0.5, 2.0), crop=(1000, 1000), max_ratio=4.0)
    heights = set()
    for seed in range(60):
        ratio = 0.5 + 1.5 * torch.rand((), generator=seeded(seed)).item()
        image, labels = augment(noise(30, 50), torch.zeros(30, 50, dtype=torch.uint8), settings, 255, seeded(seed))
        short = int(100 * ratio)
        assert tuple(labels.shape) == (short, int(50 * short / 30 + 0.5))
        assert image.shape[1:] == labels.shape
        heights.add(labels.shape[0])
    assert min(heights) < 70
    assert 180 < max(heights) < 200
    long = quiet(max_ratio=2.0, crop=(100, 100))
    labels = augment(noise(10, 100), torch.zeros(10, 100, dtype=torch.uint8), long, 255, seeded())[1]
    assert tuple(labels.shape) == (8, 80)  # the long side is twice the short side of 40


def test_crops_lie_everywhere_and_small_images_are_not_enlarged():
    labels = torch.arange(40).repeat(40, 1).to(torch.uint8)
    lefts = {int(augment(noise(40, 40), labels, quiet(), 255, seeded(s))[1][0, 0]) for s in range(150)}
    assert lefts == set(range(9))
    small = augment(noise(40, 40), labels, quiet(crop=(64, 48)), 255, seeded())[1]
    assert small.shape == (40, 40)


def test_a_crop_in_which_a_class_prevails_is_drawn_again_ten_times(monkeypatch):
    crops = {"short_side": 64, "crop": (16, 16), "max_class_share": 0.75}
    labels = halves(64, 64, 32)
    shares = [augment(noise(64, 64), labels, quiet(**crops), 255, seeded(s))[1].float().mean() for s in range(100)]
    good = sum(0.25 < share < 0.75 for share in shares)
    assert good > 75  # a single draw succeeds with probability 0.14, one of eleven with 0.82
    draws, image = [], noise(64, 64)
    original = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *a, **k: draws.append(a) or original(*a, **k))
    augment(image, torch.zeros(64, 64, dtype=torch.uint8), quiet(**crops), 255, seeded())
    assert len(draws) == 2 * 11  # top and left of one crop and ten more


def test_ignored_pixels_do_not_count_as_a_class():
    labels = halves(64, 64, 32)
    labels[labels == 1] = 255  # one class and ignored pixels: never enough, the last draw is kept
    out = augment(noise(64, 64), labels, quiet(short_side=64, crop=(16, 16), max_class_share=0.75), 255, seeded())[1]
    assert out.shape == (16, 16)


def test_mirror_images_have_the_given_probability():
    labels = halves()
    count = sum(int(augment(noise(40, 40), labels, quiet(flip=0.3), 255, seeded(s))[1][0, 0] == 1) for s in range(400))
    assert 90 < count < 150


def hsv(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    value, low = image.float().amax(0), image.float().amin(0)
    red, green, blue = image.float()
    hue = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)  # the angle on the colour circle
    return hue, (value - low) / value.clamp(min=1), value


def test_saturation_keeps_hue_and_value():
    image = noise(30, 30)
    for factor in (0.5, 1.0, 1.4):
        hue, saturation, value = hsv(image)
        new_hue, new_saturation, new_value = hsv(transforms.saturate(image, factor))
        assert torch.equal(new_value, value)
        clear = (value > 100) & (new_saturation > 0.3)
        assert (new_saturation - (saturation * factor).clamp(max=1))[clear].abs().max() < 0.006
        turn = (new_hue - hue)[clear]
        assert torch.atan2(turn.sin(), turn.cos()).abs().max() < 0.06
    assert torch.equal(transforms.saturate(image, 1.0), image)
    black = torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert torch.equal(transforms.saturate(black, 1.5), black)


def test_distortion_stays_within_its_ranges():
    """A grey pixel shows brightness and contrast alone."""
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    levels = [int(transforms.distort(grey, seeded(s))[0, 0, 0]) for s in range(400)]
    assert 34 <= min(levels) < 48
    assert 175 < max(levels) <= 198
    assert 0.18 < levels.count(100) / 400 < 0.32
    image = noise(16, 16)
    same = sum(torch.equal(transforms.distort(image, seeded(s)), image) for s in range(400))
    assert 10 < same < 45  # each of four steps is left out with probability 1/2


def test_brightness_is_truncated_as_in_the_published_code(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *a, **k: next(draws))
    # brightness on, its draw (-32 + 64 x 0.49 = -0.64), then every coin on the other side
    draws = iter(torch.tensor([0.0, 0.49, 0.9, 0.9, 0.9, 0.9]))
    image = torch.tensor([[[0, 1, 100]]], dtype=torch.uint8).expand(3, 1, 3)
    assert transforms.distort(image, seeded())[0].tolist() == [[0, 0, 99]]


def test_padding_is_at_the_right_and_bottom():
    image, labels = transforms.pad(noise(3, 4) | 1, torch.zeros(3, 4, dtype=torch.uint8), (5, 6), 255)
    assert image.shape == (3, 5, 6)
    assert (image[:, :3, :4] > 0).all()
    assert image.sum() == image[:, :3, :4].sum()
    assert (labels == 255).sum() == 5 * 6 - 3 * 4
    assert (labels[:3, :4] == 0).all()
