"""From a folder (or the word `scenes`) to samples: image and mask files paired by name, in splits.

Recognised: {train,val,test}/{images,masks}, {images,masks}/{train,val,test}, flat images/ and masks/ with or
without lists, and CamVid as SegNet's authors arranged it. Nothing is decoded here, except masks when no
classes.yaml says what their values mean.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.data.files import image_size, read_image, read_mask
from segmenter.data.infer_classes import infer_classes
from segmenter.data.pairs import Pairs, contents, pair_files
from segmenter.errors import UserError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
MASKS = ("masks", "labels", "annotations")
SHARES = {"train": 0.8, "val": 0.9}  # upper ends of the hash range; the rest is test

SCENE_SIZE = (96, 128)
SCENE_COUNTS = {"train": 3000, "val": 100, "test": 200}
SCENE_SEEDS = {"train": 0, "val": 1, "test": 2}

# Names and colours of the 11-class CamVid of Badrinarayanan et al. (SegNet); mask value 11 is unlabelled.
CAMVID = Classes(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    values={11: 255},
)  # fmt: skip


class Sample(Protocol):
    """One image and what is known of its pixels."""

    name: str

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

    def image(self) -> np.ndarray:
        return _render(self.seed, self.index)[0].copy()

    def labels(self) -> np.ndarray:
        return _render(self.seed, self.index)[1].copy()


# A scene takes about 20 ms to draw and 49 kB to keep: all of them fit in 162 MB, and only the first epoch draws.
@lru_cache(maxsize=sum(SCENE_COUNTS.values()))
def _render(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    from segmenter.data import scenes

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


def open_data(settings: config.Data) -> DataSet:
    """Find the samples and classes that the settings name.

    Raises:
        UserError: nothing was found there, files do not pair up, or the classes cannot be told.
    """
    if settings.layout == "scenes" or (settings.layout == "auto" and settings.root == "scenes"):
        return _open_scenes(settings)
    if not settings.root:
        raise UserError("data.root is empty; write the folder with the images and masks, or `scenes`")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; data.root is the folder that holds {_expected()}")
    camvid = settings.layout == "camvid" or (settings.layout == "auto" and (root / "trainannot").is_dir())
    found = _find_camvid(root) if camvid else _find_folder(root, settings.split_seed)
    found = {split: pairs for split, pairs in found.items() if pairs}
    classes, origin = _find_classes(settings, root, found, CAMVID if camvid else None)
    classes = classes.with_map(settings.map)
    splits = {
        split: [FileSample(name, image, mask, classes) for name, (image, mask) in sorted(pairs.items())]
        for split, pairs in found.items()
    }
    layout = "CamVid" if camvid else "image and mask folders"
    return DataSet(classes, splits, f"{root} ({layout}): {_counts(splits)}; {len(classes)} classes {origin}")


def _open_scenes(settings: config.Data) -> DataSet:
    from segmenter.data import scenes

    classes = Classes(tuple(scenes.NAMES), tuple(tuple(color) for color in scenes.COLORS))
    if settings.classes:
        raise UserError("data.classes is set, but the generated scenes have their own classes; leave it empty")
    if settings.map:
        raise UserError("data.map is set, but the generated scenes have no mask files; leave it empty")
    splits = {
        split: [SceneSample(f"{split}_{i:04d}", SCENE_SEEDS[split], i) for i in range(count)]
        for split, count in SCENE_COUNTS.items()
    }
    size = " x ".join(map(str, SCENE_SIZE))
    return DataSet(classes, splits, f"generated scenes ({size}): {_counts(splits)}; {len(classes)} classes")


def _find_camvid(root: Path) -> dict[str, Pairs]:
    """Pairs of the splits that have a folder: train/ and trainannot/, named by train.txt where it exists."""
    found = {}
    for split in SPLITS:
        if not (root / split).is_dir():
            continue
        masks = root / f"{split}annot"
        list_file = root / f"{split}.txt"
        wanted = None
        if list_file.is_file():
            # The published lists hold "/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png".
            wanted = [Path(line.split()[0]).name for line in _lines(list_file)]
        found[split] = pair_files(root / split, masks, split, wanted, list_file)
    if not found:
        raise UserError(f"{root} holds no train/, val/ or test/ with trainannot/, valannot/, testannot/ beside them")
    return found


def _find_folder(root: Path, split_seed: int) -> dict[str, Pairs]:
    """Pairs of each split of a plain folder."""
    found = {}
    for split, spellings in SPLITS.items():
        for images, masks in _split_folders(root, spellings):
            if images.is_dir():
                if split in found:
                    raise UserError(f"{root} holds the {split} images twice, one time in {images}; remove one")
                found[split] = pair_files(images, masks, split)
    if found:
        return found
    images, masks = root / "images", _masks_folder(root)
    if not images.is_dir() or not masks.is_dir():
        raise UserError(f"{root} holds {contents(root)}, but {_expected()} were looked for; rename the folders")
    lists = {split: root / f"{split}.txt" for split in SPLITS if (root / f"{split}.txt").is_file()}
    if lists:
        return {split: pair_files(images, masks, split, _lines(path), path) for split, path in lists.items()}
    return _split_by_hash(pair_files(images, masks, "train"), split_seed)


def _split_folders(root: Path, spellings: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Every place where a split's images could be, with the place of its masks."""
    for spelling in spellings:
        yield root / spelling / "images", _masks_folder(root / spelling)
        yield root / "images" / spelling, _masks_folder(root) / spelling


def _lines(path: Path) -> list[str]:
    """Lines that hold something; the mark that Windows editors put first is dropped."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _masks_folder(folder: Path) -> Path:
    """The sub-folder for masks that exists, else the first name it could have."""
    return next((folder / name for name in MASKS if (folder / name).is_dir()), folder / MASKS[0])


def _split_by_hash(pairs: Pairs, seed: int) -> dict[str, Pairs]:
    """80, 10 and 10 %: by a hash of seed and name, so that adding files moves no file to another split.

    Chance may leave a split of a small set empty: the lowest hash is train in any case, and where val has no
    image, the highest of train's becomes one (or the lowest of test's, where train has only one).
    """
    places = {
        name: int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()) / 2**64
        for name in pairs
    }
    split = {
        name: next((split for split, end in SHARES.items() if place < end), "test") for name, place in places.items()
    }
    order = sorted(places, key=places.get)
    split[order[0]] = "train"
    train = [name for name in order if split[name] == "train"]
    if "val" not in split.values() and len(order) > 1:
        split[train[-1] if len(train) > 1 else order[1]] = "val"
    return {wanted: {name: pairs[name] for name in pairs if split[name] == wanted} for wanted in SPLITS}


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


def size_text(image: Path, size: tuple[int, int], mask: Path, mask_size: tuple[int, int]) -> str:
    """The sentence on an image and a mask that do not fit, sizes (height, width)."""
    sizes = f"{size[0]} x {size[1]} (height x width)", f"{mask_size[0]} x {mask_size[1]}"
    text = f"{image} is {sizes[0]}, but its mask {mask} is {sizes[1]}"
    if size == tuple(reversed(mask_size)):
        return f"{text}; turn the mask (the image is taken upright, as its EXIF rotation says)"
    return f"{text}; export the mask at the image's size"


def _counts(splits: dict[str, Sequence[Sample]]) -> str:
    return ", ".join(f"{split} {len(samples)}" for split, samples in splits.items()) + " images"


def _expected() -> str:
    return "train/images and train/masks (val and test likewise), or images and masks, or CamVid's trainannot"
