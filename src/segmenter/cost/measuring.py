"""Measures seconds, memory and operations on this machine, and how fast it multiplies.

Memory on a CPU is the process's resident memory, everything included (torch, NumPy, Pillow): Linux keeps its largest
value and lets a process reset it. On CUDA it is what torch's allocator handed out there. MPS does not report it.
"""

import ctypes
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

STATUS = Path("/proc/self/status")
RESET, RESET_PEAK = Path("/proc/self/clear_refs"), "5"  # see proc(5); some sandboxes have none
MATMUL_SIDES = {"cpu": 1536, "cuda": 8192, "mps": 4096}
MATMUL_SECONDS = 0.5


class Spread(NamedTuple):
    """The middle of repeated measurements and the quarters around it."""

    median: float
    low: float  # a quarter of them lie below
    high: float  # a quarter of them lie above

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of one measurement or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        middle = short(self.median)
        return middle if self.low == self.high else f"{middle} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PeakMemory:
    """Largest memory in use since `start`, in bytes; `nan` where the system does not report it."""

    def __init__(self, device: torch.device):
        self.device = device

    def start(self) -> None:
        """Resets the peak; on a CPU the process first returns its free memory to the system, so that reuse counts."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self._of_process():
            _return_free_memory()
            RESET.write_text(RESET_PEAK)

    def now(self) -> float:
        """Bytes in use."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _status("VmRSS") if self._of_process() else math.nan

    def largest(self) -> float:
        """The most bytes in use since `start`."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") if self._of_process() else math.nan

    def _of_process(self) -> bool:
        return self.device.type == "cpu" and STATUS.exists() and RESET.exists()


def extra_memory(function: Callable[[], object], device: torch.device) -> float:
    """Peak bytes of a call beyond what is in use; a first call fills caches."""
    function()
    memory = PeakMemory(device)
    memory.start()
    before = memory.now()
    function()
    synchronize(device)
    return memory.largest() - before


def _status(name: str) -> float:
    """An entry of this process's status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024.0 * int(line.split()[1])


def _return_free_memory() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Counts floating-point operations of matrix products and convolutions, a product and its sum being two.

    torch's counter does not know the fused attention of CPUs, so attention runs as separate products meanwhile.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most operations a second in large matrix products: the best of many, to exclude other load."""
    side = MATMUL_SIDES[device.type]
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    best, until = float("inf"), time.perf_counter() + MATMUL_SECONDS
    while time.perf_counter() < until or best == float("inf"):
        synchronize(device)
        since = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronize(device)
        best = min(best, time.perf_counter() - since)
    return 2 * side**3 / best


def machine(device: torch.device) -> str:
    """One line about the machine on which something was measured."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, " + ("MPS" if device.type == "mps" else f"{torch.get_num_threads()} threads")
    return f"{name}, torch {torch.__version__}, {platform.system()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
