"""Remembers the sha256 that a file had when it first came from an address that publishes none.

A later download, into whatever folder, must have the same. This proves that the file is the one from then, not that
the one from then was its publisher's: who answers the first download is believed. What is remembered lies in a folder
of its own, not beside the files, so that whoever exchanges a file does not exchange its hash with it.
"""

import hashlib
import logging
import os
from pathlib import Path

from segmenter import atomic
from segmenter.errors import UserError

logger = logging.getLogger(__name__)
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
    """Returns if a file has the hash that it had at first; that one is remembered, or it is said that it cannot be.

    Raises:
        UserError: it has another one, or the first one cannot be read.
    """
    try:
        note = note_of(address)
        known = note.read_text(encoding="utf-8", errors="replace").split()[:1] if note.exists() else []
    except OSError as error:
        raise UserError(f"{note} cannot be read ({error.strerror or error}); make it readable") from None
    except UserError as error:  # no home folder, as in many containers
        logger.warning("the sha256 of %s is not remembered: %s", path, error)
        return
    if known and known[0] != found:
        raise UserError(
            f"{path} has the sha256 {found[:8]}..., but what first came from {address} had {known[0][:8]}...; delete "
            f"the file to fetch it again, or {note} if its publisher has changed it"
        )
    if not known:
        try:
            atomic.write_text(note, f"{found}  {address}\n")
        except UserError as error:  # a home that may only be read
            logger.warning("the sha256 of %s is not remembered: %s", path, error)
