"""Images with depth: folders of images and depth maps, and the generated scenes, whose depth is perfect.

As `layouts` for labels. Samples say inverse depth, in 1 / metre. The sky of a scene is infinitely far: its inverse
depth is 0, which a model of relative depth learns like any other number; scores and metric models leave it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from segmenter import config
from segmenter.data import layouts
from segmenter.data.classes import Classes
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.files import image_size, read_image
from segmenter.data.folders import SPLITS, find_folder
from segmenter.data.pairs import DEPTH
from segmenter.errors import UserError

# What the one channel of a depth model is called where other models have their classes.
DEPTH_CLASSES = Classes(("depth",), ((255, 255, 255),))


class DepthSample(Protocol):
    """One image and the inverse depth of its pixels."""

    name: str
    labelled: bool
    """Its depth is known."""

    def image(self) -> np.ndarray:
        """H W 3, uint8, RGB."""

    def inverse_depth(self) -> np.ndarray:
        """H W float32, 1 / metre; 0 infinitely far, NaN not measured."""


@dataclass(frozen=True)
class DepthFile:
    """An image file and, where there is one, its depth map."""

    name: str
    """Path inside the images folder, without suffix."""
    image_path: Path
    depth_path: Path | None
    settings: config.Data

    @property
    def labelled(self) -> bool:
        return self.depth_path is not None

    def image(self) -> np.ndarray:
        return read_image(self.image_path)

    def inverse_depth(self) -> np.ndarray:
        """Inverse depth (H W float32) of the map, at the image's size.

        Raises:
            UserError: no map, it is not as `read_inverse_depth` wants it, or it has not the image's size.
        """
        if self.depth_path is None:
            raise UserError(f"{self.image_path} has no depth map: it can be predicted, but not learnt from or scored")
        depth = read_inverse_depth(self.depth_path, self.settings)
        wanted = image_size(self.image_path)
        if depth.shape != wanted:
            raise UserError(layouts.size_text(self.image_path, wanted, self.depth_path, depth.shape, DEPTH.word))
        return depth


@dataclass(frozen=True)
class DepthScene:
    """A generated scene; the same seed and index always give the same one."""

    name: str
    seed: int
    index: int
    labelled = True

    def image(self) -> np.ndarray:
        return _render(self.seed, self.index)[0].copy()

    def inverse_depth(self) -> np.ndarray:
        return _render(self.seed, self.index)[1].copy()


# As for labels, all scenes are kept once they are drawn: 86 kB each, 284 MB in all.
@lru_cache(maxsize=sum(layouts.SCENE_COUNTS.values()))
def _render(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    from segmenter.data.scenes import scene as scenes

    scene = scenes.render(seed, index, layouts.SCENE_SIZE)
    return scene.image, np.where(scene.depth < scenes.FAR, 1 / scene.depth, 0).astype(np.float32)


def open_depth(settings: config.Data) -> layouts.DataSet:
    """Find the images and depth maps that the settings name.

    Raises:
        UserError: nothing was found there, files do not pair up, or the settings are those of labels.
    """
    if settings.classes or settings.map:
        name = "data.classes" if settings.classes else "data.map"
        raise UserError(f"{name} is set, but depth has no classes; leave it empty")
    if layouts.means_scenes(settings):
        splits = layouts.scene_splits(DepthScene)
        return layouts.DataSet(DEPTH_CLASSES, splits, f"{layouts.SCENES}: {layouts.counts(splits)} with depth")
    if settings.layout not in ("auto", "folder"):
        raise UserError(f"data.layout is {settings.layout}, which has no depth maps; write auto, folder or scenes")
    root = layouts.data_folder(settings, DEPTH)
    found = find_folder(root, settings.split_seed, DEPTH)
    splits: dict[str, Sequence[DepthSample]] = {
        split: [DepthFile(name, image, depth, settings) for name, (image, depth) in sorted(found[split].items())]
        for split in SPLITS
        if found.get(split)
    }
    return layouts.DataSet(DEPTH_CLASSES, splits, f"{root}: {layouts.counts(splits)} with depth maps")
