"""Divides the cost of calling a model among its stages: seconds, memory, operations.

The code that predicts is measured itself, not a copy of it: hooks on the network mark the end of each stage. Every
workload runs once to warm up, once for the memory, once for the operations, and then repeatedly for the time.
"""

import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from segmenter.cost.measuring import PeakMemory, Spread, counted_flops, synchronize
from segmenter.model.segmenter import Segmenter

LEAST, MOST = 3, 50  # runs of a workload for the time


class Stages:
    """Divides the cost of a call among its stages.

    `begin` is called where a stage begins, and `end` with its result where the next one does; `merge` combines the
    costs of a stage that is entered more than once.
    """

    def __init__(
        self,
        device: torch.device,
        begin: Callable[[], Any] = time.perf_counter,
        end: Callable[[Any], float] = lambda since: time.perf_counter() - since,
        merge: Callable[[float, float], float] = operator.add,
    ):
        self.device, self._begin, self._end, self._merge = device, begin, end, merge
        self.costs: dict[str, float] = {}
        self._name: str | None = None

    def enter(self, name: str | None) -> None:
        """What follows belongs to this stage, or to no stage."""
        synchronize(self.device)
        if self._name is not None:
            cost = self._end(self._state)
            self.costs[self._name] = self._merge(self.costs[self._name], cost) if self._name in self.costs else cost
        self._name = name
        self._state = self._begin()


@contextmanager
def mark_stages(model: Segmenter, stages: Stages, then: str) -> Iterator[None]:
    """Hooks that make the network enter the stages `encoder`, `decoder` and, after it, `then`."""
    encoder, last = model.encoder, model.encoder.vit.blocks[-1]

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stages.enter(name)

    handles = [
        model.register_forward_pre_hook(enter("encoder")),
        last.register_forward_hook(enter("decoder")),
        encoder.norm.register_forward_pre_hook(enter("encoder")),
        encoder.norm.register_forward_hook(enter("decoder")),
        model.register_forward_hook(enter(then)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Workload:
    """Something to do with a model; `run` does it once and enters the stages."""

    about: str
    images: int
    run: Callable[[Stages], None]
    dtype: torch.dtype = torch.float32
    """The precision in which the network multiplies."""


@dataclass
class Stage:
    """The cost of a stage, or of all of them."""

    name: str
    seconds: Spread
    memory: float
    """Bytes above what the process held before, at most."""
    flops: float


@dataclass
class Measured:
    """The cost of a workload, stage by stage and as a whole."""

    name: str
    workload: Workload
    stages: list[Stage]
    all: Stage

    @property
    def images_per_second(self) -> float:
        """Of the median."""
        return self.workload.images / self.all.seconds.median


def measure(name: str, workload: Workload, device: torch.device, seconds: float) -> Measured:
    """Runs a workload repeatedly, for so many seconds or at least LEAST times."""
    workload.run(Stages(device))
    memory, flops, times = _memory(workload, device), _flops(workload, device), []
    until = time.perf_counter() + seconds
    while len(times) < LEAST or (time.perf_counter() < until and len(times) < MOST):
        stages = Stages(device)
        workload.run(stages)
        times.append(stages.costs)
    stages = [Stage(stage, Spread.of([one[stage] for one in times]), memory[stage], flops[stage]) for stage in times[0]]
    whole = Spread.of([sum(one.values()) for one in times])
    return Measured(name, workload, stages, Stage("all", whole, max(memory.values()), sum(flops.values())))


def _memory(workload: Workload, device: torch.device) -> dict[str, float]:
    peak = PeakMemory(device)
    peak.start()
    before = peak.now()
    stages = Stages(device, peak.start, lambda _: max(peak.largest() - before, 0.0), max)  # nan stays
    workload.run(stages)
    return stages.costs


def _flops(workload: Workload, device: torch.device) -> dict[str, float]:
    with counted_flops() as counter:
        stages = Stages(device, counter.get_total_flops, lambda before: counter.get_total_flops() - before)
        workload.run(stages)
    return stages.costs
