"""Label maps in the formats of the test servers of ADE20K and Cityscapes: their values and their file names.

Source: ADE20K's development kit (the values of its masks, 1 to 150, in PNGs named as the images); Cityscapes'
evaluation scripts (label ids, not train ids, in one PNG an image, whose name begins with city, sequence and frame).
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segmenter.data.classes import Classes
from segmenter.data.sets.named_classes import CITYSCAPES_IDS, named_classes
from segmenter.errors import UserError

Format = Literal["labels", "ade20k", "cityscapes"]
VALUES = {"ade20k": np.arange(1, 151, dtype=np.uint8), "cityscapes": np.array(CITYSCAPES_IDS, dtype=np.uint8)}
CITYSCAPES_NAME = re.compile(r"[a-z-]+_\d{6}_\d{6}")


def refuse_other_classes(classes: Classes, server: str) -> None:
    """Checks that a model's classes are those that a server scores.

    Raises:
        UserError: the classes or their order differ.
    """
    wanted = named_classes(server).names
    if classes.names != wanted:
        raise UserError(
            f"--format {server} is for models with its {len(wanted)} classes ({', '.join(wanted[:3])} ...), but this "
            f"one has {len(classes)} ({', '.join(classes.names[:3])} ...); leave --format out"
        )


def server_picture(labels: np.ndarray, server: str) -> Image.Image:
    """Labels (H W) as 8-bit grey of the server's values."""
    values = [*VALUES[server].tolist(), *range(len(VALUES[server]), 256)]
    return Image.fromarray(labels.astype(np.uint8, copy=False)).point(values)


def server_name(name: Path, server: str) -> Path:
    """The name, without folder and suffix, that a server looks for; `name` is the photo's, without suffix.

    Raises:
        UserError: the name does not show to which Cityscapes image it belongs.
    """
    if server == "ade20k":
        return Path(name.name)
    found = CITYSCAPES_NAME.match(name.name)
    if found is None:
        raise UserError(
            f"{name.name} is not the name of a Cityscapes image, such as berlin_000000_000019_leftImg8bit.png; the "
            "server needs city, sequence and frame: keep the names, or leave --format out"
        )
    return Path(f"{found.group()}_pred_labelIds")
