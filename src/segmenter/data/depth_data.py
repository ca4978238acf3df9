"""Images with depth: folders of images and depth maps, and the generated scenes, whose depth is perfect.

The counterpart of `layouts` for labels. Targets are inverse depth, in 1 / metre. The sky of a scene is infinitely far:
its inverse depth is 0, which a model of relative depth learns like any other number; scores and metric models skip it.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.folders import SPLITS, find_folder
from segmenter.data.layouts import data_folder, means_scenes
from segmenter.data.pairs import DEPTH
from segmenter.data.samples import SCENES, DataSet, counts, file_samples, scene_samples
from segmenter.errors import UserError

if TYPE_CHECKING:
    from segmenter.data.scenes.scene import Scene

# The name of a depth model's only channel, where other models have their classes.
DEPTH_CLASSES = Classes(("depth",), ((255, 255, 255),))


def open_depth(settings: config.Data) -> DataSet:
    """Finds the images and depth maps that the settings name.

    Raises:
        UserError: nothing was found there, files do not pair up, or the settings are meant for labels.
    """
    if settings.classes or settings.map:
        name = "data.classes" if settings.classes else "data.map"
        raise UserError(f"{name} is set, but depth has no classes; leave it empty")
    if means_scenes(settings):
        splits = scene_samples(scene_depth)
        return DataSet(DEPTH_CLASSES, splits, f"{SCENES}: {counts(splits)} with depth", "depth", settings)
    if settings.layout not in ("auto", "folder"):
        raise UserError(f"data.layout is {settings.layout}, which has no depth maps; write auto, folder or scenes")
    root = data_folder(settings, DEPTH)
    found = find_folder(root, settings.split_seed, DEPTH)
    found = {split: found[split] for split in SPLITS if found.get(split)}
    splits = file_samples(found, partial(read_inverse_depth, settings=settings), DEPTH.word)
    return DataSet(DEPTH_CLASSES, splits, f"{root}: {counts(splits)} with depth maps", "depth", settings)


def scene_depth(scene: "Scene") -> np.ndarray:
    """The inverse depth (H W float32, 1 / metre) of a scene; 0 in its sky."""
    from segmenter.data.scenes.scene import FAR

    return np.where(scene.depth < FAR, 1 / scene.depth, 0).astype(np.float32)
