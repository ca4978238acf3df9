"""Reads a model folder (`model.folder` wrote it; a run folder of training is one too), or a published checkpoint.

Published layouts are recognised by the keys of their weights; published models may be named. Nothing in a file is
executed.
"""

import logging
import os
from pathlib import Path

from segmenter.checkpoints import encoders
from segmenter.checkpoints.keys import LoadReport, few
from segmenter.checkpoints.reading import SUFFIXES, read
from segmenter.documents import read_json
from segmenter.errors import UserError
from segmenter.model.devices import device_of, precision_of
from segmenter.model.segmenter import Segmenter
from segmenter.published import cache, catalogue, known_layouts, original, own

WEIGHTS, ABOUT = own.FILES

logger = logging.getLogger(__name__)


def load(path: str | Path, device: str = "cpu", precision: str = "fp32") -> Segmenter:
    """Reads a model in evaluation mode: a folder that `save` wrote, a published checkpoint or its folder, or a name.

    A name is one of those that `segmenter models` lists; its files are downloaded once. What a published file does not
    state and had to be assumed is logged as a warning, unused tensors as info.

    Args:
        path: of the files, or the name.
        device: where predictions run: `auto` (the best there is), `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: in which predictions multiply: `fp32`, `bf16`, `fp16`, or `auto` (bf16 where the device has it).

    Raises:
        UserError: a file is missing or unreadable, does not fit the other, has no known layout, or could not be
            downloaded; or there is no such device or precision.
    """
    where = device_of(device)  # before reading the files, which may take long
    multiplying = precision_of(precision, where)
    model, report = load_with_report(path)
    for text in report.lines():
        logger.log(logging.WARNING if text.startswith("assumed") else logging.INFO, "%s: %s", path, text)
    model.precision = multiplying
    return model.to(where)


def load_with_report(path: str | Path) -> tuple[Segmenter, LoadReport]:
    """The model on the CPU, and a report of what was used, left out and assumed.

    Raises:
        UserError: as `load`.
    """
    path = _find(path)
    if path.is_file() and path.name == WEIGHTS and (path.parent / ABOUT).is_file():
        path = path.parent
    if file := _published_file(path):
        return load_published(file)
    return own.read_folder(path)


def _find(path: str | Path) -> Path:
    """The path itself if it exists, else the folder with the files of the published model of that name."""
    if os.path.exists(path):  # False too where no file can have the name
        return Path(path)
    if published := catalogue.find(str(path)):
        return cache.fetch(published)
    raise UserError(
        f"there is no model folder {path}; give a folder that `segmenter train` wrote, a checkpoint file, or a name "
        f"that `segmenter models` lists{catalogue.suggestion(str(path))}"
    )


def load_published(path: str | Path) -> tuple[Segmenter, LoadReport]:
    """The network of a published checkpoint, and what was used, left out and assumed.

    Raises:
        UserError: as `load`.
    """
    checkpoint = read(path)
    found = checkpoint.state.keys()
    if layout := known_layouts.recognized(found):
        return layout.read(checkpoint)
    if encoders.is_google(found) or encoders.is_timm(found):
        raise UserError(
            f"{path} holds an encoder without a decoder, which cannot segment; train one from it: "
            f"--encoder.pretrained {path}, with the encoder.name it belongs to"
        )
    known = "; ".join(layout.TITLE for layout in known_layouts.LAYOUTS)
    raise UserError(f"{path} has none of the known layouts ({known}): it has tensors such as {few(found)}")


def _published_file(path: Path) -> Path | None:
    """The published checkpoint at a path; None for a folder of our own, or if there is none."""
    if path.is_file():
        return path
    if path.is_dir() and _is_of_another_library(path / ABOUT):
        return next((path / name for name in (WEIGHTS, "pytorch_model.bin") if (path / name).is_file()), None)
    if not path.is_dir() or any((path / name).exists() for name in own.FILES):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if (path / original.CHECKPOINT) in files:
        return path / original.CHECKPOINT
    return files[0] if len(files) == 1 else None


def _is_of_another_library(about_file: Path) -> bool:
    """Whether a config.json names a kind of model, as other libraries' do, and no format, as ours does."""
    try:
        about = read_json(about_file)
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and "format" not in about and bool({"model_type", "encoder_name"} & about.keys())
