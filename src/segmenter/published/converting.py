"""Writes any model that can be loaded in another layout: our own, the original Segmenter's, OpenMMLab's, ..."""

from pathlib import Path

from segmenter.data.apart import refuse_data
from segmenter.errors import UserError
from segmenter.published import known_layouts, own
from segmenter.published.loading import load_with_report


def convert(source: str | Path, folder: Path, layout: str = own.NAME) -> list[str]:
    """Loads a model and writes it into a new folder; returns a report as lines of text.

    Raises:
        UserError: there is no such layout, the model cannot be loaded, the layout cannot hold it, or the folder is not
            empty.
    """
    known_layouts.refuse_unwritten(layout)
    refuse_data([folder])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; choose another --out")
    model, report = load_with_report(source)
    decoder = model.recipe.decoder.name
    fitting = known_layouts.layouts_for(decoder)
    if layout not in fitting:
        raise UserError(
            f"{source} has the decoder {decoder}, which the layout {layout} does not have; choose --layout "
            f"{' or '.join(fitting)}"
        )
    differences = fitting[layout].write(model, folder)
    lines = [f"read {source}", *report.lines()]
    lines += [f"other code that reads the layout {layout} differs: {text}" for text in differences]
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    return [*lines, f"wrote {folder} ({files}) in the layout {layout}"]
