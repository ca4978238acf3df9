"""The layouts of the published data sets, recognised by their folders: images, masks, lists, classes.

Source: the data sets' own releases, read as the published Segmenter does. Test images come without masks: they can be
predicted, but not scored. Where our names differ from a release's, classes/*.yaml says why.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from segmenter.data.classes import Classes
from segmenter.data.pairs import Pairs, by_name, contents, first, lines, pair_files, select, unlabelled
from segmenter.data.sets.named_classes import cityscapes_by_id, named_classes
from segmenter.errors import UserError

VOC_NAME = re.compile(r"\d{4}_\d{6}")  # of an image: year and number
IMAGE, TRAIN_IDS, IDS = "_leftImg8bit", "_gtFine_labelTrainIds", "_gtFine_labelIds"  # ends of Cityscapes' names


@dataclass(frozen=True)
class DataSetFiles:
    """The files of a data set in a folder; `splits` may be empty."""

    title: str
    splits: dict[str, Pairs]
    classes: Classes


@dataclass(frozen=True)
class Layout:
    """The layout of one data set on disk."""

    title: str
    homes: tuple[str, ...]
    """Where its folders may be, below the folder that a user names."""
    folders: tuple[str, ...]
    """Folders that must be there."""
    expected: str
    """What is looked for, in words."""
    find: Callable[[Path], DataSetFiles]
    published: Callable[[Path], bool] = lambda home: True
    """Whether these are the published files, and not a user's own in the same layout."""

    def home(self, root: Path) -> Path | None:
        """The first place below a root that holds the folders."""
        places = (root / home for home in self.homes)
        return next((place for place in places if all((place / name).is_dir() for name in self.folders)), None)


def find_named(layout: str, root: Path) -> DataSetFiles | None:
    """The data set of that layout in a folder, or with `auto` the one that is recognised, if any.

    Raises:
        UserError: the folder does not have the layout, or has several, or images and masks do not match.
    """
    if layout == "pascal_context_59":
        found = find_named("pascal_context", root)
        return replace(found, title="Pascal Context without background", classes=named_classes(layout))
    if layout in LAYOUTS:
        known = LAYOUTS[layout]
        home = known.home(root)
        found = known.find(home) if home else None
        if not found or not found.splits:
            raise UserError(
                f"{root} holds {contents(root)}, but {known.title} has {known.expected}; give the folder that it was "
                "unpacked into"
            )
        return found
    if layout != "auto":
        return None
    homes = {name: known.home(root) for name, known in LAYOUTS.items()}
    here = [name for name, home in homes.items() if home and LAYOUTS[name].published(home)]
    if len(here) > 1:
        titles = " and ".join(LAYOUTS[name].title for name in here)
        wanted = " or ".join(here)
        raise UserError(f"{root} holds {titles}; choose --data.layout {wanted}")
    found = LAYOUTS[here[0]].find(homes[here[0]]) if here else None
    return found if found and found.splits else None


def _ade20k(home: Path) -> DataSetFiles:
    splits = {
        split: pair_files(home / "images" / folder, home / "annotations" / folder, split)
        for split, folder in (("train", "training"), ("val", "validation"))
        if (home / "images" / folder).is_dir()
    }
    # The test images come in a separate archive, unpacked inside or beside the other's folder.
    for images in (home / "images/testing", home / "release_test/testing", home.parent / "release_test/testing"):
        if images.is_dir() and "test" not in splits:
            splits["test"] = unlabelled(by_name(images))
    return DataSetFiles("ADE20K", splits, named_classes("ade20k"))


def _is_ade20k(home: Path) -> bool:
    if (home / "objectInfo150.txt").is_file():
        return True
    folders = (home / "images/training", home / "images/validation")
    return any(next(folder.glob("ADE_*"), None) for folder in folders)


def _context(home: Path) -> DataSetFiles:
    lists = {split: home / f"ImageSets/SegmentationContext/{split}.txt" for split in ("train", "val")}
    splits = {
        split: pair_files(home / "JPEGImages", home / "SegmentationClassContext", split, lines(path), path)
        for split, path in lists.items()
        if path.is_file()
    }
    return DataSetFiles("Pascal Context with background", splits, named_classes("pascal_context"))


