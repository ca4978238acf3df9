"""Training samples for a DataLoader, in an order that depends on nothing but the seed and the position.

A draw is the running number of a sample in a run. Everything random about it comes from (seed, draw), so a
run that is continued in another process, or loaded by other workers, sees the same samples.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segmenter import config
from segmenter.data import transforms
from segmenter.data.depth_data import DepthSample
from segmenter.data.files import read_image, read_mask
from segmenter.data.layouts import Sample

__all__ = ["EndlessSampler", "TrainingSamples", "read_image", "read_mask"]


class TrainingSamples(Dataset):
    """Augmented crops; an item is asked for by (index of the sample, number of the draw)."""

    def __init__(
        self,
        samples: Sequence[Sample] | Sequence[DepthSample],
        augment: config.Augment,
        seed: int,
        target: Literal["labels", "depth"] = "labels",
    ):
        self.samples = samples
        self.augment = augment
        self.seed = seed
        self.target = target

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | str]:
        """One crop of h w pixels (`augment.crop`).

        Returns:
            image: uint8, 3 h w, 0 in the padding (after normalisation it must be 0 there: see `content`).
            labels: int64, h w; the ignore value in the padding. Or, as the target is,
            depth: inverse depth, float32, h w, 1 / metre; NaN in the padding and where it was not measured.
            content: int64, (height, width) of the part at the top left that is no padding.
            name: the sample's.
        """
        index, draw = key
        sample = self.samples[index]
        pixels, ignore = (_labels if self.target == "labels" else _depth)(sample)  # H W
        image = torch.from_numpy(sample.image()).permute(2, 0, 1)  # 3 H W
        generator = _generator("sample", self.seed, draw)
        image, pixels = transforms.augment(image, pixels, self.augment, ignore, generator)
        content = torch.tensor(pixels.shape)
        image, pixels = transforms.pad(image, pixels, self.augment.crop, ignore)
        pixels = pixels.long() if self.target == "labels" else pixels.contiguous()
        return {"image": image.contiguous(), self.target: pixels, "content": content, "name": sample.name}


def _labels(sample: Sample) -> tuple[Tensor, int]:
    """Labels (H W) and their ignore value."""
    labels = sample.labels()
    ignore = int(np.iinfo(labels.dtype).max)  # 255 of uint8, 65535 of uint16
    # int32: torch can neither count nor index uint16
    return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32)), ignore


def _depth(sample: DepthSample) -> tuple[Tensor, float]:
    """Inverse depth (H W float32) and what stands for none."""
    return torch.from_numpy(sample.inverse_depth()), math.nan


class EndlessSampler:
    """(index, draw) without end: one permutation of the samples after another, from any draw on.

    The order of an epoch is determined by (seed, epoch), so that draw `n` is the same wherever a run starts.
    """

    def __init__(self, count: int, seed: int, start: int = 0):
        self.count = count
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(self.start, self.count)
        while True:
            order = torch.randperm(self.count, generator=_generator("order", self.seed, epoch)).tolist()
            for place in range(position, self.count):
                yield order[place], epoch * self.count + place
            epoch, position = epoch + 1, 0


def _generator(purpose: str, seed: int, number: int) -> torch.Generator:
    """A generator of its own for every purpose, seed and number: neighbours share nothing."""
    digest = hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))  # the CPU generator uses 32 bits
