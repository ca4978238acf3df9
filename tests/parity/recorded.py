"""Recorded behaviour of the published implementations: cases found by what lies in a folder, and read.

The folder is the one that SEGMENTER_GOLDENS names, or tests/goldens. A case is a folder; what it is of is told by
the files and the metadata in it, so that a case of one's own is picked up without a change here.
"""

import json
import os
import re
import tempfile
from collections.abc import Collection, Container, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import segmenter
from segmenter.checkpoints.keys import LoadReport
from segmenter.config import Inference
from segmenter.model.segmenter import Segmenter

ROOT = Path(os.environ.get("SEGMENTER_GOLDENS") or Path(__file__).parents[1] / "goldens").resolve()
OPENMMLAB_HEADS = ("SegmenterMaskTransformerHead", "FCNHead")
SETR_HEADS = ("SETRUPHead", "SETRMLAHead")
DPT_LAYOUTS = ("huggingface", "isl-org", "smp")
TABLE = re.compile(r"(warmup|step_size)(\d+)_of_(\d+)_base([\d.]+?)(?:_min([\d.e-]+))?")

measured: list[tuple[str, str, float, float]] = []
"""Case, quantity, largest absolute error, and what it may be."""


def note(case: Path | str, quantity: str, error: float, limit: float) -> None:
    """Remembers an error for the table at the end, and asserts that it is within its limit."""
    measured.append((name(case) if isinstance(case, Path) else case, quantity, error, limit))
    assert error <= limit, f"{case}: {quantity} is off by {error:.3g}, more than {limit:.0e}"


def largest(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    assert found.shape == expected.shape
    return (found.double() - expected.double()).abs().max().item()


def name(folder: Path) -> str:
    """A case's path below the folder of cases."""
    return str(folder.relative_to(ROOT))


def facts_of_model(folder: Path) -> dict:
    """The model's part of an OpenMMLab configuration."""
    return about(folder)["model"]


def unstated(model: dict, state: Container[str]) -> set[str]:
    """Beginnings of what has to be assumed of a file with this configuration, which is all that lies beside it."""
    found = {"images with a short side"}
    backbone = model["backbone"]
    if model.get("test_cfg", {}).get("mode") != "whole" and "stride" not in model.get("test_cfg", {}):
        found.add("windows of")
    if "data_preprocessor" not in model:
        found.add("the normalisation")
    if "img_size" not in backbone:
        found.add("a square crop")
    if "num_heads" not in backbone:
        found.add("attention heads in the backbone")
    if "backbone.patch_embed.projection.bias" not in state and backbone.get("patch_bias") is not False:
        found.add("no bias of the patch embedding")
    return found


def assert_assumed(report: LoadReport, wanted: Collection[str]) -> None:
    """Exactly these things were assumed, besides names of classes, each named by words that it contains."""
    assumed = [text for text in report.assumed if "without names" not in text]
    assert len(assumed) == len(wanted), (assumed, wanted)
    assert all(any(words in text for text in assumed) for words in wanted), (assumed, wanted)


def about(folder: Path) -> dict:
    """A case's metadata, case.json; empty where it has none."""
    path = folder / "case.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def kinds(folder: Path) -> set[str]:
    """What a folder holds recorded cases of."""
    files, facts = {path.name for path in folder.iterdir()}, about(folder)
    head = facts.get("model", {}).get("decode_head", {}) if isinstance(facts.get("model"), dict) else {}
    tests = {
        "forward": "net_kwargs" in facts and {"weights.safetensors", "forward.safetensors"} <= files,
        "sliding": "net_kwargs" in facts and "inference" in facts and "sliding.safetensors" in files,
        "multiscale": "net_kwargs" in facts and "multiscale" in facts and "multiscale.safetensors" in files,
        "pipeline": "net_kwargs" in facts and "samples" in facts and "data.safetensors" in files,
        "checkpoint": {"checkpoint.pth", "variant.yml", "forward.safetensors"} <= files,
        "steps": {"train.json", "init.safetensors", "batches.safetensors"} <= files,
        "backbones": "expected.safetensors" in files,
        "openmmlab": facts.get("layout") == "mmseg" and head.get("type") in OPENMMLAB_HEADS,
        "setr": facts.get("layout") == "fudan" or head.get("type") in SETR_HEADS,
        "dpt": facts.get("layout") in DPT_LAYOUTS or head.get("type") == "DPTHead",
    }
    return {kind for kind, fits in tests.items() if fits}


@cache
def _folders() -> dict[Path, set[str]]:
    folders = [path for path in [ROOT, *sorted(ROOT.rglob("*"))] if path.is_dir()]
    return {folder: kinds(folder) for folder in folders if any(path.is_file() for path in folder.iterdir())}


def cases(kind: str) -> list[Path]:
    """Folders of a kind of case."""
    return [folder for folder, found in _folders().items() if kind in found]


def unknown() -> list[Path]:
    """Folders with recorded tensors that no test here knows how to compare; models of our own are for other tests."""
    found = (f for f, kinds_of in _folders().items() if not kinds_of and any(f.glob("*.safetensors")))
    return [folder for folder in found if not _is_our_model(folder)]


def _is_our_model(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "format" in json.loads(path.read_text(encoding="utf-8"))


def learning_rate_tables() -> list[tuple[Path, str]]:
    """Files and the names of the tables in them."""
    found = []
    for path in sorted(ROOT.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for key, table in content.items() if isinstance(content, dict) else []:
            if (isinstance(table, dict) and "lr_at_update" in table) or (isinstance(table, list) and TABLE.match(key)):
                found.append((path, key))
    return found


@cache
def tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors; what is stored in half precision was used as float32."""
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in load_file(path).items()}


def names_in(path: Path) -> list[str]:
    """Names of a file's tensors."""
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def metadata(path: Path) -> dict[str, str]:
    """A safetensors file's metadata."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def tags(folder: Path, file: str = "forward.safetensors") -> Iterator[str]:
    """Inputs that a case has outputs of."""
    return (key.removesuffix(".input") for key in names_in(folder / file) if key.endswith(".input"))


def write_original(folder: Path, weights: dict[str, Tensor], net: dict, **sections: dict) -> None:
    """Writes weights and arguments as the original's training does: checkpoint.pth and variant.yml."""
    torch.save({"model": weights, "n_cls": net["n_cls"]}, folder / "checkpoint.pth")
    content = sections | {"net_kwargs": net | {"image_size": tuple(net["image_size"])}}
    (folder / "variant.yml").write_text(yaml.dump(content), encoding="utf-8")


def original(folder: Path, weights: str = "weights.safetensors", net: dict | None = None) -> Segmenter:
    """The model of a case, through the files that a published model has."""
    with tempfile.TemporaryDirectory() as place:
        write_original(Path(place), load_file(folder / weights), net or about(folder)["net_kwargs"])
        return segmenter.load(place)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Height and width; one number stands for both."""
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(side: int | Sequence[int], stride: int | Sequence[int], batch: int = 4, enlarge: bool = True) -> Inference:
    """Windows as the arguments of a published command give them."""
    return Inference(pair(side), pair(stride), batch, enlarge)


def with_windows(model: Segmenter, *settings, **more) -> Segmenter:
    """The model with other windows, taking images that are normalised already."""
    model.recipe.inference = windows(*settings, **more)
    model.normalize = lambda images: images
    return model
