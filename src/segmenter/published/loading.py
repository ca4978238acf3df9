"""Reads a model folder (`model.folder` wrote it; a run folder of training is one too), or a published checkpoint.

Published layouts are recognised by the keys of their weights; published models may be named. Nothing in a file is
executed.
"""

import logging
from pathlib import Path

from segmenter.checkpoints import encoders, keys
from segmenter.checkpoints.keys import Report, few
from segmenter.checkpoints.reading import SUFFIXES, read
from segmenter.documents import read_json
from segmenter.errors import UserError
from segmenter.model import folder as folders
from segmenter.model.devices import device_of, precision_of
from segmenter.model.segmenter import Segmenter
from segmenter.published import (
    cache,
    catalogue,
    dpt_openmmlab,
    dpt_original,
    dpt_smp,
    huggingface,
    openmmlab,
    original,
    setr_openmmlab,
    setr_original,
)

LAYOUTS = (
    original,
    openmmlab,
    setr_original,
    setr_openmmlab,
    dpt_original,
    dpt_openmmlab,
    huggingface,
    dpt_smp,
)
OURS = (folders.WEIGHTS, folders.ABOUT)

logger = logging.getLogger(__name__)


def load(path: str | Path, device: str = "cpu", precision: str = "fp32") -> Segmenter:
    """Reads a model in evaluation mode: a folder that `save` wrote, a published checkpoint or its folder, or a name.

    A name is one of those that `segmenter models` lists; its files are downloaded once. What a published file does not
    say and was assumed is logged as a warning, what it holds without need as info.

    Args:
        path: of the files, or the name.
        device: where predictions run: `auto` (the best there is), `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: in which predictions multiply: `fp32`, `bf16`, `fp16`, or `auto` (bf16 where the device has it).

    Raises:
        UserError: a file is missing or unreadable, does not fit the other, is of no known layout, or cannot be had; or
            there is no such device or precision.
    """
    where = device_of(device)  # before the files, which may take long
    multiplying = precision_of(precision, where)
    model, report = load_with_report(path)
    for text in report.lines():
        logger.log(logging.WARNING if text.startswith("assumed") else logging.INFO, "%s: %s", path, text)
    model.precision = multiplying
    return model.to(where)


def load_with_report(path: str | Path) -> tuple[Segmenter, Report]:
    """The same, and what was made of the file.

    Raises:
        UserError: as `load`.
    """
    path = _find(path)
    if path.is_file() and path.name == OURS[0] and (path.parent / OURS[1]).is_file():
        path = path.parent
    if file := _published_file(path):
        return load_published(file)
    return _load_folder(path)


def _find(path: str | Path) -> Path:
    """The path itself, or the folder of a published model's files where there is no such path and it is a name."""
    if Path(path).exists():
        return Path(path)
    if published := catalogue.find(str(path)):
        return cache.fetch(published)
    raise UserError(
        f"there is no model folder {path}; give a folder that `segmenter train` wrote, a checkpoint file, or a name "
        f"that `segmenter models` lists{catalogue.suggestion(str(path))}"
    )


def load_published(path: str | Path) -> tuple[Segmenter, Report]:
    """The network of a published checkpoint, and what was used, left out and assumed.

    Raises:
        UserError: as `load`.
    """
    checkpoint = read(path)
    found = checkpoint.state.keys()
    for layout in LAYOUTS:
        if layout.recognise(found):
            return layout.model(checkpoint)
    if encoders.is_google(found) or encoders.is_timm(found):
        raise UserError(
            f"{path} holds an encoder without a decoder, which cannot segment; train one from it: "
            f"--encoder.pretrained {path}, with the encoder.name it belongs to"
        )
    if any(name.startswith("encoder.vit.") for name in found):
        raise UserError(f"{path} holds the weights of a model folder; {OURS[1]} must lie beside it as {OURS[0]}")
    known = "; ".join(layout.NAME for layout in LAYOUTS)
    raise UserError(f"{path} is of no layout that is known here ({known}): it has tensors such as {few(found)}")


def _published_file(path: Path) -> Path | None:
    """The checkpoint that is meant, unless it is a folder of our own or none at all."""
    if path.is_file():
        return path
    if path.is_dir() and _is_of_another_library(path / OURS[1]):
        return next((path / name for name in (OURS[0], "pytorch_model.bin") if (path / name).is_file()), None)
    if not path.is_dir() or any((path / name).exists() for name in OURS):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if (path / original.CHECKPOINT) in files:
        return path / original.CHECKPOINT
    return files[0] if len(files) == 1 else None


def _is_of_another_library(about_file: Path) -> bool:
    """Whether a config.json says what kind of model it is of, as others' do, and no format, as ours does."""
    try:
        about = read_json(about_file)
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and "format" not in about and bool({"model_type", "encoder_name"} & about.keys())


def _load_folder(folder: Path) -> tuple[Segmenter, Report]:
    about = folders.read(folder)
    try:
        with keys.on_meta():  # before it is known that the weights fit, no memory is taken for what they claim
            model = Segmenter.described(about)
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, LookupError) as error:
        text = f"{folder / folders.ABOUT} describes a network that cannot be built ({error})"
        raise UserError(f"{text}; {folders.RESTORE}") from error
    unused = folders.read_weights(model, folder / folders.WEIGHTS)
    return model.eval(), Report("our own model folder", used=len(model.state_dict()), unused=unused)
