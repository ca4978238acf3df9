"""Threads that each work alone on large pieces.

torch divides every single operation among its threads, and each operation ends when the last of them has done its
share. Beside another program that keeps the cores busy, one of them has always just lost its core: dozens of small
operations then take a hundred times as long. So here each thread does a whole piece alone, and the threads wait for
each other once, at the end. How a sum is divided never depends on the number of threads.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

Piece, Result = TypeVar("Piece"), TypeVar("Result")

MOST = 1024
"""Threads of all callers together; they are started on demand."""

_own = threading.local()
"""`threads`: how many threads the current one may use; `scratch`: its memory by purpose."""
_pool: ThreadPoolExecutor | None = None
_starting = threading.Lock()


def scratch(purpose: str, *shape: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor, not initialised; this thread's next call with the purpose gives the same memory.

    On a CPU a thread keeps it: to have new pages from the operating system takes as long as to compute what they hold.
    """
    size = math.prod(shape)
    if device.type != "cpu" or _get_current_dispatch_mode() is not None:
        return torch.empty(shape, device=device, dtype=dtype)
    kept = _own.__dict__.setdefault("scratch", {})
    if (purpose, dtype) not in kept or len(kept[purpose, dtype]) < size:
        with torch.inference_mode(False):  # what is made in that mode may be used in no other
            kept[purpose, dtype] = torch.empty(size, dtype=dtype)
    return kept[purpose, dtype][:size].view(shape)


def in_own_thread(device: torch.device, function: Callable[[], Result]) -> Result:
    """Calls a function in a thread whose operations run on one thread; `each` uses as many as torch gives the caller.

    With one thread, on other devices, and under a dispatch mode of the caller's, it is called directly.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or _get_current_dispatch_mode() is not None:
        return function()
    future = _submitted(_in_same_modes(function), threads)
    return function() if future is None else future.result()


def each(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """A function's results for each piece, in order; every thread takes the next piece when it is free.

    The first error is raised when all threads have stopped.
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
            waiting.clear()  # after an error no other piece is needed

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
    """The function, to be called in another thread with this thread's inference and gradient modes."""
    inference, gradient = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call() -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradient):
            return function()

    return call


def _submitted(function: Callable[[], Result], threads: int = 1) -> Future[Result] | None:
    """Has one of our threads call a function, with so many threads for `each`; None if none can be started."""
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
    """Makes the operations of a new thread use that thread alone.

    torch also applies the last setting, by whichever thread, to all threads that have not computed yet. The new thread
    still reports the previous one; another thread, which ends at once, restores it.
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
