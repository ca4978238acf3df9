"""The verbs `check`, `data` and `prepare`: what there is to learn from."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from segmenter.cli.arguments import DataFolder, Device, Split
from segmenter.cli.data_settings import DataAtRoot, DataOfModel
from segmenter.config import Data
from segmenter.errors import WrongUse, cleaned, listed
from segmenter.ranges import checked
from segmenter.streams import tell

if TYPE_CHECKING:
    from segmenter.data.samples import DataSet, Sample
    from segmenter.model.segmenter import Segmenter
    from segmenter.views.results import Results

DataSetName = Literal["ade20k", "pascal_context", "cityscapes", "voc", "camvid"]


@checked
def check(
    data: DataFolder,
    task: Literal["labels", "depth"] = "labels",
    options: Annotated[DataOfModel, arg(name="data")] = DataOfModel(),  # noqa: B008  (nobody changes it)
    model: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="MODEL")] = (),
    split: Split = "auto",
    out: Path | None = None,
    overwrite: bool = False,
    device: Device = "auto",
) -> None:
    """Read every mask, or depth map, and say what would spoil a training, and what to write instead.

    Args:
        data: Folder with the images and masks, or depth maps, or `scenes`.
        task: What the images come with.
        options: The folder's settings, as `train` has them.
        model: Also rank the images whose mask contradicts this model where it is sure; several, such as those of a
            cross-validation, are averaged: --model A --model B.
        split: With --model: part of the data that is ranked; auto: test, or val where test has no masks.
        out: With --model: folder for images.csv, regions.csv, and pictures of the most doubtful regions.
        overwrite: Replace what an earlier `check` wrote there; files of others are never overwritten.
        device: Where the models run, or cuda:1 and so on; auto: the best there is.
    """
    from segmenter.data.tasks import TASKS

    given = {"--split": split != "auto", "--out": out is not None, "--overwrite": overwrite}
    if not model and (unread := [name for name, there in given.items() if there]):
        raise WrongUse(f"{unread[0]} is for comparing masks with a model; add --model MODEL, or leave it out")
    if model and task != "labels":
        raise WrongUse(f"--task {task} and --model do not go together: only masks are compared with models")
    models = _loaded(model, device)
    results = None
    if out is not None:
        from segmenter.views.doubt_sheets import claim

        results = claim(out, overwrite)
    found = TASKS[task].open(options.completed(data, models[0].recipe.data if models else Data()))
    samples = _samples(models, found, split)
    report = TASKS[task].check(found)
    tell(f"{cleaned(found.source)}\n\n{report.table()}\n")
    for text in listed(report.warnings):
        tell(f"warning: {text}")
    report.refuse_errors()
    tell("ready to train")
    if models:
        _compare(models, samples, results)


def _loaded(paths: tuple[Path, ...], device: str) -> list["Segmenter"]:
    """The models that masks are compared with; before anything is read, those that cannot be are refused."""
    if not paths:
        return []
    from segmenter.evaluation.doubtful import refuse_models
    from segmenter.published.loading import load

    models = [load(path, device) for path in paths]
    refuse_models(models)
    return models


def _samples(models: list["Segmenter"], found: "DataSet", split: str) -> Sequence["Sample"]:
    """What is compared, if it can be: that is said before every mask is read."""
    if not models:
        return []
    from segmenter.evaluation.doubtful import labelled

    return labelled(models[0], found, split)


def _compare(models: list["Segmenter"], samples: Sequence["Sample"], results: "Results | None") -> None:
    from segmenter.evaluation.doubtful import doubtful
    from segmenter.views.doubt_sheets import SHEETS, write_doubts

    doubts = doubtful(models, samples)
    tell(f"\n{doubts.table()}")
    if results is not None:
        write_doubts(results, models, doubts)
        count = len(doubts.regions())
        where = cleaned(str(results.folder))
        tell(f"\n{len(doubts.samples)} images, {count} regions, pictures of {min(count, SHEETS)}: {where}")


@checked
def convert_data(
    data: DataFolder,
    out: Path,
    options: Annotated[DataAtRoot, arg(name="data")] = DataAtRoot(),  # noqa: B008  (nobody changes it)
) -> None:
    """Write images, masks of class ids and classes.yaml from annotations of any format that can be read.

    Args:
        data: Folder, or zip of one, with COCO JSON, YOLO, labelme, Label Studio, CVAT or Supervisely annotations, or
            masks with a table of classes.
        out: New folder for train, val and test.
        options: The folder's settings, as `train` has them.
    """
    from segmenter.data.annotations.unpacked import unpacked
    from segmenter.data.annotations.writing import write_data
    from segmenter.data.layouts import open_labels

    with unpacked(Path(data), out) as folder:
        found = open_labels(replace(options, root=str(folder)))
        said = [found.source, *(f"warning: {note}" for note in found.notes)]
        for line in listed([line.replace(str(folder), data) for line in said]):
            tell(line)
        written = write_data(found, out)
    tell(cleaned(f"{out}: {', '.join(f'{split} {count}' for split, count in written.items())} images with masks"))


def prepare(
    dataset: Annotated[Positional[DataSetName], arg(metavar="DATASET")],
    root: Annotated[Positional[Path], arg(metavar="ROOT")],
) -> None:
    """Fetch a published data set, check and unpack it: ade20k, pascal_context, voc, camvid; cityscapes from your zips.

    Args:
        dataset: Name of the data set.
        root: Folder for it; what is there already is kept, and a broken download goes on.
    """
    from segmenter.data.sets.prepare import SOURCES, prepare

    source = SOURCES[dataset]
    print(f"{source.title}: {source.terms}", file=sys.stderr)
    tell(cleaned(prepare(dataset, root, source)))
