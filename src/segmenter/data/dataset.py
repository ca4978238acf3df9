"""Training samples for a DataLoader, in an order that depends on nothing but the seed and the position.

A draw is the running number of a sample in a run. Everything random about it comes from (seed, draw), so a run that
continues in another process, or is loaded by other workers, sees the same samples.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segmenter import config
from segmenter.data import transforms
from segmenter.data.samples import Sample
from segmenter.data.tasks import TASKS


class TrainingSamples(Dataset):
    """Augmented crops; an item's key is (index of the sample, number of the draw)."""

    def __init__(self, samples: Sequence[Sample], augment: config.Augment, seed: int, task: str = "labels"):
        self.samples = samples
        # Without classes, none can dominate a crop.
        self.augment = replace(augment, max_class_share=1.0) if TASKS[task].classes is not None else augment
        self.seed = seed
        self.task = task

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | str]:
        """One crop of h w pixels (`augment.crop`).

        Returns:
            image: uint8, 3 h w, 0 in the padding (after normalisation it must be 0 there: see `content`).
            target: h w. Labels: int64, with the ignore value in the padding. Inverse depth: float32, 1 / metre, NaN in
                the padding and where it was not measured.
            content: int64, (height, width) of the part at the top left that is not padding.
            name: the sample's.
        """
        index, draw = key
        sample, task = self.samples[index], TASKS[self.task]
        stored = sample.target()
        ignore, target = task.ignore(stored), as_tensor(stored)  # H W
        image = torch.from_numpy(sample.image()).permute(2, 0, 1)  # 3 H W
        generator = _generator("sample", self.seed, draw)
        image, target = transforms.augment(image, target, self.augment, ignore, generator)
        content = torch.tensor(target.shape)
        image, target = transforms.pad(image, target, self.augment.crop, ignore)
        target = torch.from_numpy(np.ascontiguousarray(target.numpy(), task.learnt))
        return {"image": image.contiguous(), "target": target, "content": content, "name": sample.name}


def as_tensor(target: np.ndarray) -> Tensor:
    """A target (H W) as a tensor; uint16 becomes int32, which torch can count and index."""
    return torch.from_numpy(target.astype(np.int32) if target.dtype == np.uint16 else target)


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
    """An independent generator for every purpose, seed and number."""
    digest = hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))  # the CPU generator uses 32 bits
