"""What the tests of hostile files share: calls as pickles have them, torch files of any pickle, and the refusal."""

import struct
import zipfile
from pathlib import Path

import pytest

import segmenter
from segmenter.errors import UserError


def refused(path: Path) -> str:
    """The one sentence that says why the file cannot be loaded."""
    with pytest.raises(UserError) as error:
        segmenter.load(path)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    assert str(path) in text
    return text


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def as_torch(path: Path, program: bytes) -> Path:
    """A torch file whose pickle is this one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
    return path


def strings(*texts: str) -> bytes:
    return b"".join(b"X" + struct.pack("<I", len(t)) + t.encode() for t in texts)
