"""Fetches the files of a published model once: resumed where they broke off, checked by hash, kept in a cache.

Beside each file lies the sha256 that it came with, FILE.sha256, for sha256sum. Where its publisher states none, that of
the first download is what it must have from then on; that one lies elsewhere too (`first_hashes`).
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmenter import download
from segmenter.errors import UserError
from segmenter.first_hashes import agree
from segmenter.published import catalogue
from segmenter.published.catalogue import Published

try:
    import fcntl
except ImportError:  # Windows; there, two processes that fetch the same file at once are not kept apart
    fcntl = None

CACHE = "SEGMENTER_CACHE"  # environment variable: a folder to take instead of ~/.cache/segmenter


def cache() -> Path:
    """The folder that downloaded models are kept in, one folder each.

    Raises:
        UserError: none is set and there is no home folder.
    """
    try:
        return Path(os.environ.get(CACHE) or "~/.cache/segmenter").expanduser()
    except RuntimeError:
        raise UserError(f"there is no home folder here to keep downloaded models in; set {CACHE} to a folder") from None


def fetch(model: Published) -> Path:
    """The folder with the files of a published model; those that are there already need no network.

    Raises:
        UserError: a file cannot be had (with other sources), cannot be written, or has not the hash that it must have.
    """
    folder = cache() / model.name
    try:
        for file in model.files:
            path = folder / file.name
            if path.is_file():
                found = _check(path, file.sha256)
            else:
                found = _download(f"{model.folder}{file.name}", path, file.sha256)
            if not file.sha256:
                agree(f"{model.folder}{file.name}", path, found)
    except download.Failed as error:
        there = [f"{other.name} (from {other.host})" for other in catalogue.others(model)]
        remedies = [f"take {' or '.join(there)} instead"] * bool(there)
        remedies.append(f"put {' and '.join(file.name for file in model.files)} into {folder} yourself")
        raise UserError(f"{model.name}: {error}; {', or '.join(remedies)}") from error
    except OSError as error:
        raise UserError(
            f"could not write {folder} ({error.strerror or error}): make room there, or set {CACHE} to another folder"
        ) from error
    return folder


def _check(path: Path, known: str) -> str:
    """Notes and returns the hash of a file in the cache if it has the one that it must have."""
    note = _note(path)
    noted = note.read_text(encoding="utf-8").split()[:1] if note.is_file() else []
    found = download.digest(path)
    if not found.startswith(known):
        raise UserError(f"{path} has the sha256 {found[:8]}..., not {known}... as published; delete it")
    if noted and noted[0] != found:
        raise UserError(
            f"{path} has changed since it came here: its sha256 is {found[:8]}..., not {noted[0][:8]}... as in {note}; "
            "delete both to fetch it again"
        )
    if not noted:
        with contextlib.suppress(OSError):  # a cache that may only be read
            _write_note(path, found)
    return found


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_note(path: Path, found: str) -> None:
    _note(path).write_text(f"{found}  {path.name}\n", encoding="utf-8")  # as sha256sum writes and checks it


def _download(address: str, path: Path, known: str) -> str:
    """Brings a file to `path`, which has it whole and with the right hash or not at all; returns the hash.

    Raises:
        download.Failed: it cannot be had, or has another hash.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        if path.is_file():  # another process was faster
            return download.digest(path)
        found = download.fetch(address, path, known)
        _write_note(path, found)
        return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits while another process, of a distributed training perhaps, downloads into the folder."""
    with (folder / ".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
