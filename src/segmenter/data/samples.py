"""A sample is an image and a target, which holds the truth about its pixels. From files, or drawn.

A task defines how its targets are read or taken from a scene (`tasks`); everything else about samples is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.data.files import image_size, read_image, read_values
from segmenter.data.instances import instances_beside
from segmenter.data.pairs import MASKS, Pairs
from segmenter.errors import UserError

if TYPE_CHECKING:
    from segmenter.data.scenes.scene import Scene

SCENE_SIZE = (96, 128)
SCENES = "generated scenes (96 x 128)"
SCENE_COUNTS = {"train": 3000, "val": 100, "test": 200}
SCENE_SEEDS = {"train": 0, "val": 1, "test": 2}


class Sample(Protocol):
    """One image and its target."""

    name: str
    labelled: bool
    """Whether its target is known."""

    def image(self) -> np.ndarray:
        """H W 3, uint8, RGB."""

    def target(self) -> np.ndarray:
        """H W. Labels: uint8 with 255 ignored, or above 255 classes uint16 with 65535 ignored. Depth: float32, inverse
        depth in 1 / metre; 0 infinitely far, NaN not measured.
        """


@dataclass(frozen=True)
class FileSample:
    """An image file and, where there is one, the file of its target."""

    name: str
    """Path inside the images folder, without suffix."""
    image_path: Path
    target_path: Path | None
    read: Callable[[Path], np.ndarray]
    """From the target's file to the target."""
    word: str = MASKS.word
    """What the target is called."""

    @property
    def labelled(self) -> bool:
        return self.target_path is not None

    def image(self) -> np.ndarray:
        return read_image(self.image_path)

    def stored(self, by_color: bool = False) -> np.ndarray:
        """The numbers of its mask (H W), or with `by_color` the colours (H W 3), before they have a meaning.

        Raises:
            UserError: the mask cannot be read.
        """
        return read_values(self.target_path, by_color)

    def target(self) -> np.ndarray:
        """The target (H W), at the image's size.

        Raises:
            UserError: there is no target, it cannot be read, or its size differs from the image's.
        """
        if self.target_path is None:
            raise UserError(f"{self.image_path} has no {self.word}: it can be predicted, but not learnt from or scored")
        target = self.read(self.target_path)
        wanted = image_size(self.image_path)
        if target.shape != wanted:
            raise UserError(size_text(self, wanted, target.shape))
        return target

    def instances(self) -> np.ndarray | None:
        """The instances (H W), above 0 where one is known; None where the data set has no map of them.

        Raises:
            UserError: there is a map that cannot be read.
        """
        return None if self.target_path is None else instances_beside(self.target_path)


def size_text(sample: FileSample, size: tuple[int, int], found: tuple[int, int]) -> str:
    """The message about an image of `size` and a target of size `found` (height, width)."""
    word, sizes = sample.word, (f"{size[0]} x {size[1]} (height x width)", f"{found[0]} x {found[1]}")
    text = f"{sample.image_path} is {sizes[0]}, but its {word} {sample.target_path} is {sizes[1]}"
    if size == tuple(reversed(found)):
        return f"{text}; turn the {word} (the image is taken upright, as its EXIF rotation says)"
    return f"{text}; export the {word} at the image's size"


def file_samples(
    found: Mapping[str, Pairs], read: Callable[[Path], np.ndarray], word: str
) -> dict[str, Sequence[Sample]]:
    """Samples of the pairs in each split, by name."""
    return {
        split: [FileSample(name, image, target, read, word) for name, (image, target) in sorted(pairs.items())]
        for split, pairs in found.items()
    }


@dataclass(frozen=True)
class SceneSample:
    """A generated scene; the same seed and index always give the same one."""

    name: str
    seed: int
    index: int
    of: Callable[["Scene"], np.ndarray]
    """From the scene to the target."""
    labelled = True

    def image(self) -> np.ndarray:
        return _render(self.seed, self.index, self.of)[0].copy()

    def target(self) -> np.ndarray:
        return _render(self.seed, self.index, self.of)[1].copy()

    def instances(self) -> np.ndarray:
        """The things in the scene (H W uint16), 0 where there is none."""
        return _drawn(self.seed, self.index).things.copy()


# A scene takes about 20 ms to draw and 49 kB to keep, 86 kB with depth: all of them fit in 284 MB, and only the first
# epoch draws.
@lru_cache(maxsize=sum(SCENE_COUNTS.values()))
def _render(seed: int, index: int, of: Callable[["Scene"], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    scene = _drawn(seed, index)
    return scene.image, of(scene)


@lru_cache(maxsize=1)  # for its image, its target and its instances, which are asked for together
def _drawn(seed: int, index: int) -> "Scene":
    from segmenter.data.scenes import scene as scenes

    return scenes.render(seed, index, SCENE_SIZE)


def scene_samples(of: Callable[["Scene"], np.ndarray]) -> dict[str, Sequence[Sample]]:
    """The generated samples of each split, with the target that `of` takes from a scene."""
    return {
        split: [SceneSample(f"{split}_{i:04d}", SCENE_SEEDS[split], i, of) for i in range(count)]
        for split, count in SCENE_COUNTS.items()
    }


@dataclass(frozen=True)
class DataSet:
    """Samples in splits; `splits` holds only the splits that exist, in the order train, val, test."""

    classes: Classes
    splits: dict[str, Sequence[Sample]]
    source: str
    """One line: where, which layout, how many."""
    task: str = "labels"
    """What its targets hold."""
    settings: config.Data = field(default_factory=config.Data)
    """The settings with which it was opened."""
    notes: tuple[str, ...] = ()
    """What was left out or taken for granted, a sentence each."""

    def split(self, name: str) -> Sequence[Sample]:
        """The samples of a split.

        Raises:
            UserError: the data set has no such split.
        """
        if name not in self.splits:
            raise UserError(f"there is no split {name!r} in {self.source}")
        return self.splits[name]

    def labelled_split(self) -> str:
        """The split to score by default: test if its targets are known (in published sets they are not), else val."""
        labelled = any(sample.labelled for sample in self.splits.get("test", ()))
        return "test" if labelled or "val" not in self.splits else "val"


def counts(splits: Mapping[str, Sequence[Sample]]) -> str:
    """How many images each split has, in words."""
    return ", ".join(f"{split} {len(samples)}" for split, samples in splits.items()) + " images"
