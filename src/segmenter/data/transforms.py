"""Resizing, cropping and distorting, as Segmenter trains and evaluates (arXiv 2105.05633, section 4.1).

The numbers are those of the published code (mmsegmentation 0.14): sizes rounded half up, uint8 throughout,
bilinear without antialias for images, nearest for labels (and for depth: a mean over an edge lies on neither side of
it, and gaps must not spread). One difference: saturation and hue change in floating point, as 8-bit HSV would only add
rounding. Images are not normalised here: the device does that.
"""

import math

import numpy as np
import torch
from torch import Tensor

from segmenter import config
from segmenter.errors import UserError
from segmenter.torchvision_guard import v2

F = v2.functional
CROP_REDRAWS = 10
MOST_PIXELS = 2**29  # 1.6 GB; the largest photo that is read, at the largest scale of MULTISCALE


def _fit(size: tuple[int, int], long_side: int, short_side: int) -> tuple[int, int]:
    """The largest size of the same aspect whose sides stay within the two limits, rounded half up."""
    scale = min(long_side / max(size), short_side / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def target_size(size: tuple[int, int], short_side: int, max_ratio: float, ratio: float = 1.0) -> tuple[int, int]:
    """Evaluation size (height, width) of an image of `size`; `ratio` scales the short side further."""
    short_side = max(1, int(short_side * ratio))
    return _fit(size, int(max_ratio * short_side), short_side)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without antialias, uint8 3 H W to 3 h w: within 1 grey level of OpenCV's, as published.

    Raises:
        UserError: there would be more than MOST_PIXELS.
    """
    refuse_larger(size)
    return F.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=False)


def refuse_larger(size: tuple[int, int]) -> None:
    """Checks that an image may be resized to `size`.

    Raises:
        UserError: it would have more than MOST_PIXELS.
    """
    if math.prod(size) > MOST_PIXELS:
        raise UserError(
            f"an image would be resized to {size[0]} x {size[1]} pixels, more than {MOST_PIXELS >> 20} million; write "
            "a smaller augment.short_side, augment.max_ratio or inference.window, or take a smaller image"
        )


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest as OpenCV's, floor(x * scale), in integers so that nothing is rounded: labels or depth, H W to h w."""
    rows = torch.arange(size[0]) * labels.shape[0] // size[0]
    columns = torch.arange(size[1]) * labels.shape[1] // size[1]
    return labels[rows[:, None], columns]


def resize_for_evaluation(image: np.ndarray, short_side: int, max_ratio: float, ratio: float = 1.0) -> Tensor:
    """An image (H W 3, uint8) at evaluation scale: uint8 tensor 3 h w."""
    # A copy, as torch takes neither mirrored nor read-only arrays.
    pixels = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)  # 3 H W
    return resize_image(pixels, target_size(image.shape[:2], short_side, max_ratio, ratio)).contiguous()


def augment(
    image: Tensor, labels: Tensor, settings: config.Augment, ignore: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random size, crop, mirror, colours: image (uint8 3 H W), labels or depth (H W) to 3 h w, h w within `crop`.

    Depth keeps its values at every size: the scaled image counts as one of another camera.
    """
    ratio = _uniform(*settings.scale, generator)
    long_side = max(1, int(settings.max_ratio * settings.short_side * ratio))
    size = _fit(tuple(labels.shape), long_side, max(1, int(settings.short_side * ratio)))
    labels = resize_labels(labels, size)
    top, left = _choose_crop(labels, settings, ignore, generator)
    height, width = min(settings.crop[0], size[0]), min(settings.crop[1], size[1])
    labels = labels[top : top + height, left : left + width]  # h w
    image = F.crop(resize_image(image, size), top, left, height, width)  # 3 h w
    if torch.rand((), generator=generator).item() < settings.flip:
        image, labels = F.horizontal_flip(image), F.horizontal_flip(labels)
    if settings.distortion:
        image = distort(image, generator)
    return image, labels


def _choose_crop(labels: Tensor, settings: config.Augment, ignore: int, generator: torch.Generator) -> tuple[int, int]:
    """Top and left of a crop that no class dominates; after ten more draws the last one, whatever it holds."""
    height, width = settings.crop

    def draw() -> tuple[int, int]:
        spare = max(labels.shape[0] - height, 0), max(labels.shape[1] - width, 0)
        return tuple(torch.randint(room + 1, (), generator=generator).item() for room in spare)

    top, left = draw()
    if settings.max_class_share >= 1:
        return top, left
    for _ in range(CROP_REDRAWS):
        counts = torch.bincount(labels[top : top + height, left : left + width].flatten())
        counts = counts[:ignore][counts[:ignore] > 0]
        if len(counts) > 1 and counts.max() / counts.sum() < settings.max_class_share:
            break
        top, left = draw()
    return top, left


def distort(image: Tensor, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast, saturation and hue (uint8 3 h w), each with probability 1/2.

    Contrast comes before the saturation or after the hue with equal probability.
    """

    def coin() -> bool:
        return torch.rand((), generator=generator).item() < 0.5

    if coin():
        image = _to_bytes(image.float() + _uniform(-32, 32, generator))
    contrast_first = coin()
    if contrast_first and coin():
        image = _to_bytes(image.float() * _uniform(0.5, 1.5, generator))
    if coin():
        image = saturate(image, _uniform(0.5, 1.5, generator))
    if coin():
        image = F.adjust_hue(image, torch.randint(-18, 18, (), generator=generator).item() / 180)
    if not contrast_first and coin():
        image = _to_bytes(image.float() * _uniform(0.5, 1.5, generator))
    return image


def saturate(image: Tensor, factor: float) -> Tensor:
    """Multiplies HSV's saturation, at most to 1 (uint8 3 h w); hue and value (the largest channel) stay."""
    pixels = image.float()
    value = pixels.amax(0)  # h w
    spread = (value - pixels.amin(0)).clamp_(min=1)
    return (value - (value - pixels) * (value / spread).clamp_(max=factor)).round_().to(torch.uint8)


def pad(image: Tensor, labels: Tensor, size: tuple[int, int], ignore: float) -> tuple[Tensor, Tensor]:
    """Pads to `size` (height, width) at the right and bottom, with 0 and the ignore value."""
    missing = [0, 0, size[1] - labels.shape[1], size[0] - labels.shape[0]]
    return F.pad(image, missing, fill=0), F.pad(labels[None], missing, fill=ignore)[0]


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.clamp_(0, 255).to(torch.uint8)  # truncates, as the published code does
