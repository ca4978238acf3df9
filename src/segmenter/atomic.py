"""Files that are whole or not there: written beside, then renamed, so that a full disk or a kill spares the old one.

What is written beside has a name of its own, which says who writes it: the files of writers that were killed are known
by it, and removed by the next one.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from segmenter.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT}
REMEDIES = dict.fromkeys(FULL, "make room there, or choose a folder on another disk")
REMEDIES |= dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.EISDIR),
    "choose a folder that can be written to",
)
REMEDIES |= dict.fromkeys(
    (errno.EMFILE, errno.ENFILE), "too many files are open: allow more of them (ulimit -n), or take fewer workers"
)
REMEDIES[errno.ENAMETOOLONG] = "choose a shorter name"

PARTIAL = re.compile(r"\.segmenter-([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.part")
ABANDONED = 86400.0  # seconds after which a file of another machine, whose processes cannot be asked for, is left over
_visited: set[Path] = set()  # folders that were cleared by this process


class NotWritten(UserError):
    """A file could not be written; `code` is the errno, 0 where it is not known."""

    def __init__(self, path: Path, error: Exception, code: int):
        self.code = code
        reason = os.strerror(code) if code else " ".join(str(error).split())[:200] or type(error).__name__
        remedy = f": {REMEDIES[code]}" if code in REMEDIES else ""
        super().__init__(f"could not write {path} ({reason}){remedy}; the file from before, if any, is untouched")


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer` with a path beside `path`, then puts the result in its place.

    Raises:
        UserError: the disk is full or the folder cannot be written to; what was at `path` is still there.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path.parent)
        beside = _created(path.parent)
        mode = beside.stat().st_mode
        writer(beside)
        beside.chmod(mode)  # safetensors makes files that nobody else may read
        os.replace(beside, path)
    except UserError:  # of a file that is written within
        raise
    except Exception as error:  # writers wrap a full disk in errors of their own (RuntimeError, SafetensorError)
        raise NotWritten(path, error, _code(error, beside)) from error
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):  # there is none after the rename
                beside.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file as `write` does."""
    write(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def settled(path: Path) -> str:
    """The sha256 of a file that was written just now, once the disk has it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear(folder: Path) -> None:
    """Removes what killed writers left in a folder; each process looks once."""
    where = folder.absolute()
    if where in _visited:
        return
    _visited.add(where)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (named := PARTIAL.fullmatch(entry.name)) and _is_left(entry, *named.groups()):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def is_partial(path: Path) -> bool:
    """Whether a file is one that `write` makes and renames."""
    return PARTIAL.fullmatch(path.name) is not None


def _created(folder: Path) -> Path:
    """A new empty file whose name nobody can foresee, and which is no link; its length is that of no other name's."""
    beside = folder / f".segmenter-{_here()}-{os.getpid()}-{secrets.token_hex(8)}.part"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)  # Windows has no such links
    os.close(os.open(beside, flags, 0o666))
    return beside


def _here() -> str:
    """Eight digits for this machine and its numbering of processes, which containers have of their own."""
    numbering = ""
    with contextlib.suppress(OSError):
        numbering = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {numbering}".encode()).hexdigest()[:8]


def _is_left(entry: os.DirEntry, machine: str, process: str) -> bool:
    """Whether the writer of a file is dead."""
    if machine != _here() or os.name == "nt":  # on Windows, to ask for a process is to end it
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's
        return False
    return False


def _code(error: Exception, beside: Path | None) -> int:
    """The errno behind an error: its own, that of its cause, or what the disk says now."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno:
            return link.errno
        link = link.__cause__ or link.__context__
    if stated := re.search(r"\(os error (\d+)\)", str(error)):  # as Rust's libraries say it
        return int(stated[1])
    if beside is None:
        return 0
    try:  # torch does not say why a file could not be written
        with beside.open("ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found.errno or 0
    return 0
