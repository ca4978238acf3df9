"""Proves that processes that load images end with the main one, whatever ends it, and are as many as can be carried."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from segmenter.data import loader
from segmenter.data.loader import carried, loaded
from segmenter.errors import UserError

SCRIPT = """
from torch.utils.data import Dataset

from segmenter.data.loader import loaded


class Endless(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return index


with loaded(Endless(), workers=1) as numbers:
    for number in numbers:
        raise RuntimeError("unforeseen")
"""
SLOW = """
import os
import signal
import sys
import time

from torch.utils.data import Dataset

from segmenter.data.loader import loaded


class Slow(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index == 3:
            print(os.getpid(), flush=True)
            time.sleep(600)  # in the midst of an image, where no worker looks whether its parent lives
        return index


with loaded(Slow(), workers=1) as numbers:
    for number in numbers:
        pass
"""


class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index


class Deadly(Numbers):
    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does that runs out of memory
        return index


def test_an_error_nobody_foresaw_ends_the_command(environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: unforeseen")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch's workers look for their parent between images")
def test_they_end_with_a_main_process_that_is_killed(environment):
    main = subprocess.Popen([sys.executable, "-c", SLOW], env=environment, stdout=subprocess.PIPE, text=True)
    worker = Path("/proc") / main.stdout.readline().strip()
    assert worker.is_dir()
    main.kill()
    main.communicate()

    def lives() -> bool:
        try:
            return (worker / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False

    until = time.monotonic() + 30
    while lives() and time.monotonic() < until:
        time.sleep(0.02)
    assert not lives()


def test_one_that_is_ended_from_outside_is_a_sentence():
    with pytest.raises(UserError) as error, loaded(Deadly(), 1) as numbers:
        list(numbers)
    assert str(error.value) == (
        "the 1 processes that load images did not live: one was ended from outside, as systems do that run out of "
        "memory; take fewer of them (workers)"
    )


def test_too_many_open_files_as_they_start_are_a_sentence(monkeypatch):
    def no_more(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", no_more)
    with (
        pytest.raises(UserError, match=r"the 2 processes that load images could not be started \(Too many"),
        loaded(Numbers(), 2) as numbers,
    ):
        list(numbers)


def test_no_more_are_started_than_the_machine_carries(monkeypatch, caplog):
    carried.cache_clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(loader, "_memory", lambda: 2**36)
    assert [carried(count) for count in (0, 2, 32, 33, 10**9)] == [0, 2, 32, 32, 32]
    assert "1000000000 processes were to load images; 32 do, which is what 8 cores" in caplog.text
    carried.cache_clear()
    monkeypatch.setattr(loader, "_memory", lambda: 2**31)
    assert [carried(count) for count in (2, 8, 9)] == [2, 8, 8]
    carried.cache_clear()
    monkeypatch.setattr(loader, "_memory", lambda: 2**20)
    assert carried(100) == 1
    carried.cache_clear()
    started = []
    monkeypatch.setattr(loader, "DataLoader", lambda *_, num_workers, **__: started.append(num_workers) or [])
    with loaded(Numbers(), 100_000) as numbers:
        assert list(numbers) == []
    assert started == [1]


def test_less_than_none_cannot_load():
    with pytest.raises(UserError, match="-1 processes cannot load images; write 0"), loaded(Numbers(), -1) as numbers:
        list(numbers)
