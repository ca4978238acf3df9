"""Records the sha256 of the first download from an address that publishes none.

A later download, into any folder, must have the same hash. This proves that the file has not changed since, not that
the first one was the publisher's: the first download is trusted. The records are in a separate folder, not beside the
files, so that replacing a file does not replace its hash.
"""

import hashlib
import logging
import os
from pathlib import Path

from segmenter import atomic
from segmenter.errors import UserError

logger = logging.getLogger(__name__)
STATE = "XDG_STATE_HOME"  # environment variable: a folder to use instead of ~/.local/state


def note_of(address: str) -> Path:
    """The file in which the hash of an address is recorded.

    Raises:
        UserError: there is no home folder.
    """
    try:
        home = Path(os.environ.get(STATE) or "~/.local/state").expanduser()
    except RuntimeError:
        raise UserError(f"there is no home folder here to remember checksums in; set {STATE} to a folder") from None
    return home / "segmenter" / "hashes" / f"{hashlib.sha256(address.encode()).hexdigest()}.sha256"


def agree(address: str, path: Path, found: str) -> None:
    """Checks that a file has the hash that it had at first, which is recorded; logs a warning if it cannot be.

    Raises:
        UserError: it has another one, or the recorded one cannot be read.
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
