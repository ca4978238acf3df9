"""A DataLoader whose workers leave Ctrl-C to the main process and whose UserErrors arrive in their own words.

torch puts the worker's whole traceback into the text of an exception that crosses processes.
"""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate, default_convert

from segmenter.errors import UserError


class _Told(Dataset):
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


class _Collated:
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
        _Told(dataset),
        num_workers=workers,
        collate_fn=_Collated(default_convert if batches is None else default_collate),
        pin_memory=pin,
        worker_init_fn=_ignore_interrupt,
        **which,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _ignore_interrupt(_: int) -> None:
    """Loader processes leave Ctrl-C and SIGTERM to the main process, which ends them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
