"""Ctrl-C and SIGTERM during a run: the first lets the step end and the state be saved, the second ends at once.

Where nothing is half done (a batch is awaited, a model is scored), the first ends that too: schedulers wait for
seconds only.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """The first Ctrl-C, where nothing is half done."""


class StopsOnInterrupt:
    """While it is entered, the first Ctrl-C (or SIGTERM) sets `stopping`; the second one ends the run at once."""

    def __init__(self, stopping: threading.Event, say: Callable[[str], None]):
        self.stopping, self.say = stopping, say
        self.waiting = False

    def __enter__(self) -> "StopsOnInterrupt":
        self.old, self.process = {}, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self.old = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done within may be left anywhere.

        Raises:
            Stopped: the run was, or is, told to stop.
        """
        self.waiting = True
        try:
            if self.stopping.is_set():
                raise Stopped
            yield
        finally:
            self.waiting = False

    def _stop(self, number: int, frame) -> None:
        if os.getpid() != self.process:  # one that loads images and is just being started
            return
        if self.stopping.is_set():
            raise KeyboardInterrupt
        self.stopping.set()
        self.say("stopping after this step; press Ctrl-C again to stop at once")
        if self.waiting:
            self.waiting = False
            raise Stopped
