"""Unpacks a downloaded zip or tar into a folder, and nowhere else.

Refused before a byte is written: paths that lead outside, links, devices, and archives that would unpack to far more
than a data set does. (Python's zipfile and tarfile read no more of a file than it declares.) Existing files with the
archive's content are skipped, so that interrupted unpacking continues; others are written again, with a warning.
"""

import logging
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from segmenter.errors import UserError, cleaned
from segmenter.progress import Progress

logger = logging.getLogger(__name__)

GROWTH = 20  # times its own size that an archive may unpack to: pictures are compressed already, label maps ten times
ALWAYS = 2**26  # bytes that any archive may unpack to
CHUNK = 2**20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    size: int
    """Bytes that it declares to take when unpacked."""
    open: Callable[[], BinaryIO]


def unpack(archive: Path, folder: Path, below: str = "") -> int:
    """Writes the files of an archive (those below a path in it, which is cut off) into a folder; returns how many.

    Raises:
        UserError: the archive is broken, would write outside the folder or unpack to too much, or the disk is full.
    """
    try:
        with _members(archive) as members:
            wanted = _wanted(archive, members, folder, below)
            missing = {path: member for path, member in wanted.items() if not _is_there(path, member)}
            if changed := sorted(str(path) for path in missing if path.exists()):
                some = cleaned(", ".join(changed[:5]) + ", ..." * (len(changed) > 5))
                logger.warning("%d files differ from those in %s and are written anew: %s", len(changed), archive, some)
            _refuse_no_room(archive, folder, sum(member.size for member in missing.values()))
            for path, member in Progress(missing.items(), f"unpack {archive.name}", unit="file", leave=False):
                _write(path, member)
    except BROKEN as error:
        raise UserError(f"{archive} is broken or incomplete ({error}); delete it and start again") from None
    except OSError as error:
        what = f"could not unpack {archive} into {folder} ({error.strerror or error})"
        raise UserError(f"{what}; make room there, or name a folder that can be written to") from None
    return len(wanted)


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """The files of an archive; folders are left out, as they come with their files."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            yield (_zip_member(archive, opened, info) for info in opened.infolist() if not info.is_dir())
    else:
        with tarfile.open(archive) as opened:
            yield (_tar_member(archive, opened, info) for info in opened if not info.isdir())


def _zip_member(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.external_attr >> 28 not in (0, 8):  # the kind of file in Unix's mode: not stated, or regular
        raise _unsafe(archive, info.filename, "is a link or a device")
    return Member(info.filename, info.file_size, lambda: opened.open(info))


def _tar_member(archive: Path, opened: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    if not info.isreg():
        raise _unsafe(archive, info.name, "is a link or a device")
    return Member(info.name, info.size, lambda: opened.extractfile(info))


def _wanted(archive: Path, members: Iterator[Member], folder: Path, below: str) -> dict[Path, Member]:
    """The places of the files below a path, after checking that all files of the archive are harmless."""
    packed, total, wanted = archive.stat().st_size, 0, {}
    for member in members:
        place = _place(archive, member.name)
        total += member.size
        if total > max(GROWTH * packed, ALWAYS):
            raise UserError(
                f"{archive} has {_megabytes(packed)}, but would unpack to {_megabytes(total)} or more, which no data "
                "set does; nothing was unpacked: get the archive from its publisher"
            )
        if place.is_relative_to(below):
            wanted[folder / place.relative_to(below)] = member
    return wanted


def _place(archive: Path, name: str) -> PurePosixPath:
    """Where a file goes below the folder."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in name or "\0" in name or not place.name:
        raise _unsafe(archive, name, "leads outside the folder")
    return place


def _unsafe(archive: Path, name: str, why: str) -> UserError:
    return UserError(f"{archive} holds {name!r}, which {why}; nothing was unpacked: get the archive from its publisher")


def _refuse_no_room(archive: Path, folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"{archive} unpacks to {_megabytes(needed)}, but {folder} has {_megabytes(free)} left"
        raise UserError(f"{text}; make room there, or name another folder")


def _is_there(path: Path, member: Member) -> bool:
    """Whether a file is there with the content that it has in the archive; of equal size alone it may be another."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    with member.open() as packed, path.open("rb") as there:
        while content := packed.read(CHUNK):
            if content != there.read(len(content)):
                return False
    return True


def _write(path: Path, member: Member) -> None:
    """Writes a file beside its place and then into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with member.open() as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        if part.stat().st_size != member.size:
            raise EOFError(f"{member.name} is cut off")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.0f} MB"
