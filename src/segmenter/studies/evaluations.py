"""The evaluation in the folder of a run, which is made where there is none, or where it is not of the model of now."""

from pathlib import Path

from segmenter.data.samples import DataSet
from segmenter.errors import UserError, cleaned
from segmenter.evaluation import kept_folder
from segmenter.evaluation.bootstrap import Kept
from segmenter.evaluation.evaluate import evaluate
from segmenter.evaluation.keep import fingerprint
from segmenter.model.segmenter import Segmenter
from segmenter.progress import say

FOLDER = "evaluation"


def evaluation_of(folder: Path, model: Segmenter, data: DataSet | None, split: str, workers: int) -> Kept:
    """The evaluation of a run on a split of its data; with `auto` on test, or val where test has no targets.

    Without data, the one that is there is taken, whatever its split.

    Raises:
        UserError: there is none and no data to make it with, or the data cannot be scored on.
    """
    place = folder / FOLDER
    kept, why = _found(place, model)
    if data is None:
        if kept is None:
            raise UserError(f"{why}, and there is no data to make one with")
        return kept
    split = data.labelled_split() if split == "auto" else split
    if kept is not None and kept.about.get("split") == split and set(kept.names) == _names(data, split):
        return kept
    try:
        kept_folder.claim(place, overwrite=True)
    except UserError as error:  # changed by others, who may want it
        raise UserError(f"{why or error}; remove {place}, and it is made anew") from error
    if place.is_dir():
        say(f"evaluating again: {cleaned(why or f'{place} is of other images')}")
    evaluate(model, data, split=split, workers=workers, out=place, overwrite=True, source=str(folder))
    return kept_folder.read(place)


def _found(place: Path, model: Segmenter) -> tuple[Kept | None, str]:
    """The evaluation in a folder, if it is of this model; or why there is none."""
    try:
        kept = kept_folder.read(place)
    except UserError as error:
        return None, str(error)
    if kept.task != model.recipe.task or kept.about.get("weights") != fingerprint(model):
        return None, f"{place} is of another model, or of the same one before it was trained further"
    return kept, ""


def _names(data: DataSet, split: str) -> set[str]:
    return {sample.name for sample in data.split(split)}
