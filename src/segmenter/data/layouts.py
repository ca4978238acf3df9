"""From a folder (or the word `scenes`) to samples: image and mask files paired by name, in splits.

Recognised: plain folders (`folders`), the published data sets (`named_layouts`) and generated scenes. Nothing is
decoded here, except masks when no classes.yaml says what their values mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.data.files import image_size, read_image, read_mask
from segmenter.data.folders import SPLITS, find_folder
from segmenter.data.infer_classes import infer_classes
from segmenter.data.pairs import MASKS, Pairs, Target
from segmenter.data.sets.named_layouts import find_named
from segmenter.errors import UserError

SCENE_SIZE = (96, 128)
SCENES = "generated scenes (96 x 128)"
SCENE_COUNTS = {"train": 3000, "val": 100, "test": 200}
SCENE_SEEDS = {"train": 0, "val": 1, "test": 2}


class Sample(Protocol):
    """One image and what is known of its pixels."""

    name: str
    labelled: bool
    """Its labels are known."""

    def image(self) -> np.ndarray:
        """H W 3, uint8, RGB."""

    def labels(self) -> np.ndarray:
        """H W; uint8 with 255 ignored, or above 255 classes uint16 with 65535 ignored."""


@dataclass(frozen=True)
class FileSample:
    """An image file and, where there is one, its mask file."""

    name: str
    """Path inside the images folder, without suffix."""
    image_path: Path
    mask_path: Path | None
    classes: Classes

    @property
    def labelled(self) -> bool:
        return self.mask_path is not None

    def image(self) -> np.ndarray:
        return read_image(self.image_path)

    def labels(self) -> np.ndarray:
        """Labels (H W) of the mask.

        Raises:
            UserError: no mask, or it cannot be read, holds a value without class or has not the image's size.
        """
        if self.mask_path is None:
            raise UserError(f"{self.image_path} has no mask: it can be predicted, but not learnt from or scored")
        labels = read_mask(self.mask_path, self.classes)
        wanted = image_size(self.image_path)
        if labels.shape != wanted:
            raise UserError(size_text(self.image_path, wanted, self.mask_path, labels.shape))
        return labels


@dataclass(frozen=True)
class SceneSample:
    """A generated scene; the same seed and index always give the same one."""

    name: str
    seed: int
    index: int
    labelled = True

    def image(self) -> np.ndarray:
        return _render(self.seed, self.index)[0].copy()

    def labels(self) -> np.ndarray:
        return _render(self.seed, self.index)[1].copy()


# A scene takes about 20 ms to draw and 49 kB to keep: all of them fit in 162 MB, and only the first epoch draws.
@lru_cache(maxsize=sum(SCENE_COUNTS.values()))
def _render(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    from segmenter.data.scenes import scene as scenes

    scene = scenes.render(seed, index, SCENE_SIZE)
    return scene.image, scene.labels


@dataclass(frozen=True)
class DataSet:
    """Samples in splits; `splits` holds only the splits that exist, in the order train, val, test."""

    classes: Classes
    splits: dict[str, Sequence[Sample]]
    source: str
    """One line: where, which layout, how many."""

    def split(self, name: str) -> Sequence[Sample]:
        """The samples of a split.

        Raises:
            UserError: the data set has no such split.
        """
        if name not in self.splits:
            raise UserError(f"there is no split {name!r} in {self.source}")
        return self.splits[name]

    def labelled_split(self) -> str:
        """The split to score where none was named: test if it has masks, as published data sets' has not, else val."""
        labelled = any(sample.labelled for sample in self.splits.get("test", ()))
        return "test" if labelled or "val" not in self.splits else "val"


def open_data(settings: config.Data) -> DataSet:
    """Find the samples and classes that the settings name.

    Raises:
        UserError: nothing was found there, files do not pair up, or the classes cannot be told.
    """
    if means_scenes(settings):
        return _open_scenes(settings)
    root = data_folder(settings, MASKS)
    named = find_named(settings.layout, root)
    found = named.splits if named else find_folder(root, settings.split_seed)
    found = {split: found[split] for split in SPLITS if found.get(split)}
    classes, origin = _find_classes(settings, root, found, named.classes if named else None)
    classes = classes.with_map(settings.map)
    splits = {
        split: [FileSample(name, image, mask, classes) for name, (image, mask) in sorted(pairs.items())]
        for split, pairs in found.items()
    }
    layout = named.title if named else "image and mask folders"
    return DataSet(classes, splits, f"{root} ({layout}): {counts(splits)}; {len(classes)} classes {origin}")


def means_scenes(settings: config.Data) -> bool:
    """Whether the settings ask for the generated scenes."""
    return settings.layout == "scenes" or (settings.layout == "auto" and settings.root == "scenes")


def data_folder(settings: config.Data, target: Target) -> Path:
    """The folder that holds the images and what is known of them.

    Raises:
        UserError: there is no such folder.
    """
    if not settings.root:
        raise UserError(f"data.root is empty; write the folder with the images and {target.word}s, or `scenes`")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; data.root is the folder that holds {target.expected}")
    return root


def _open_scenes(settings: config.Data) -> DataSet:
    from segmenter.data.scenes import scene as scenes

    classes = Classes(tuple(scenes.NAMES), tuple(tuple(color) for color in scenes.COLORS))
    if settings.classes:
        raise UserError("data.classes is set, but the generated scenes have their own classes; leave it empty")
    if settings.map:
        raise UserError("data.map is set, but the generated scenes have no mask files; leave it empty")
    splits = scene_splits(SceneSample)
    return DataSet(classes, splits, f"{SCENES}: {counts(splits)}; {len(classes)} classes")


def scene_splits(kind: Callable[[str, int, int], Sample]) -> dict[str, Sequence[Sample]]:
    """Generated samples of one kind, made with (name, seed, index)."""
    return {
        split: [kind(f"{split}_{i:04d}", SCENE_SEEDS[split], i) for i in range(count)]
        for split, count in SCENE_COUNTS.items()
    }


def _find_classes(
    settings: config.Data, root: Path, found: dict[str, Pairs], own: Classes | None
) -> tuple[Classes, str]:
    """The classes and a word on where they are from: the setting, the root, the layout, or else the masks."""
    path = Path(settings.classes) if settings.classes else root / "classes.yaml"
    if settings.classes or path.is_file():
        return Classes.read(path), f"of {path}"
    if own is not None:
        return own, "of the layout"
    masks = [mask for pairs in found.values() for _, mask in pairs.values() if mask is not None]
    return infer_classes(masks, path, settings.map), f"as the masks' values show (no {path.name})"


def size_text(
    image: Path, size: tuple[int, int], mask: Path, mask_size: tuple[int, int], word: str = MASKS.word
) -> str:
    """The sentence on an image and a mask (or what `word` says) that do not fit, sizes (height, width)."""
    sizes = f"{size[0]} x {size[1]} (height x width)", f"{mask_size[0]} x {mask_size[1]}"
    text = f"{image} is {sizes[0]}, but its {word} {mask} is {sizes[1]}"
    if size == tuple(reversed(mask_size)):
        return f"{text}; turn the {word} (the image is taken upright, as its EXIF rotation says)"
    return f"{text}; export the {word} at the image's size"


def counts(splits: dict[str, Sequence[Sample]]) -> str:
    """How many images each split has, in words."""
    return ", ".join(f"{split} {len(samples)}" for split, samples in splits.items()) + " images"
