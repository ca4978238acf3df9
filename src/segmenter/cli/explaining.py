"""The verb that looks inside a network: explain."""

import re
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from segmenter.cli.arguments import Device, Model, as_json
from segmenter.errors import WrongUse, cleaned, shown
from segmenter.streams import tell


def explain(
    model: Model,
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...")],
    out: Path,
    at: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="X,Y")] = (),
    class_names: Annotated[UseAppendAction[tuple[str, ...]], arg(name="class", metavar="NAME")] = (),
    layers: Annotated[str, arg(metavar="L,L")] = "",
    native: bool = False,
    published: bool = False,
    area: bool = False,
    classes: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    json: bool = False,
) -> None:
    """Show what the network looks at: attention of every head, of the class embeddings, rollout and relevance.

    Args:
        model: Folder of a model or a run, published checkpoint, or a name that `models` lists.
        images: Files, folders or globs; with --classes there may be none.
        out: Folder for NAME/overview.jpg and the sheets of each photo, or for the pictures of the model.
        at: A point to look at, x from the left and y from the top in pixels of the photo, as in 120,80; may be
            repeated. None: one in the widest region of each of four classes.
        class_names: A class to look at: where its embedding attends, and which patches decide its pixels; may be
            repeated.
        layers: Of the encoder, counted from 0, as in 1,4,8,11; none: those that the paper shows.
        native: Keep the photos' scale instead of bringing them to the training's; large ones are seen in windows.
        published: The maps that the published script show_attn_map writes, in its own folders and colours.
        area: Instead of sheets of each photo, how far every head looks, on average over the photos: area.png, .svg and
            .json, beside the receptive fields of ResNets.
        classes: Instead of sheets, which classes are alike to the model: class embeddings before the decoder and, where
            there are photos, after it, or the classifier's weights, on two axes: classes.png, .svg and .json.
        overwrite: Write anew what an earlier `explain` wrote there; files of others are never overwritten.
        device: Where the model runs, or cuda:1 and so on; auto: the best there is.
        json: Print what was looked at, and the files written, as JSON.
    """
    points = [(y, x) for x, y in (_numbers(text, "at", 2) for text in at)]
    chosen = _numbers(layers, "layers") if layers else []
    if published and native:
        raise WrongUse(
            "the published script looks at a photo at the training's scale; leave out --native or --published"
        )
    if area and classes:
        raise WrongUse("--area and --classes are two pictures; ask for one at a time")
    if area or classes:
        if at or class_names or layers or published:
            raise WrongUse("--area and --classes show the whole model; leave out --at, --class, --layers, --published")
        _explain_whole(model, images, out, area, native, overwrite, device, json)
        return
    from segmenter.published.loading import load
    from segmenter.views.explanations import explain_files, summary
    from segmenter.views.published_maps import published_maps

    network = load(model, device)
    if published:
        written = published_maps(network, images, out, points, class_names, chosen, overwrite)
        told = f"{len(written[0]['files'])} pictures in {cleaned(str(out))}"
    else:
        written = explain_files(network, images, out, points, class_names, chosen, native, overwrite)
        told = summary(written)
    tell(as_json(written) if json else told)


def _explain_whole(
    model: Path, images: tuple[str, ...], out: Path, area: bool, native: bool, overwrite: bool, device: str, json: bool
) -> None:
    """What `explain` writes with --area, or else with --classes."""
    from segmenter.published.loading import load
    from segmenter.views.whole_model import area_files, area_table, class_files, class_table

    write, table = (area_files, area_table) if area else (class_files, class_table)
    content = write(load(model, device), model.name or str(model), images, out, native, overwrite)
    tell(as_json(content) if json else f"{table(content)}\n{cleaned(', '.join(content['files']))}")


def _numbers(text: str, option: str, count: int | None = None) -> list[int]:
    """Whole numbers with commas between them.

    Raises:
        WrongUse: the text is something else.
    """
    if not re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", text) or count not in (None, text.count(",") + 1):
        example = "x and y with a comma between them, as in 120,80" if count else "whole numbers, as in 1,4,8,11"
        raise WrongUse(f"{option} is {shown(text)}; write {example}")
    return [int(number) for number in text.split(",")]
