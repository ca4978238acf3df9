"""The evaluation in the folder of a run, which is made where there is none, or where it is not of the model of now."""

from pathlib import Path

from segmenter.data.samples import DataSet
from segmenter.evaluation import kept_folder
from segmenter.evaluation.bootstrap import Kept
from segmenter.model.segmenter import Segmenter

FOLDER = "evaluation"


def evaluation_of(folder: Path, model: Segmenter, data: DataSet | None, split: str, workers: int) -> Kept:
    """The evaluation of a run on a split of its data.

    Raises:
        UserError: there is none, and no data to make it with, or the data cannot be scored on.
    """
    return kept_folder.read(folder / FOLDER)
