"""The results of a benchmark, as a table for people and as a dictionary for programs."""

import math
from dataclasses import dataclass

import torch

from segmenter.cost.measuring import Spread, machine, short
from segmenter.cost.stages import Measured, Stage
from segmenter.model.devices import PRECISIONS
from segmenter.model.segmenter import Segmenter

MEANING = """\
MiB: the most in use during the stage, above what was in use before the first one; on a CPU the process's resident
memory, on CUDA what torch gave out there; MPS does not tell. GFLOP: matrix products and convolutions, attention
included; a product and its sum are two operations. Of peak: GFLOP a second against the fastest matrix product here."""

COLUMNS = ("", "ms, median (quarters)", "MiB", "GFLOP", "of peak")


@dataclass
class CostReport:
    """All measurements of a model."""

    model: Segmenter
    device: torch.device
    peaks: dict[torch.dtype, float]
    """Operations a second of this machine's matrix products, in each precision that was used."""
    measured: list[Measured]

    def table(self) -> str:
        """The results for people."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        recipe = self.model.recipe
        about = f"{recipe.encoder.name} + {recipe.decoder.name}, {len(self.model.classes)} classes"
        peaks = ", ".join(f"{short(peak / 1e9)} GFLOP/s in {_name(dtype)}" for dtype, peak in self.peaks.items())
        lines = [f"{about}, {parameters / 1e6:.1f} M parameters", machine(self.device), f"matrix products: {peaks}"]
        for one in self.measured:
            rate = f"{one.images_per_second:.3g} images/s"
            lines += ["", f"{one.name}: {one.workload.about}, {_name(one.workload.dtype)}, {rate}"]
            lines += _aligned([COLUMNS, *(self._row(one, stage) for stage in [*one.stages, one.all])])
        return "\n".join([*lines, "", MEANING])

    def _row(self, one: Measured, stage: Stage) -> tuple[str, ...]:
        time = Spread(*(1e3 * value for value in stage.seconds))
        memory = "" if math.isnan(stage.memory) else f"{stage.memory / 2**20:.1f}"
        if not stage.flops:
            return stage.name, str(time), memory, "", ""
        return stage.name, str(time), memory, short(stage.flops / 1e9), f"{100 * self._share(one, stage):.0f} %"

    def _share(self, one: Measured, stage: Stage) -> float:
        return stage.flops / stage.seconds.median / self.peaks[one.workload.dtype]

    def to_dict(self) -> dict:
        """The results for programs: seconds, bytes and operations."""
        return {
            "machine": machine(self.device),
            "encoder": self.model.recipe.encoder.name,
            "decoder": self.model.recipe.decoder.name,
            "classes": len(self.model.classes),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "matmul_flops_per_second": {_name(dtype): peak for dtype, peak in self.peaks.items()},
            "ways": [
                {"name": one.name, "about": one.workload.about, "precision": _name(one.workload.dtype)}
                | {"images": one.workload.images, "images_per_second": one.images_per_second}
                | {"stages": [self._stage(one, stage) for stage in [*one.stages, one.all]]}
                for one in self.measured
            ],
        }

    def _stage(self, one: Measured, stage: Stage) -> dict:
        memory = None if math.isnan(stage.memory) else stage.memory  # JSON has no nan
        about = {"name": stage.name, "seconds": stage.seconds._asdict(), "memory": memory}
        return about | {"flops": stage.flops, "share_of_peak": self._share(one, stage)}


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, each column as wide as its longest entry; the first column is left-aligned, the others right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        f"  {name:{first}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        for name, *cells in rows
    ]


def _name(dtype: torch.dtype) -> str:
    return next(name for name, known in PRECISIONS.items() if known == dtype)
