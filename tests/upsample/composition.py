"""What `segmenter.upsample` is measured against: the same operations in float64, and random cases."""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter.upsample import Geometry


def composed(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits (B*windows K h w) to pixel logits (B K H W) in float64, operation by operation."""
    height, width = geometry.content or geometry.extent
    size = geometry.extent
    pixels = F.interpolate(logits.double(), size, mode="bilinear", align_corners=geometry.align_corners)
    pixels = pixels[..., :height, :width]
    if geometry.windows is not None:
        tops, lefts = geometry.windows
        canvas = (max(tops) + height, max(lefts) + width)
        images = pixels.unflatten(0, (-1, len(tops) * len(lefts)))
        total = torch.zeros(len(images), logits.shape[1], *canvas, dtype=torch.float64)
        count = torch.zeros(canvas, dtype=torch.float64)
        for index, (top, left) in enumerate((top, left) for top in tops for left in lefts):
            here = (slice(top, top + height), slice(left, left + width))
            total[:, :, here[0], here[1]] += images[:, index]
            count[here] += 1
        pixels = total / count
    if geometry.final is not None:
        pixels = F.interpolate(pixels, geometry.final, mode="bilinear", align_corners=False)
    return pixels.flip(-1) if geometry.mirrored else pixels


def tolerance(logits: Tensor) -> float:
    """tau: two classes closer than this at a pixel are equally good."""
    return 1e-5 * logits.abs().max().item()


def assert_labels(labels: Tensor, logits: Tensor, geometry: Geometry) -> None:
    """Labels (B H W) are the best of the composition, or within tau of it where the margin is below tau."""
    pixels, tau = composed(logits, geometry), tolerance(logits)
    labels = labels.long()
    assert labels.shape == (len(pixels), *pixels.shape[2:])
    best, winner = pixels.max(1)
    chosen = pixels.gather(1, labels[:, None])[:, 0]
    assert (best - chosen).max() <= tau
    if logits.shape[1] > 1:
        two = pixels.topk(2, 1).values
        clear = two[:, 0] - two[:, 1] > tau
        assert torch.equal(labels[clear], winner[clear])


@dataclass(frozen=True)
class Case:
    """A random geometry with logits for it."""

    seed: int

    def geometry(self) -> Geometry:
        draw = random.Random(self.seed)
        # Strides of the decoders (powers of two, DINOv2's 14, odd ones), or a grid without any relation, also
        # one finer than the image.
        grid = (draw.randint(1, 6), draw.randint(1, 6))
        extent = tuple(side * draw.choice([1, 3, 5, 8, 14, 16]) for side in grid)
        if draw.random() < 0.25:
            grid, extent = extent, (draw.randint(1, 20), draw.randint(1, 20))
        content = tuple(draw.randint(max(1, side - 15), side) for side in extent)
        windows = None
        if draw.random() < 0.6:
            windows = tuple(self._starts(draw, side) for side in content)
        final = None
        if draw.random() < 0.5:
            final = (draw.randint(1, 99), draw.randint(1, 99))
        return Geometry(
            grid,
            extent,
            content=draw.choice([content, content, None]) if windows is None else content,
            windows=windows,
            final=final,
            mirrored=draw.random() < 0.4,
            align_corners=draw.random() < 0.4,
        )

    @staticmethod
    def _starts(draw: random.Random, side: int) -> tuple[int, ...]:
        starts = [0]
        for _ in range(draw.randint(0, 2)):
            starts.append(starts[-1] + draw.randint(1, side))  # nearly on top of each other to side by side
        return tuple(starts)

    def logits(self, geometry: Geometry) -> Tensor:
        classes = [1, 2, 5, 21, 300 if geometry.size[0] * geometry.size[1] < 4000 else 30][self.seed % 5]
        generator = torch.Generator().manual_seed(self.seed)
        shape = ((1 + self.seed % 2) * geometry.window_count, classes, *geometry.grid)
        return torch.randn(shape, generator=generator) * [1.0, 0.01, 50.0][self.seed % 3]


CASES = [Case(seed) for seed in range(90)]


def smooth(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Logits as of a trained network: a few classes a region, some noise on them."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(*shape[:2], shape[2] // 5 + 1, shape[3] // 5 + 1, generator=generator) * 3
    return F.interpolate(rough, shape[2:], mode="bicubic") + 0.5 * torch.randn(shape, generator=generator)


LARGE = {
    "stride 16": Geometry((11, 14), (176, 224)),
    "stride 16, cropped": Geometry((11, 14), (176, 224), content=(163, 211)),
    "stride 16, cropped, mirrored": Geometry((11, 14), (176, 224), content=(163, 211), mirrored=True),
    "stride 8": Geometry((11, 14), (88, 112)),
    "stride 32": Geometry((5, 7), (160, 224)),
    "stride 14": Geometry((11, 14), (154, 196)),
    "stride 15": Geometry((11, 14), (165, 210), mirrored=True),
    "stride 4": Geometry((24, 31), (96, 124)),
    "stride 1.75": Geometry((64, 80), (112, 140), content=(112, 135)),
    "stride 11.3": Geometry((11, 14), (125, 158)),
    "corners aligned": Geometry((11, 14), (176, 224), align_corners=True),
    "corners aligned, mirrored": Geometry((11, 14), (161, 224), content=(160, 220), align_corners=True, mirrored=True),
    "windows": Geometry((6, 6), (96, 96), windows=((0, 80), (0, 80, 103))),
    "windows, enlarged": Geometry((6, 6), (96, 96), windows=((0, 80), (0, 80, 103)), final=(235, 266)),
    "windows, made smaller": Geometry((6, 6), (84, 84), windows=((0, 50), (0, 80)), final=(97, 103), mirrored=True),
    "windows, far beyond": Geometry((2, 2), (32, 32), content=(20, 32), windows=((0, 5, 18), (0, 2, 4, 6, 8))),
    "enlarged": Geometry((11, 14), (176, 224), final=(240, 299)),
    "made much smaller": Geometry((32, 40), (512, 640), final=(43, 71)),
    "grid finer than the pixels": Geometry((64, 70), (31, 40)),
    "one cell": Geometry((1, 1), (50, 40)),
    "one row": Geometry((1, 9), (3, 144), align_corners=True),
}
"""Geometries with many blocks of pixels, of every kind."""
