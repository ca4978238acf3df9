"""A data folder as it is, or what a zip file holds, unpacked for as long as it is read."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmenter.data.sets.archives import unpack
from segmenter.errors import UserError


@contextmanager
def unpacked(data: Path, beside: Path) -> Iterator[Path]:
    """The folder to read: `data` itself, or the content of that zip in a folder beside `beside`, which is removed.

    Raises:
        UserError: the zip is broken or unsafe, or there is no room.
    """
    data = data.expanduser()
    if data.suffix.lower() != ".zip" or data.is_dir():
        yield data
        return
    if not data.is_file():
        raise UserError(f"{data} does not exist; give the folder or the zip file with the annotations")
    home = beside.expanduser().absolute().parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".segmenter-unpacked-", dir=home) as folder:
        root = Path(folder) / data.stem
        unpack(data, root)
        yield root
