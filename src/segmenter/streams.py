"""The command's standard streams when they are closed, full or broken: what it does is not lost with what it says.

A closed stream is put back, as otherwise the next file that is opened would get its number and be written into.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator

from segmenter.errors import cleaned

STREAMS = {0: "stdin", 1: "stdout", 2: "stderr"}


class Forgiving(io.TextIOBase):
    """A stream that falls silent, instead of failing, when nobody can have what it says; `failed` tells why."""

    def __init__(self, stream: io.TextIOBase):
        self.stream = stream
        self.failed: Exception | None = None

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Passes on what can be passed on."""
        self._attempt(self.stream.flush)

    def _attempt(self, act: Callable[[], object]) -> None:
        if self.failed is None:
            try:
                act()
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self.failed = error
                _silence(self.stream)

    def fileno(self) -> int:
        """The stream's."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        try:
            return self.stream.isatty()
        except (OSError, ValueError):
            return False

    @property
    def encoding(self) -> str:
        """The stream's."""
        return self.stream.encoding


@contextlib.contextmanager
def usable() -> Iterator[Forgiving]:
    """Within it sys.stdout, which it gives, and sys.stderr can be written to, whatever they are."""
    for number, name in STREAMS.items():
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number, which is this one; writing to what was closed as stdout fails, as it should.
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115  (open to the end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names need not fit the terminal's encoding
    before = sys.stdout, sys.stderr, warnings.showwarning
    warnings.showwarning = _warn
    out, sys.stderr = Forgiving(sys.stdout), Forgiving(sys.stderr)
    sys.stdout = out
    try:
        yield out
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before


def _silence(stream: io.TextIOBase) -> None:
    """Sends what is still to come to nowhere: the interpreter would fail on it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def tell(text: str) -> None:
    """Prints results; what is neither printable nor the end of a line is escaped, as in \\x1b."""
    print("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text))


def complain(text: object) -> None:
    """Prints a message of the command on stderr."""
    print(f"segmenter: {text}", file=sys.stderr)


def _warn(message: object, *_: object) -> None:
    """Prints a warning of a library, such as that of Pillow on a photo's damaged notes, as the command's own."""
    print(f"warning: {cleaned(str(message))}", file=sys.stderr)


def finished(out: Forgiving, status: int) -> int:
    """The status that the command ends with, once all results are out: 1 where they cannot be."""
    out.flush()
    if out.failed is None or isinstance(out.failed, BrokenPipeError):  # `segmenter models | head` has read enough
        return status
    complain(f"could not write to standard output ({getattr(out.failed, 'strerror', None) or out.failed})")
    return status or 1
