"""Keeps results out of folders that hold data: label maps beside images would be read as their masks, as the truth."""

from collections.abc import Iterable
from pathlib import Path

from segmenter.data.folders import SPLITS
from segmenter.data.pairs import DEPTH, MASKS
from segmenter.errors import UserError

IMAGES = ("images", "JPEGImages", "leftImg8bit")
TARGETS = (*MASKS.folders, *DEPTH.folders, "SegmentationClass", "SegmentationClassAug", "gtFine")
SPELLINGS = tuple(name for names in SPLITS.values() for name in names)
CAMVID = tuple(f"{split}annot" for split in SPLITS)


def refuse_data(folders: Iterable[Path]) -> None:
    """Checks that results may be written into these folders, which need not exist; links are followed.

    Raises:
        UserError: one of them is a data folder or a split of one, or lies among the images or masks of one.
    """
    for folder in folders:
        place = folder.resolve()
        if found := _first(place, (*IMAGES, *CAMVID)) or _images_of_a_split(place):
            raise UserError(
                f"{folder} holds data ({found}), and results beside images would be read as their masks; "
                "choose another --out"
            )
        for above in (place, *place.parents):
            others = TARGETS if above.name in IMAGES else IMAGES if above.name in TARGETS else ()
            camvid = above.name in CAMVID or (above.name in SPLITS and _first(above.parent, CAMVID))
            if camvid or _first(above.parent, others):
                raise UserError(
                    f"{folder} lies in {above}, which holds images or masks of {above.parent}; choose another --out"
                )


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _images_of_a_split(folder: Path) -> Path | None:
    return next((found for name in SPELLINGS if (found := _first(folder / name, IMAGES))), None)
