"""Threads that each work alone on large pieces.

torch divides every single operation among its threads, and each operation ends when the last of them has done its
share. Beside another program that keeps the cores busy, one of them has always just lost its core: dozens of small
operations then take a hundred times as long. So here a thread does a whole piece, its operations take no other, and
threads wait for each other once, at the end. How a sum is divided never depends on how many threads there are.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

Piece, Result = TypeVar("Piece"), TypeVar("Result")

MOST = 1024
"""Threads of all callers together; they are started when they are needed."""

_own = threading.local()
"""`threads`: how many may work for the one that runs here."""
_pool: ThreadPoolExecutor | None = None
_starting = threading.Lock()


def apart(device: torch.device, function: Callable[[], Result]) -> Result:
    """Calls a function where operations take one thread and `each` as many as torch's setting gives the caller.

    With one thread, on other devices, and where a mode of the caller's sees every operation, that is here.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or _get_current_dispatch_mode() is not None:
        return function()
    future = _submitted(_in_same_modes(function), threads)
    return function() if future is None else future.result()


def each(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """What a function makes of each piece, in the order of the pieces; threads take the next piece when they are free.

    The first error of any of them is raised when all have stopped.
    """
    waiting = deque(enumerate(pieces))
    results: list[Result | None] = [None] * len(waiting)

    def work() -> None:
        try:
            while True:
                try:
                    number, piece = waiting.popleft()
                except IndexError:
                    return
                results[number] = function(piece)
        finally:
            waiting.clear()  # after an error nobody need go on

    helpers = [_submitted(_in_same_modes(work)) for _ in range(min(getattr(_own, "threads", 1), len(waiting)) - 1)]
    started = []
    try:
        work()
    finally:  # those that have not begun are not waited for: all threads may be busy with other callers
        started = [helper for helper in helpers if helper is not None and not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()
    return results


def _in_same_modes(function: Callable[[], Result]) -> Callable[[], Result]:
    """The function, to be called in another thread with what torch knows of each thread as it is here."""
    inference, gradient = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call() -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradient):
            return function()

    return call


def _submitted(function: Callable[[], Result], threads: int = 1) -> Future[Result] | None:
    """A function that one of our threads will call, with so many for `each`; None where no thread can be had."""
    global _pool

    def call() -> Result:
        _own.threads = threads
        return function()

    with _starting:
        if _pool is None:
            _pool = ThreadPoolExecutor(MOST, "segmenter pixels", _one_thread)
        pool = _pool
    try:
        return pool.submit(call)
    except RuntimeError:  # the interpreter is about to end
        return None


def _one_thread() -> None:
    """Operations of the new thread that runs this take no other one.

    torch also takes what was set last, by whomever, for all threads that have not computed yet. What it was before
    this thread tells as it is new; another one, which ends at once, sets it back.
    """
    with _starting:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        setter = threading.Thread(target=torch.set_num_threads, args=(before,))
        setter.start()
        setter.join()


def _forget() -> None:
    """A forked process has none of our threads."""
    global _pool, _starting
    _pool, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
