"""How far something is: a bar on a terminal; elsewhere (a log file, a scheduler) a line every 30 seconds."""

import contextlib
import io
import sys
import time

from tqdm import tqdm

EVERY = 30.0  # seconds between lines
LINE = "{desc}: {percentage:.0f}%, {n_fmt}/{total_fmt} {unit}, {elapsed} gone, {remaining} to go, {rate_fmt}{postfix}"
UNKNOWN = "{desc}: {n_fmt} {unit}, {elapsed} gone, {rate_fmt}{postfix}"  # of which nobody knows how much there is


class Progress(tqdm):
    """tqdm's bar and words; where it cannot be redrawn, lines that stay."""

    def __init__(self, *arguments, **options):
        self.redrawn = on_terminal()
        self.next = time.monotonic() + EVERY
        if not self.redrawn:
            options["file"] = io.StringIO()  # stderr may be closed or full, which tqdm does not forgive
        super().__init__(*arguments, **options)

    def refresh(self, *arguments, **options):
        """Redraws the bar, or writes a line if the last is long enough ago."""
        if self.redrawn or self.disable:
            return super().refresh(*arguments, **options)
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + EVERY
            self._write_line()
        return True

    def close(self) -> None:
        """Ends it; what stays on a terminal is a last line elsewhere."""
        if self.redrawn or self.disable:
            return super().close()
        if self.leave:
            self._write_line()
        self.disable = True
        self._decr_instances(self)  # all that tqdm does besides, but for wiping out a bar
        return None

    def _write_line(self) -> None:
        say(self.format_meter(**self.format_dict | {"bar_format": LINE if self.total else UNKNOWN}))


def say(text: str) -> None:
    """Writes a line to stderr without tearing a bar; a stderr that takes nothing more ends no training."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # full or closed, or in the midst of another line
        if on_terminal():
            tqdm.write(text, file=sys.stderr)
        elif sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether stderr is a terminal, where lines can be redrawn."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
