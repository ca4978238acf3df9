"""Downloads the files of a published model once, resuming broken downloads, checks hashes, keeps the files in a cache.

Beside each file lies the sha256 that it came with, FILE.sha256, for sha256sum. Where its publisher states none, that of
the first download must hold from then on; it is recorded elsewhere too (`first_hashes`).
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
except ImportError:  # Windows; two processes that download the same file at once are not kept apart there
    fcntl = None

CACHE = "SEGMENTER_CACHE"  # environment variable: a folder to use instead of ~/.cache/segmenter


def cache() -> Path:
    """The folder for downloaded models, with a subfolder for each.

    Raises:
        UserError: none is set and there is no home folder.
    """
    try:
        return Path(os.environ.get(CACHE) or "~/.cache/segmenter").expanduser()
    except RuntimeError:
        raise UserError(f"there is no home folder here to keep downloaded models in; set {CACHE} to a folder") from None


def fetch(model: Published) -> Path:
    """The folder with the files of a published model; files that are already there are not downloaded.

    Raises:
        UserError: a file could not be downloaded (the error names other sources) or written, or has a wrong hash.
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
        others = [f"{other.name} (from {other.host})" for other in catalogue.alternatives(model)]
        remedies = [f"take {' or '.join(others)} instead"] * bool(others)
        remedies.append(f"put {' and '.join(file.name for file in model.files)} into {folder} yourself")
        raise UserError(f"{model.name}: {error}; {', or '.join(remedies)}") from error
    except OSError as error:
        raise UserError(
            f"could not write {folder} ({error.strerror or error}): make room there, or set {CACHE} to another folder"
        ) from error
    return folder


def _check(path: Path, known: str) -> str:
    """Checks and returns the hash of a file in the cache, and records it beside the file if that was not done yet."""
    record = _hash_file(path)
    recorded = record.read_text(encoding="utf-8").split()[:1] if record.is_file() else []
    found = download.digest(path)
    if not found.startswith(known):
        raise UserError(f"{path} has the sha256 {found[:8]}..., not {known}... as published; delete it")
    if recorded and recorded[0] != found:
        raise UserError(
            f"{path} has changed since its download: its sha256 is {found[:8]}..., not {recorded[0][:8]}... as in "
            f"{record}; delete both to download it again"
        )
    if not recorded:
        with contextlib.suppress(OSError):  # a read-only cache
            _write_hash(path, found)
    return found


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_hash(path: Path, found: str) -> None:
    _hash_file(path).write_text(f"{found}  {path.name}\n", encoding="utf-8")  # as sha256sum writes and checks it


def _download(address: str, path: Path, known: str) -> str:
    """Downloads a file to `path`, where it appears only when it is complete and its hash is right; returns the hash.

    Raises:
        download.Failed: it could not be downloaded, or has another hash.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        if path.is_file():  # another process was faster
            return download.digest(path)
        found = download.fetch(address, path, known)
        _write_hash(path, found)
        return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits while another process, perhaps of a distributed training, downloads into the folder."""
    with (folder / ".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
