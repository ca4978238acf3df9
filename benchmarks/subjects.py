"""What the benchmarks measure on: ViT-Ti/16 with a mask transformer, photos, targets."""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from segmenter.cost.benchmark import draw
from segmenter.data.files import read_image
from segmenter.model.segmenter import Segmenter, create
from segmenter.published.loading import load

ENCODER, CLASSES, SIDE = "vit_tiny_patch16_384", 150, 512


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which weights and which photo."""
    parser.add_argument("--model", help=f"trained model; none: {ENCODER} with random weights, {CLASSES} classes")
    parser.add_argument("--photo", type=Path, help="none: one is drawn")


def model(path: str | None) -> Segmenter:
    """The network in evaluation mode; with random weights, logits are closer to noise than trained ones."""
    if path:
        return load(path)
    print("no --model: random weights, whose logits are rougher than trained ones: labels take longer", file=sys.stderr)
    torch.manual_seed(0)
    return create(ENCODER, "mask_transformer", CLASSES, SIDE).eval()


def about(network: Segmenter) -> str:
    """The network in words."""
    recipe = network.recipe
    return f"{recipe.encoder.name}, {recipe.decoder.name}, {len(network.classes)} classes"


def fitted(path: Path | None, size: tuple[int, int], folder: Path) -> Image.Image:
    """The photo, or a drawn one, at this size (height, width), cut to its proportion."""
    if path is None:
        path = folder / "drawn.jpg"
        draw(size, path)
    return ImageOps.fit(Image.fromarray(read_image(path)), size[::-1], Image.Resampling.BILINEAR)


def pixels(path: Path | None, size: tuple[int, int]) -> np.ndarray:
    """The pixels (H W 3 uint8) of the same."""
    with tempfile.TemporaryDirectory() as folder:
        return np.array(fitted(path, size, Path(folder)))


def targets(batch: int, classes: int, size: tuple[int, int]) -> Tensor:
    """Labels (B H W) in areas of 16 pixels, a twentieth of them ignored."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, batch, *(side // 16 for side in size), generator=generator)
    labels = (coarse[0] * classes).long().masked_fill(coarse[1] < 0.05, 255)
    return labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
