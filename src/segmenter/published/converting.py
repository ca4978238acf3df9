"""Writes any model that can be loaded in a layout of choice: our own, the original Segmenter's, OpenMMLab's, ..."""

from collections.abc import Callable
from pathlib import Path

from segmenter.data.apart import refuse_data
from segmenter.errors import UserError
from segmenter.model.segmenter import DECODERS, Segmenter
from segmenter.published import huggingface, openmmlab, original, setr_openmmlab
from segmenter.published.loading import load_with_report

# What writes a layout, by the decoders that the layout has: returns in which points its own code does otherwise.
WRITERS: dict[str, dict[str, Callable[[Segmenter, Path], list[str]]]] = {
    "segmenter": {decoder: lambda model, folder: model.save(folder) or [] for decoder in DECODERS},
    "original": {"linear": original.save, "mask_transformer": original.save},
    "openmmlab": {
        **dict.fromkeys(("linear", "mask_transformer"), openmmlab.save),
        **dict.fromkeys(("setr_naive", "setr_pup", "setr_mla"), setr_openmmlab.save),
    },
    "huggingface": dict.fromkeys(("dpt", "dpt_depth"), huggingface.save),
}


def convert(source: str | Path, folder: Path, layout: str = "segmenter") -> list[str]:
    """Loads a model and writes it into a new folder; returns what was done, a line each.

    Raises:
        UserError: the model cannot be loaded, the layout cannot hold it, or the folder holds something already.
    """
    refuse_data([folder])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is no empty folder; choose another --out")
    model, report = load_with_report(source)
    decoder = model.recipe.decoder.name
    fitting = [name for name, writers in WRITERS.items() if decoder in writers]
    if layout not in fitting:
        raise UserError(
            f"the layout {layout} has no decoder {decoder}, which {source} has; choose --layout {' or '.join(fitting)}"
        )
    differences = WRITERS[layout][decoder](model, folder)
    lines = [f"read {source}", *report.lines()]
    lines += [f"what reads the layout {layout} elsewhere does otherwise: {text}" for text in differences]
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    return [*lines, f"wrote {folder} ({files}) in the layout {layout}"]
