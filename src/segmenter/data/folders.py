"""Plain folders of images and masks, or depth maps: pairs of equal name in splits.

The known layouts are {train,val,test}/{images,masks}, {images,masks}/{train,val,test}, and flat images/ and masks/ with
lists or split by a hash.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from segmenter.data.pairs import MASKS, Pairs, Target, contents, lines, pair_files
from segmenter.errors import UserError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
SHARES = {"train": 0.8, "val": 0.9}  # upper ends of the hash range; the rest is test


def find_folder(root: Path, split_seed: int, target: Target = MASKS) -> dict[str, Pairs]:
    """Pairs of each split of a plain folder.

    Raises:
        UserError: there are no such folders, or images and masks do not match.
    """
    found = {}
    for split, spellings in SPLITS.items():
        for images, masks in _split_folders(root, spellings, target):
            if images.is_dir():
                if split in found:
                    raise UserError(f"{root} holds the {split} images twice, once in {images}; remove one")
                found[split] = pair_files(images, masks, split, target=target)
    if found:
        return found
    images, masks = root / "images", _masks_folder(root, target)
    if not images.is_dir() or not masks.is_dir():
        raise UserError(f"{root} holds {contents(root)}, but {target.expected} were looked for; rename the folders")
    lists = {split: root / f"{split}.txt" for split in SPLITS if (root / f"{split}.txt").is_file()}
    if lists:
        return {split: pair_files(images, masks, split, lines(path), path, target) for split, path in lists.items()}
    return split_by_hash(pair_files(images, masks, "train", target=target), split_seed)


def _split_folders(root: Path, spellings: Sequence[str], target: Target) -> Iterator[tuple[Path, Path]]:
    """Every place where a split's images could be, with the place of its masks."""
    for spelling in spellings:
        yield root / spelling / "images", _masks_folder(root / spelling, target)
        yield root / "images" / spelling, _masks_folder(root, target) / spelling


def _masks_folder(folder: Path, target: Target) -> Path:
    """The sub-folder for masks that exists, else the first name it could have."""
    return next((folder / name for name in target.folders if (folder / name).is_dir()), folder / target.folders[0])


def split_by_hash(pairs: Pairs, seed: int) -> dict[str, Pairs]:
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
