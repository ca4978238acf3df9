"""Images and the masks or depth maps of one split, paired by their path without suffix."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segmenter.data.files import SUFFIXES
from segmenter.errors import UserError, cleaned


class Target(NamedTuple):
    """What is known of an image's pixels, and where it lies."""

    word: str
    folders: tuple[str, ...]
    """Names that its folder may have."""
    suffixes: tuple[str, ...]
    expected: str
    """What the data folder holds, in words."""


MASKS = Target(
    "mask",
    ("masks", "labels", "annotations"),
    SUFFIXES,
    "train/images and train/masks (val and test likewise), or images and masks, or a published data set (ADE20K, "
    "Pascal Context, Cityscapes, Pascal VOC, CamVid)",
)
DEPTH = Target(
    "depth map",
    ("depth", "disparity"),
    (".png", ".npy", ".npz", ".exr"),
    "train/images and train/depth (val and test likewise), or images and depth",
)

MOST_FOLDERS = 20_000
LONGEST_LIST = 64 * 2**20  # bytes

Pairs = dict[str, tuple[Path, Path | None]]
"""Name to image and mask or depth map."""


def pair_files(
    images: Path,
    masks: Path,
    split: str,
    wanted: list[str] | None = None,
    list_file: Path | None = None,
    target: Target = MASKS,
) -> Pairs:
    """Images and masks of equal name, in a list where there is one; test images may have no masks folder.

    Raises:
        UserError: there are no images, or images, masks and list do not match; it names the first five.
    """
    word = target.word
    pictures = by_name(images)
    if not pictures:
        kinds = ", ".join(s[1:] for s in SUFFIXES)
        raise UserError(f"{images} holds {contents(images)}, but no images ({kinds})")
    if wanted is not None:
        pictures = select(pictures, wanted, list_file, images)
    if not masks.is_dir():
        if split == "test":
            return unlabelled(pictures)
        raise UserError(f"{masks} does not exist, but the {len(pictures)} images in {images} need {word}s there")
    labelled = by_name(masks, target.suffixes)
    lonely = sorted(set(pictures) - set(labelled))
    if lonely:
        raise UserError(
            f"{len(lonely)} of {len(pictures)} images in {images} have no {word} of the same name in {masks}: "
            f"{first(lonely)}; rename or add the {word}s, or remove the images"
        )
    extra = sorted(set(labelled) - set(pictures))
    if extra and wanted is None:
        raise UserError(
            f"{len(extra)} of {len(labelled)} {word}s in {masks} have no image of the same name in {images}: "
            f"{first(extra)}; rename or add the images, or remove the {word}s"
        )
    return {name: (path, labelled[name]) for name, path in pictures.items()}


def unlabelled(pictures: dict[str, Path]) -> Pairs:
    """Images without masks."""
    return {name: (path, None) for name, path in pictures.items()}


def lines(path: Path) -> list[str]:
    """The lines of a list that hold something; the mark that Windows editors put first is dropped."""
    with path.open("rb") as file:
        content = file.read(LONGEST_LIST + 1)
    if len(content) > LONGEST_LIST:
        raise UserError(f"{path} has more than {LONGEST_LIST >> 20} MB, which no list of images has")
    text = content.decode("utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def by_name(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """Files with these suffixes below a folder, hidden ones left out, by their path without suffix.

    Raises:
        UserError: two files differ only in the suffix.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name, by which files are paired: remove one")
        found[name] = path
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Files below a folder in order, hidden ones left out; links to folders are followed, but never round in a circle.

    Raises:
        UserError: there are more folders than any data set has, as links from each to all others make them.
    """
    within: dict[str, frozenset] = {}  # the folders that lead to one, as the disk numbers them
    for walked, (parent, folders, files) in enumerate(os.walk(folder, followlinks=True)):
        if walked > MOST_FOLDERS:
            raise UserError(f"{folder} has more than {MOST_FOLDERS} folders below it; do its links lead in circles?")
        about = os.stat(parent)
        path = within.pop(parent, frozenset()) | {(about.st_dev, about.st_ino)}
        kept = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            below = os.path.join(parent, name)
            about = os.stat(below)
            if (about.st_dev, about.st_ino) not in path:
                kept.append(name)
                within[below] = path
        folders[:] = kept
        yield from (Path(parent, file) for file in sorted(files) if not file.startswith("."))


def select(pictures: dict[str, Path], lines: list[str], list_file: Path, images: Path) -> dict[str, Path]:
    """The pictures that a list names, with or without suffix.

    Raises:
        UserError: the list is empty or names pictures that do not exist.
    """
    names = [
        line.rpartition(".")[0] if line not in pictures and Path(line).suffix.lower() in SUFFIXES else line
        for line in lines
    ]
    if not names:
        raise UserError(f"{list_file} is empty; write one image name a line, or remove the file")
    missing = [name for name in names if name not in pictures]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} names in {list_file} are not in {images}: {first(missing)}; "
            "add the images or remove the lines"
        )
    return {name: pictures[name] for name in names}


def contents(folder: Path) -> str:
    """What lies in a folder, for a message: the first few names."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    return first(names) if names else "nothing"


def first(names: Sequence[str]) -> str:
    """The first five of a list, for a message."""
    return ", ".join(cleaned(name, 250) for name in names[:5]) + (", ..." if len(names) > 5 else "")
