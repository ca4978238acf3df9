"""Makes the label files of Pascal Context from its authors' annotations: of 459 classes, the 59 frequent ones.

Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014.
The published Segmenter took the masks of the later challenge "PASCAL in Detail", whose files are a dead link and a
pickle; they have the same ids, and whether every pixel is the same was not compared. Splits are VOC 2010's.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from segmenter import atomic
from segmenter.data.pairs import lines
from segmenter.data.sets.mat_files import read_array
from segmenter.errors import UserError
from segmenter.progress import Progress

# Of the classes 1 to 59 among the 459, in the order of classes/pascal_context.yaml; all others are background.
IDS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
LARGEST_ID = 459


def make_label_files(annotations: Path, home: Path) -> None:
    """Writes SegmentationClassContext/*.png and ImageSets/SegmentationContext/*.txt into a VOC2010 folder.

    `annotations` is the folder of .mat files. Label files that are there already are kept.

    Raises:
        UserError: VOC's lists or annotations are missing or broken, or there is no room to write.
    """
    values = np.zeros(LARGEST_ID + 1, np.uint8)
    values[list(IDS)] = range(1, len(IDS) + 1)

    def convert(name: str) -> None:
        path = home / f"SegmentationClassContext/{name}.png"
        if path.is_file():
            return
        ids = read_array(annotations / f"{name}.mat", "LabelMap")
        if ids.min() < 0 or ids.max() > LARGEST_ID:
            raise UserError(f"{annotations / name}.mat holds an id outside 0 to {LARGEST_ID}; unpack it again")
        picture = Image.fromarray(values[ids.astype(np.int64)])
        atomic.write(path, lambda beside: picture.save(beside, format="PNG"))

    for split in ("train", "val"):
        list_file = home / f"ImageSets/Main/{split}.txt"
        if not list_file.is_file():
            raise UserError(f"{list_file} does not exist; unpack Pascal VOC 2010 there")
        names = lines(list_file)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in Progress(pool.map(convert, names), f"labels of {split}", len(names), unit="image", leave=False):
                pass
        atomic.write_text(home / f"ImageSets/SegmentationContext/{split}.txt", "".join(f"{name}\n" for name in names))
