"""One process at a time works on a run: a lock that the system takes from a process as it dies, whatever ends it.

A lock of POSIX, which also holds between machines that share a folder, and is not inherited by processes that load
images. Windows has none; there, nobody is kept from starting two.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segmenter import atomic
from segmenter.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
_held: set[Path] = set()  # by this process, whom the system would let in again


@contextmanager
def alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes from the run in `folder`, which is made if it is not there, and clears what dead ones left.

    Raises:
        UserError: another process works on the run, or the folder cannot be written to.
    """
    where = folder.absolute()
    if where in _held:
        raise _taken(folder, "this process")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder, say)
    except OSError as error:
        raise atomic.NotWritten(folder / LOCK, error, error.errno or 0) from error
    _held.add(where)
    try:
        for place in (folder, folder / "last"):
            atomic.clear(place)
        yield
    finally:
        _held.discard(where)
        if lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(folder / LOCK)  # while it is held: whoever waits for this file finds that it is gone
            os.close(lock)


def _locked(folder: Path, say: Callable[[str], None]) -> int | None:
    """The lock file, locked; none where there are no locks."""
    if fcntl is None:
        say(f"this system has no file locks: see to it that no other process works on {folder}")
        return None
    while True:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, folder / LOCK):
                os.ftruncate(lock, 0)
                os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return lock
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = os.read(lock, 200).decode(errors="replace")
                os.close(lock)
                raise _taken(folder, owner if owner.isprintable() and owner else "another process") from None
            os.close(lock)
            say(f"{folder} is on a disk without file locks: see to it that no other process works on it")
            return None
        os.close(lock)  # of a run that has just ended, and removed it


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _taken(folder: Path, owner: str) -> UserError:
    return UserError(f"{folder} is being trained by {owner}; wait for its end or stop it, or choose another folder")
