"""From a folder (or the word `scenes`) to images with labels: image and mask files paired by name, in splits.

Recognised: plain folders (`folders`), the published data sets (`named_layouts`) and generated scenes. Nothing is
decoded here, except masks when no classes.yaml says what their values mean.
"""

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmenter import config
from segmenter.data.annotations.opening import open_annotations
from segmenter.data.classes import Classes
from segmenter.data.files import read_mask
from segmenter.data.folders import SPLITS, find_folder
from segmenter.data.infer_classes import infer_classes
from segmenter.data.pairs import MASKS, Pairs, Target
from segmenter.data.samples import SCENES, DataSet, counts, file_samples, scene_samples
from segmenter.data.sets.named_layouts import find_named
from segmenter.errors import UserError

if TYPE_CHECKING:
    from segmenter.data.scenes.scene import Scene


def open_labels(settings: config.Data) -> DataSet:
    """Finds the images, masks and classes that the settings name.

    Raises:
        UserError: nothing was found there, files do not pair up, or the classes cannot be determined.
    """
    if means_scenes(settings):
        return _open_scenes(settings)
    root = data_folder(settings, MASKS)
    named = find_named(settings.layout, root)
    if not named and (annotated := _annotated(root, settings)):
        return annotated
    found = named.splits if named else find_folder(root, settings.split_seed)
    found = {split: found[split] for split in SPLITS if found.get(split)}
    classes, origin = _find_classes(settings, root, found, named.classes if named else None)
    classes = classes.with_map(settings.map)
    splits = file_samples(found, partial(read_mask, classes=classes), MASKS.word)
    layout = named.title if named else "image and mask folders"
    source = f"{root} ({layout}): {counts(splits)}; {len(classes)} classes {origin}"
    return DataSet(classes, splits, source, settings=settings)


def _annotated(root: Path, settings: config.Data) -> DataSet | None:
    """The annotations of a folder, unless it has masks for its images, and no table but a classes.yaml beside them."""
    has_masks = False
    with contextlib.suppress(UserError):
        plain = find_folder(root, settings.split_seed)
        has_masks = any(mask for pairs in plain.values() for _, mask in pairs.values())
    own = root / "classes.yaml"
    if own.is_file() and not settings.classes:
        settings = replace(settings, classes=str(own))
    if has_masks and own.is_file() and settings.layout == "auto":
        return None
    return open_annotations(root, settings, has_masks)


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
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(f"{root} {what}; data.root is the folder that holds {target.expected}")
    return root


def _open_scenes(settings: config.Data) -> DataSet:
    from segmenter.data.scenes import scene as scenes

    classes = Classes(tuple(scenes.NAMES), tuple(tuple(color) for color in scenes.COLORS))
    if settings.classes:
        raise UserError("data.classes is set, but the generated scenes have their own classes; leave it empty")
    if settings.map:
        raise UserError("data.map is set, but the generated scenes have no mask files; leave it empty")
    splits = scene_samples(scene_labels)
    return DataSet(classes, splits, f"{SCENES}: {counts(splits)}; {len(classes)} classes", settings=settings)


def scene_labels(scene: "Scene") -> np.ndarray:
    """The labels (H W uint8) of a scene."""
    return scene.labels


def _find_classes(
    settings: config.Data, root: Path, found: dict[str, Pairs], own: Classes | None
) -> tuple[Classes, str]:
    """The classes and, in words, their origin: the setting, the root, the layout, or else the masks."""
    path = Path(settings.classes) if settings.classes else root / "classes.yaml"
    if settings.classes or path.is_file():
        return Classes.read(path), f"of {path}"
    if own is not None:
        return own, "of the layout"
    masks = [mask for pairs in found.values() for _, mask in pairs.values() if mask is not None]
    return infer_classes(masks, path, settings.map), f"as the masks' values show (no {path.name})"
