"""Remembers the sha256 that a file had when it first came from an address that publishes none.

A later download, into whatever folder, must have the same. This proves that the file is the one from then, not that
the one from then was its publisher's: who answers the first download is believed. What is remembered lies in a folder
of its own, not beside the files, so that whoever exchanges a file does not exchange its hash with it.
"""

import hashlib
import os
from pathlib import Path

from segmenter import atomic
from segmenter.errors import UserError

STATE = "XDG_STATE_HOME"  # environment variable: a folder to take instead of ~/.local/state


def note_of(address: str) -> Path:
    """The file that the hash of an address is remembered in.

    Raises:
        UserError: there is no home folder.
    """
    try:
        home = Path(os.environ.get(STATE) or "~/.local/state").expanduser()
    except RuntimeError:
        raise UserError(f"there is no home folder here to remember checksums in; set {STATE} to a folder") from None
    return home / "segmenter" / "hashes" / f"{hashlib.sha256(address.encode()).hexdigest()}.sha256"


def agree(address: str, path: Path, found: str) -> None:
    """Checks that a file has the hash that it had at first; the first one is recorded.

    Raises:
        UserError: it has another one, or the first one cannot be remembered.
    """
    note = note_of(address)
    try:
        known = note.read_text(encoding="utf-8", errors="replace").split()[:1]
    except FileNotFoundError:
        known = []
    except OSError as error:
        raise UserError(f"{note} cannot be read ({error.strerror or error}); make it readable") from None
    if known and known[0] != found:
        raise UserError(
            f"{path} has the sha256 {found[:8]}..., but what first came from {address} had {known[0][:8]}...; delete "
            f"the file to fetch it again, or {note} if its publisher has changed it"
        )
    if not known:
        atomic.write_text(note, f"{found}  {address}\n")
