"""Pictures of a model as a whole, with their numbers as JSON: how far its heads look, which classes it holds alike."""

import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from segmenter.errors import cleaned
from segmenter.inspection.area import AttendedArea, attended_area
from segmenter.inspection.class_embeddings import ClassEmbeddings, class_embeddings
from segmenter.inspection.receptive_fields import BLOCKS, receptive_fields
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.views.area_plot import area_figure
from segmenter.views.class_map import class_figure
from segmenter.views.pictures import find_images
from segmenter.views.results import Results

DOTS = 150  # an inch
PICTURES = ("png", "svg")
KINDS = (*PICTURES, "json")
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "segmenter"}  # letters, and the same names in every process
Content = dict[str, object]


def area_files(
    model: Segmenter, name: str, inputs: Sequence[str], out: Path, native: bool = False, overwrite: bool = False
) -> Content:
    """Writes area.png, area.svg and area.json on a set of images to `out`; returns what the JSON holds.

    Args:
        model: in any mode.
        name: of the model, for the picture.
        inputs: files, folders or globs.
        out: folder for the results.
        native: keep the photos' scale.
        overwrite: replace what an earlier `explain` wrote there.

    Raises:
        UserError: as `attended_area`; or `out` holds data, files of others in the place of results, or earlier results
            unless they are to be overwritten.
    """
    files = [file for file, _ in find_images(inputs)]
    results = _claimed(out, "area", overwrite)
    found = attended_area(model, Progress(files, desc="area", unit="image"), native)
    about = _about(model, name, files)
    return _written(results, "area", lambda: area_figure(found, _title(about)), about | area_content(found))


def class_files(
    model: Segmenter, name: str, inputs: Sequence[str], out: Path, native: bool = False, overwrite: bool = False
) -> Content:
    """Writes classes.png, classes.svg and classes.json to `out`; returns what the JSON holds.

    The arguments are those of `area_files`, but there may be no inputs.

    Raises:
        UserError: as `class_embeddings`; or `out` holds what `area_files` refuses.
    """
    files = [file for file, _ in find_images(inputs)] if inputs else []
    results = _claimed(out, "classes", overwrite)
    found = class_embeddings(model, Progress(files, desc="classes", unit="image") if files else (), native)
    about = _about(model, name, files)
    return _written(results, "classes", lambda: class_figure(found, _title(about)), about | class_content(found))


def area_content(found: AttendedArea) -> Content:
    """The attended area in plain values; a head is the mean over all images, its spread their standard deviation."""
    return {
        "unit": "pixels of the network's input",
        "windows": [{"height": h, "width": w, "count": count} for (h, w), count in found.sizes.items()],
        "patch_size": found.patch_size,
        "prefix_tokens": found.prefix,
        "uniform": found.uniform(),
        "blocks": [
            {
                "part": block.part,
                "block": block.block,
                "heads": _numbers(block.distances.mean(0)),
                "spread": _numbers(block.distances.std(0)),
                "elsewhere": _numbers(block.elsewhere.mean(0)),
            }
            for block in found.blocks
        ],
        "receptive_fields": {
            network: [
                {"stage": field.stage, "side": field.side, "mean_distance": found.uniform(field.side)}
                for field in receptive_fields(network)
            ]
            for network in BLOCKS
        },
    }


def class_content(found: Sequence[ClassEmbeddings]) -> Content:
    """Class embeddings in plain values, without the vectors themselves."""
    return {
        "embeddings": [
            {
                "title": one.title,
                "variance_of_axes": _numbers(np.array(one.shares)),
                "classes": [
                    {
                        "name": name,
                        "at": _numbers(point),
                        "nearest": [{"name": one.names[other], "cosine": round(c, 5)} for other, c in nearest],
                    }
                    | ({} if one.steadiness is None else {"steadiness": round(float(one.steadiness[i]), 5)})
                    for i, (name, point, nearest) in enumerate(zip(one.names, one.points, one.nearest(), strict=True))
                ],
            }
            for one in found
        ]
    }


def area_table(content: Content) -> str:
    """The attended area of the blocks, for a terminal."""
    lines = [f"{'block':>10}  {'nearest':>7}  {'mean':>5}  {'farthest':>8}  pixels; elsewhere"]
    for block in content["blocks"]:
        heads, name = block["heads"], f"{block['part']} {block['block']}"
        elsewhere = 100 * float(np.mean(block["elsewhere"]))
        lines.append(f"{name:>10}  {min(heads):7.0f}  {np.mean(heads):5.0f}  {max(heads):8.0f}  {elsewhere:.0f} %")
    lines.append(f"{'':10}  a head that looks at all patches alike: {content['uniform']:.0f}")
    return "\n".join(lines)


def class_table(content: Content) -> str:
    """The nearest classes of every class, for a terminal."""
    parts = []
    for one in content["embeddings"]:
        shares = " and ".join(f"{100 * share:.0f} %" for share in one["variance_of_axes"])
        parts.append(f"{one['title']} (axes: {shares} of the variance)")
        for entry in one["classes"]:
            nearest = ", ".join(f"{cleaned(other['name'], 40)} {other['cosine']:.2f}" for other in entry["nearest"])
            parts.append(f"  {cleaned(entry['name'], 40)}: {nearest}")
    return "\n".join(parts)


def _claimed(out: Path, name: str, overwrite: bool) -> Results:
    results = Results(out, "explain")
    results.claim([out / f"{name}.{kind}" for kind in KINDS], overwrite)
    return results


def _about(model: Segmenter, name: str, files: Sequence[Path]) -> Content:
    settings = model.recipe
    parts = {"encoder": settings.encoder.name, "decoder": settings.decoder.name}
    return {"model": name, **parts, "images": list(map(str, files))}


def _title(about: Content) -> str:
    return cleaned(f"{about['model']} ({about['encoder']}, {about['decoder']})")


def _written(results: Results, name: str, draw: Callable[[], Figure], content: Content) -> Content:
    """The content, once it and the picture are written, with the names of the files."""
    paths = {kind: results.folder / f"{name}.{kind}" for kind in KINDS}
    content = content | {"files": list(map(str, paths.values()))}
    with style.context(["default", STYLE]), warnings.catch_warnings():
        # The PNG has boxes in place of letters that its font has not; the SVG leaves letters to who shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = draw()
        for kind in PICTURES:
            options = {"format": kind, "dpi": DOTS, "metadata": {"Date": None} if kind == "svg" else {}}
            results.write(paths[kind], partial(figure.savefig, **options))
    text = json.dumps(content, indent=1)
    results.write(paths["json"], lambda beside: beside.write_text(text, encoding="utf-8"))
    return content


def _numbers(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
