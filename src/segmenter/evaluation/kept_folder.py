"""The folder of an evaluation: scores.json, for people and programs, and images.npz, with what is kept of every image.

Both are read without executing anything. The hash of images.npz stands in scores.json, so that files of two evaluations
are never taken for one.
"""

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmenter import atomic
from segmenter.data.apart import refuse_data
from segmenter.documents import BadDocument, read_text
from segmenter.errors import UserError, brief
from segmenter.evaluation import bootstrap
from segmenter.evaluation.depth_metrics import METRICS
from segmenter.evaluation.kept_depth import BY_DISTANCE, DISTANCES, KeptDepth
from segmenter.evaluation.kept_labels import BINS, BOUNDARIES, CONFUSIONS, OBJECTS, SIZES, KeptLabels

SCORES, IMAGES = "scores.json", "images.npz"
MARK = "segmenter evaluation "
FORMAT = f"{MARK}1"
LARGEST = 2**31  # bytes of the arrays; 2000 images of ADE20K have 5 MB
LONGEST = 2**26  # bytes of scores.json
DAMAGE = (
    BadDocument, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
Kept = KeptLabels | KeptDepth


@dataclass(frozen=True)
class _Array:
    """Type of an array in images.npz, and its shape after the first axis; that has the length N, or any."""

    dtype: np.dtype
    shape: tuple[int, ...] = ()
    of_images: bool = True


ARRAYS = {
    "labels": {
        "sizes": _Array(np.dtype("i4"), (2,)),
        "confusions": _Array(CONFUSIONS, of_images=False),
        "objects": _Array(OBJECTS, of_images=False),
        "boundaries": _Array(BOUNDARIES, of_images=False),
        "calibration": _Array(np.dtype("f8"), (BINS, 3)),
    },
    "depth": {
        "sizes": _Array(np.dtype("i4"), (2,)),
        "errors": _Array(np.dtype("f8"), (1 + len(METRICS),)),
        "distances": _Array(np.dtype("f8"), (DISTANCES, len(BY_DISTANCE))),
    },
}


def claim(folder: Path, overwrite: bool) -> None:
    """Checks, before the work, that an evaluation may be written into a folder.

    Raises:
        UserError: it holds data, files of these names that are not an evaluation's, or one without `overwrite`.
    """
    refuse_data([folder])
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another --out")
    there = [path for path in (folder / SCORES, folder / IMAGES) if os.path.lexists(path)]
    if not there:
        return
    if foreign := [path.name for path in there if not _is_own(path)]:
        raise UserError(f"{folder} holds {' and '.join(foreign)}, which evaluate did not write; choose another --out")
    if not overwrite:
        raise UserError(f"{folder} holds an evaluation; choose another --out, or add --overwrite to replace it")


def write(kept: Kept, folder: Path) -> None:
    """Writes an evaluation into a folder that was claimed.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    arrays = {name: getattr(kept, name).astype(kind.dtype) for name, kind in ARRAYS[kept.task].items()}
    names = np.array(kept.names, np.str_) if kept.names else np.empty(0, "<U1")
    about = to_dict(kept)

    def write_arrays(beside: Path) -> None:
        with beside.open("wb") as file:  # by its name, numpy would append one
            np.savez_compressed(file, format=np.array(FORMAT), names=names, **arrays)
        about["images_sha256"] = atomic.settled(beside)

    atomic.write(folder / IMAGES, write_arrays)
    atomic.write_text(folder / SCORES, json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read(folder: str | Path) -> Kept:
    """The evaluation in a folder that `evaluate --out` wrote.

    Raises:
        UserError: there is none, it is damaged, or a later release wrote it.
    """
    folder = Path(folder)
    with _damage_told(folder):
        return _read(folder / IMAGES, _summary(folder / SCORES))


def summary(folder: str | Path) -> dict:
    """What scores.json holds in a folder that `evaluate --out` wrote: scores, measures with intervals, and about what.

    Raises:
        UserError: as `read`.
    """
    folder = Path(folder)
    with _damage_told(folder):
        return _summary(folder / SCORES)


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """Turns what broken files raise into a sentence."""
    try:
        yield
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise UserError(
            f"{folder} has no {name}, which `segmenter evaluate MODEL DATA --out FOLDER` writes; choose such a folder"
        ) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror or error}); choose another folder") from error
    except UserError:
        raise
    except DAMAGE as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        text = f"the evaluation in {folder} is damaged ({brief(what, 100)}); evaluate again with --overwrite"
        raise UserError(text) from error


def _summary(path: Path) -> dict:
    about = json.loads(read_text(path, LONGEST))
    written = about["format"] if isinstance(about, dict) else None
    if written != FORMAT:
        raise UserError(
            f"{path} has the format {brief(written)}, and {FORMAT!r} is read; evaluate again, or update segmenter"
        )
    return about


def _is_own(path: Path) -> bool:
    """Whether `write` wrote this file, which may be half of a pair."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.name == SCORES:
            written = json.loads(read_text(path, LONGEST))["format"]
        else:
            with np.load(path, allow_pickle=False) as archive:
                written = archive["format"].item()
    except (OSError, *DAMAGE, EOFError):
        return False
    return str(written).startswith(MARK)


def _read(path: Path, about: dict) -> Kept:
    kinds = ARRAYS[about["task"]]
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != about["images_sha256"]:
            raise ValueError(f"{path.name} is not the one that {SCORES} was written with")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
            raise ValueError(f"{path.name} holds more than {LARGEST // 2**30} GB")
    with np.load(path, allow_pickle=False) as archive:
        names = tuple(map(str, archive["names"].tolist()))
        arrays = {name: _checked(archive[name], name, kind, len(names)) for name, kind in kinds.items()}
    kept = {"names": names, "about": dict(about["about"]), **arrays}
    if about["task"] == "depth":
        return KeptDepth(edges=tuple(map(float, about["edges"])), alignment=str(about["alignment"]), **kept)
    classes = tuple(map(str, about["classes"]))
    for name in ("confusions", "objects", "boundaries"):
        table = arrays[name]
        highest = {"image": len(names), "true": len(classes), "predicted": len(classes), "class": len(classes)}
        highest |= {"size": len(SIZES)} | ({"predicted": math.inf, "true": math.inf} if name == "boundaries" else {})
        for column in table.dtype.names:
            if len(table) and not 0 <= table[column].min() <= table[column].max() < highest.get(column, math.inf):
                raise ValueError(f"{column} of {name} goes from {table[column].min()} to {table[column].max()}")
        if (np.diff(table["image"]) < 0).any():
            raise ValueError(f"the images of {name} are out of order")
    small, large = map(int, about["areas"])
    if not 0 < (boundary := float(about["boundary"])) <= 1:
        raise ValueError(f"boundary is {boundary}")
    return KeptLabels(classes=classes, areas=(small, large), boundary=boundary, **kept)


def _checked(array: np.ndarray, name: str, kind: _Array, images: int) -> np.ndarray:
    wanted = (images if kind.of_images else len(array) if array.ndim else 0, *kind.shape)
    if array.dtype != kind.dtype or array.shape != wanted:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not {kind.dtype} of shape {wanted}")
    return array


def to_dict(kept: Kept) -> dict:
    """Plain values for scores.json, or for printing: scores, measures with intervals, and what was evaluated."""
    found = bootstrap.intervals(kept)
    about = {"format": FORMAT, "task": kept.task, "about": kept.about, "images": len(kept)}
    about["scores"] = kept.scores.to_dict()
    about["measures"] = {
        name: {"value": _plain(one.value), "low": _plain(one.low), "high": _plain(one.high)}
        for name, one in found.items()
    }
    if isinstance(kept, KeptDepth):
        about |= {"alignment": kept.alignment, "edges": list(kept.edges)}
    else:
        about |= {"classes": list(kept.classes), "areas": list(kept.areas), "boundary": kept.boundary}
        about["objects"] = _objects(kept)
        about["reliability"] = _plain(kept.reliability())
        about["confused"] = [
            {
                "true": kept.classes[pair.true],
                "predicted": kept.classes[pair.predicted],
                "pixels": pair.pixels,
                "share": pair.share,
                "images": pair.images,
            }
            for pair in kept.confused()
        ]
    return about


def _objects(kept: KeptLabels) -> dict:
    """How many objects of each size there are, and of how many at least half the pixels are right."""
    found = {}
    for place, size in enumerate(SIZES):
        rows = kept.objects[kept.objects["size"] == place]
        found[size] = {"objects": int(rows["objects"].sum()), "found": int(rows["found"].sum())}
    return found


def _plain(values: np.ndarray) -> list | float | None:
    """Numbers for JSON, None for nan."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    return None if np.isnan(values) else float(values)
