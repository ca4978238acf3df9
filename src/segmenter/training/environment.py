"""environment.json of a run folder: with what, where and by which command it was trained, one entry a session.

It names the machine's parts, never the machine, its user or a folder that the command line did not say.
"""

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from segmenter import atomic

FILE = "environment.json"
PACKAGES = {"segmenter": "vit-segmenter", "torch": "torch", "timm": "timm", "accelerate": "accelerate"}
SESSIONS = 100  # that are kept: the first one and the last ones


def describe(device: torch.device, precision: torch.dtype, processes: int) -> dict[str, str | int | float]:
    """Versions, device and processor of now."""
    found: dict[str, str | int | float] = {name: _version(package) for name, package in PACKAGES.items()}
    graphics = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return found | {
        "python": platform.python_version(),
        "system": platform.system() + " " + platform.release(),
        "processor": _processor(),
        "cores": _cores(),
        "device": f"{device.type} ({graphics})" if graphics else device.type,
        "precision": str(precision).removeprefix("torch."),
        "processes": processes,
    }


def record(folder: Path, session: dict[str, str | int | float]) -> None:
    """Adds a session to those of a run.

    Raises:
        UserError: the disk is full, or the folder may no longer be written to.
    """
    before = sessions(folder)
    began = {"began": datetime.now(UTC).isoformat(timespec="seconds")}
    kept = [*before, began | session]
    if len(kept) > SESSIONS:
        kept = [kept[0], *kept[1 - SESSIONS :]]
    atomic.write_text(folder / FILE, json.dumps(kept, indent=1) + "\n")


def sessions(folder: Path) -> list[dict]:
    """The sessions of a run, the first one first; none where they were not recorded or cannot be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # earlier releases wrote none
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "not installed"


def _processor() -> str:
    """Its name, as Linux says it; elsewhere its architecture at least."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
