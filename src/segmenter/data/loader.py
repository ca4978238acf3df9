"""A DataLoader whose workers leave Ctrl-C to the main process and end with it, and whose UserErrors keep their words.

torch puts the worker's whole traceback into the text of an exception that crosses processes.
"""

import contextlib
import ctypes
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate, default_convert

from segmenter.errors import UserError

SPARE = 16  # processes that any machine may have, where its memory carries them
A_CORE = 4  # processes; more only wait for each other
EACH = 2**28  # bytes that a process takes, besides the images
DEATH_OF_PARENT = 1  # PR_SET_PDEATHSIG of prctl

logger = logging.getLogger(__name__)


class _ReturnsErrors(Dataset):
    """A data set that returns its UserErrors instead of raising them."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


class _Collate:
    """Samples to a batch, or the first UserError among them."""

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, samples: Any) -> Any:
        for sample in samples if isinstance(samples, list) else [samples]:
            if isinstance(sample, UserError):
                return sample
        return self.collate(samples)


@contextmanager
def loaded(
    dataset: Dataset, workers: int, batches: Iterable | None = None, pin: bool = False
) -> Iterator[Iterator[Any]]:
    """The samples of `dataset` one by one, or `batches` of them (an iterable of lists of keys), in order.

    The processes that load end with the `with` block, also where an error leaves it: they would outlive the main
    process otherwise, since they take no signal.

    Raises:
        UserError: a sample cannot be loaded; those before its batch have been given.
    """
    with closing(_given(dataset, workers, batches, pin)) as given:
        yield given


def _given(dataset: Dataset, workers: int, batches: Iterable | None, pin: bool) -> Iterator[Any]:
    which = {"batch_size": None} if batches is None else {"batch_sampler": batches}
    loader = DataLoader(
        _ReturnsErrors(dataset),
        num_workers=carried(workers),
        collate_fn=_Collate(default_convert if batches is None else default_collate),
        pin_memory=pin,
        worker_init_fn=partial(_serve, os.getpid()),
        **which,
    )
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except (OSError, RuntimeError) as error:
        if not workers or not (reason := _reason(error)):
            raise
        raise UserError(f"the {workers} processes that load images {reason}; take fewer of them (workers)") from error


@cache  # it is said once
def carried(workers: int) -> int:
    """As many processes as were asked for, or as many as the cores and the memory of this machine carry.

    Raises:
        UserError: less than none.
    """
    if workers < 0:
        raise UserError(f"{workers} processes cannot load images; write 0 (the main process loads) or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, min(max(SPARE, A_CORE * cores), _memory() // EACH))
    if workers > most:
        text = "%d processes were to load images; %d do, which is what %d cores and the memory carry"
        logger.warning(text, workers, most, cores)
    return min(workers, most)


def _memory() -> int:
    """Bytes of memory that this process and those it starts may have together."""
    have = 2**40
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows
        have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(ValueError, OSError):  # "max", or no container
        have = min(have, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return have


def _reason(error: Exception) -> str:
    """Why the processes failed, as a clause; nothing: it was something else."""
    if isinstance(error, OSError):
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
            return f"could not be started ({error.strerror})"
        return ""
    if "Too many open files" in str(error):
        return "need more open files than are allowed (ulimit -n)"
    if str(error).startswith("DataLoader worker"):
        return "did not live: one was ended from outside, as systems do that run out of memory"
    return ""


def _serve(parent: int, _: int) -> None:
    """Loader processes leave Ctrl-C and SIGTERM to the main process, and end with it, even where it is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere torch looks every few seconds
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)
