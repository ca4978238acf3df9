"""Files that are whole or not there: written beside, then renamed, so that a full disk spares the old one."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from segmenter.errors import UserError


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Calls `writer` with a path beside `path`, then puts the result in its place.

    Raises:
        UserError: the disk is full or the folder cannot be written to; what was at `path` is still there.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        mode = beside.stat().st_mode
        writer(beside)
        beside.chmod(mode)  # safetensors makes files that nobody else may read
        os.replace(beside, path)
    except Exception as error:
        # Writers wrap a full disk in errors of their own (RuntimeError, SafetensorError), so all of them count.
        raise UserError(
            f"could not write {path} ({error}): make room there, or choose a folder that can be written to; "
            "the file from before, if any, is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # there is none after the rename
            beside.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file as `write` does."""
    write(path, lambda beside: beside.write_text(text, encoding="utf-8"))
