"""Trainings from Python: a recipe, data and single settings to a run, as the command line has them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from segmenter import recipes
from segmenter.config import Recipe
from segmenter.data.samples import DataSet
from segmenter.errors import UserError
from segmenter.studies import live


def train(
    recipe: Recipe | str | Path,
    data: str | Path | DataSet,
    out: str | Path,
    settings: Mapping[str, object] | None = None,
    device: str = "auto",
    report: bool = True,
) -> float:
    """Trains a new model into the folder `out` and returns its best validation score (0 to 1).

    The folder is then a model for `segmenter.load`, and a run for `segmenter.resume`.

    >>> best = segmenter.train("tiny.yaml", "photos", "runs/second", {"train.steps": 2, "decoder.name": "linear"})
    >>> 0 <= best <= 1
    True

    Args:
        recipe: a recipe, its name (`segmenter models` lists them) or a YAML file.
        data: folder with the images and masks, or depth maps; or what `segmenter.open_data` gave, whose settings
            (classes, map and the like) are then the recipe's.
        out: new folder for the run.
        settings: single settings that replace the recipe's, by their names on the command line without the dashes,
            as {"train.lr": 3e-4}.
        device: `auto` (the best there is), `cpu`, `cuda`, `cuda:1`, `mps` ...
        report: write report.html into the folder: curves and some images after each validation, all at the end.

    Returns:
        The mean IoU, or of a model of depth delta1, of the validation that was best.

    Raises:
        UserError: there is no such recipe or setting, the data cannot be trained on, the folder is taken, the loss is
            no longer finite, or it was told to stop.
    """
    recipe = recipe if isinstance(recipe, Recipe) else recipes.read(str(recipe))
    recipe = _with_settings(recipe, settings or {})
    if isinstance(data, DataSet) and data.task != recipe.task:
        raise UserError(
            f"the data was opened for {data.task}, but decoder.name is {recipe.decoder.name}, which learns "
            f"{recipe.task}; open it with task {recipe.task!r}, or choose another decoder"
        )
    known = data.settings if isinstance(data, DataSet) else replace(recipe.data, root=str(data))
    return live.train(replace(recipe, data=known), Path(out), device, reports=report)


def resume(run: str | Path, device: str = "auto", report: bool = True) -> float:
    """Goes on with an interrupted training exactly where it was saved; returns its best validation score (0 to 1).

    >>> best = segmenter.resume("runs/first")  # has come to its end, so there is nothing to do
    >>> 0 <= best <= 1
    True

    Args:
        run: folder that `train` wrote.
        device: as for `train`.
        report: as for `train`.

    Raises:
        UserError: the folder is not a run, its files are damaged, or as `train`.
    """
    return live.resume(Path(run), device, reports=report)


def _with_settings(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """The recipe with single settings replaced, by dotted names.

    Raises:
        UserError: there is no such setting, or its value is of the wrong type.
    """
    if isinstance(decoder := settings.get("decoder.name"), str):
        recipe = recipes.with_decoder(recipe, decoder)
    content = asdict(recipe)
    for name, value in settings.items():
        *groups, key = name.split(".")
        place = content
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise UserError(f"settings: there is no setting {name}; {group} is a single one")
        place[key] = value
    return recipes.from_dict(content, "settings")
