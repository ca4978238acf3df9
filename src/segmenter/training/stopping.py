"""Ctrl-C and SIGTERM during a run: the first lets the step end and the state be saved, the second ends at once."""

import signal
import threading
from collections.abc import Callable


class StopsOnInterrupt:
    """While it is entered, the first Ctrl-C (or SIGTERM) sets `stopping`; the second one ends the run at once."""

    def __init__(self, stopping: threading.Event, say: Callable[[str], None]):
        self.stopping, self.say = stopping, say

    def __enter__(self) -> None:
        self.old = {}
        if threading.current_thread() is threading.main_thread():
            self.old = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame) -> None:
        if self.stopping.is_set():
            raise KeyboardInterrupt
        self.stopping.set()
        self.say("stopping after this step; press Ctrl-C again to stop at once")