def _voc(home: Path) -> DataSetFiles:
    """VOC's lists; if the masks of SegmentationClassAug are there too, they join train, except those of val."""
    images, masks, augmented = (home / name for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"))
    lists = {split: home / f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val", "test")}
    splits = {
        split: pair_files(images, masks, split, lines(lists[split]), lists[split])
        for split in ("train", "val")
        if lists[split].is_file()
    }
    title = "Pascal VOC"
    if augmented.is_dir() and splits:
        title += " with SegmentationClassAug"
        train, scored = splits.setdefault("train", {}), splits.get("val", {})
        more = {name: mask for name, mask in by_name(augmented).items() if name not in train and name not in scored}
        pictures = select(by_name(images), list(more), augmented, images)
        train |= {name: (pictures[name], mask) for name, mask in more.items()}
    if lists["test"].is_file():
        pictures, wanted = by_name(images), lines(lists["test"])
        if any(name in pictures for name in wanted):  # the list may be there without its images
            splits["test"] = unlabelled(select(pictures, wanted, lists["test"], images))
    return DataSetFiles(title, splits, named_classes("voc"))


def _is_voc(home: Path) -> bool:
    if (home / "SegmentationClassContext").is_dir():  # Pascal Context is laid into a folder of VOC's
        return False
    lists = (home / f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val"))
    names = [line for path in lists if path.is_file() for line in lines(path)[:1]]
    return bool(names) and all(VOC_NAME.fullmatch(name) for name in names)


def _cityscapes(home: Path) -> DataSetFiles:
    """The masks of train ids where every image has one, else those of label ids; test's are dummies and left out."""
    images = {split: by_name(home / "leftImg8bit" / split) for split in ("train", "val", "test")}
    labelled = {split: by_name(home / "gtFine" / split) for split in ("train", "val")}

    def masks(end: str) -> dict[str, dict[str, Path | None]]:
        return {
            split: {name: labelled[split].get(name.removesuffix(IMAGE) + end) for name in images[split]}
            for split in labelled
        }

    by_train_id, by_id = masks(TRAIN_IDS), masks(IDS)
    whole = all(mask for split in by_train_id.values() for mask in split.values())
    chosen = by_train_id if whole else by_id
    for split, found in chosen.items():
        if lonely := [name for name, mask in found.items() if mask is None]:
            raise UserError(
                f"{len(lonely)} of {len(found)} images in {home / 'leftImg8bit' / split} have no *{IDS}.png in "
                f"{home / 'gtFine' / split}: {first(lonely)}; unpack gtFine_trainvaltest.zip there"
            )
    splits = {split: {name: (path, chosen[split][name]) for name, path in images[split].items()} for split in chosen}
    splits = {split: pairs for split, pairs in (splits | {"test": unlabelled(images["test"])}).items() if pairs}
    return DataSetFiles("Cityscapes", splits, named_classes("cityscapes") if whole else cityscapes_by_id())


def _camvid(home: Path) -> DataSetFiles:
    """Pairs of the splits that have a folder: train/ and trainannot/, named by train.txt where it exists."""
    splits = {}
    for split in ("train", "val", "test"):
        if (home / split).is_dir():
            path = home / f"{split}.txt"
            # The published lists hold "/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png".
            wanted = [Path(line.split()[0]).name for line in lines(path)] if path.is_file() else None
            splits[split] = pair_files(home / split, home / f"{split}annot", split, wanted, path)
    return DataSetFiles("CamVid", splits, named_classes("camvid"))


LAYOUTS = {
    "ade20k": Layout(
        "ADE20K",
        ("", "ADEChallengeData2016"),
        ("images", "annotations"),
        "images/ and annotations/ with training/ and validation/ in them",
        _ade20k,
        _is_ade20k,
    ),
    "pascal_context": Layout(
        "Pascal Context",
        ("", "VOC2010", "VOCdevkit/VOC2010"),
        ("JPEGImages", "SegmentationClassContext"),
        "JPEGImages/, SegmentationClassContext/ and lists in ImageSets/SegmentationContext/",
        _context,
    ),
    "cityscapes": Layout(
        "Cityscapes",
        ("",),
        ("leftImg8bit", "gtFine"),
        "leftImg8bit/ and gtFine/ with train/, val/ and test/ in them",
        _cityscapes,
    ),
    "voc": Layout(
        "Pascal VOC",
        ("", "VOC2012", "VOCdevkit/VOC2012"),
        ("JPEGImages", "SegmentationClass"),
        "JPEGImages/, SegmentationClass/ and lists in ImageSets/Segmentation/",
        _voc,
        _is_voc,
    ),
    "camvid": Layout(
        "CamVid", ("", "CamVid"), ("train", "trainannot"), "train/ and trainannot/ (val and test likewise)", _camvid
    ),
}
