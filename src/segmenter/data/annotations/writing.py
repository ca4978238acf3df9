"""Writes a data set as {train,val,test}/images and masks with a classes.yaml, whatever it was read from.

Images are copied byte for byte; masks are PNG of class ids, with the classes' colours as palette where they fit.
"""

import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from segmenter import atomic
from segmenter.data.classes import Classes
from segmenter.data.samples import DataSet, FileSample
from segmenter.errors import UserError
from segmenter.progress import Progress

PALETTE = 255  # classes that fit into a palette beside the ignore value


def write_data(data: DataSet, out: Path) -> dict[str, int]:
    """Writes every image and its mask; returns how many of each split. Images without mask are written in test alone.

    Raises:
        UserError: `out` holds something, a file cannot be read or written, or the samples are generated.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; choose a new folder for --out")
    written = {}
    total = sum(map(len, data.splits.values()))
    with Progress(total=total, desc="write", unit="image", leave=False) as bar:
        for split, samples in data.splits.items():
            written[split] = 0
            for sample in samples:
                if not isinstance(sample, FileSample):
                    raise UserError("generated scenes are not written; `segmenter demo` draws some")
                if sample.labelled or split == "test":
                    _write(sample, data.classes, out / split)
                    written[split] += 1
                bar.update()
    atomic.write_text(out / "classes.yaml", classes_yaml(data.classes))
    return written


def classes_yaml(classes: Classes) -> str:
    """A classes.yaml of names and colours, for masks of class ids."""
    entries = [{"name": name, "color": list(color)} for name, color in zip(classes.names, classes.colors, strict=True)]
    return yaml.safe_dump({"classes": entries}, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _write(sample: FileSample, classes: Classes, folder: Path) -> None:
    image = folder / "images" / f"{sample.name}{sample.image_path.suffix}"
    if sample.labelled:
        mask = Image.fromarray(np.ascontiguousarray(sample.target()))
        if len(classes) <= PALETTE:
            mask.putpalette(classes.palette())
        atomic.write(folder / "masks" / f"{sample.name}.png", lambda path: mask.save(path, "PNG"))
    atomic.write(image, lambda path: shutil.copyfile(sample.image_path, path))
