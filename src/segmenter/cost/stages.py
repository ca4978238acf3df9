"""Divides what a call of a model costs among its stages: seconds, memory, operations.

What is measured is the code that predicts, not a copy of it: hooks on the network tell where a stage ends. Every way
is gone once to warm up, once for the memory, once for the operations, and then for the time until it is used up.
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

LEAST, MOST = 3, 50  # times that a way is gone for the time


class Stages:
    """Divides what a call costs among its stages.

    `begin` is called where one begins, `end` with its answer where the next one does; `merge` joins what a stage that
    is entered again has cost before.
    """

    def __init__(
        self,
        device: torch.device,
        begin: Callable[[], Any] = time.perf_counter,
        end: Callable[[Any], float] = lambda since: time.perf_counter() - since,
        merge: Callable[[float, float], float] = operator.add,
    ):
        self.device, self._begin, self._end, self._merge = device, begin, end, merge
        self.found: dict[str, float] = {}
        self._name: str | None = None

    def enter(self, name: str | None) -> None:
        """What follows belongs to this stage, or to none."""
        synchronize(self.device)
        if self._name is not None:
            cost = self._end(self._state)
            self.found[self._name] = self._merge(self.found[self._name], cost) if self._name in self.found else cost
        self._name = name
        self._state = self._begin()


@contextmanager
def noted(model: Segmenter, stages: Stages, then: str) -> Iterator[None]:
    """Has the network itself enter `encoder`, `decoder` and, after it, the stage `then`."""
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
class Way:
    """Something to do with a model, gone through by `go`, which enters the stages."""

    about: str
    images: int
    go: Callable[[Stages], None]
    dtype: torch.dtype = torch.float32
    """In which the network multiplies."""


@dataclass
class Stage:
    """What a stage, or all of them, cost."""

    name: str
    seconds: Spread
    memory: float
    """Bytes above what the process held before, at most."""
    flops: float


@dataclass
class Measured:
    """A way, stage by stage, and as a whole."""

    name: str
    way: Way
    stages: list[Stage]
    all: Stage

    @property
    def images_per_second(self) -> float:
        """Of the median."""
        return self.way.images / self.all.seconds.median


def measure(name: str, way: Way, device: torch.device, seconds: float) -> Measured:
    """Goes a way again and again, for so many seconds or LEAST times."""
    way.go(Stages(device))
    memory, flops, times = _memory(way, device), _flops(way, device), []
    until = time.perf_counter() + seconds
    while len(times) < LEAST or (time.perf_counter() < until and len(times) < MOST):
        stages = Stages(device)
        way.go(stages)
        times.append(stages.found)
    found = [Stage(stage, Spread.of([one[stage] for one in times]), memory[stage], flops[stage]) for stage in times[0]]
    whole = Spread.of([sum(one.values()) for one in times])
    return Measured(name, way, found, Stage("all", whole, max(memory.values()), sum(flops.values())))


def _memory(way: Way, device: torch.device) -> dict[str, float]:
    peak = PeakMemory(device)
    peak.start()
    before = peak.now()
    stages = Stages(device, peak.start, lambda _: max(peak.largest() - before, 0.0), max)  # nan stays
    way.go(stages)
    return stages.found


def _flops(way: Way, device: torch.device) -> dict[str, float]:
    with counted_flops() as counter:
        stages = Stages(device, counter.get_total_flops, lambda before: counter.get_total_flops() - before)
        way.go(stages)
    return stages.found
