"""The verbs `check`, `data` and `prepare`: what there is to learn from."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from segmenter.cli.arguments import DataFolder
from segmenter.cli.data_settings import DataAtRoot
from segmenter.errors import cleaned, listed
from segmenter.ranges import checked
from segmenter.streams import tell

DataSetName = Literal["ade20k", "pascal_context", "cityscapes", "voc", "camvid"]


@checked
def check(
    data: DataFolder,
    task: Literal["labels", "depth"] = "labels",
    options: Annotated[DataAtRoot, arg(name="data")] = DataAtRoot(),  # noqa: B008  (nobody changes it)
) -> None:
    """Read every mask, or depth map, and say what would spoil a training, and what to write instead.

    Args:
        data: Folder with the images and masks, or depth maps, or `scenes`.
        task: What the images come with.
        options: The folder's settings, as `train` has them.
    """
    from segmenter.data.tasks import TASKS

    found = TASKS[task].open(replace(options, root=data))
    report = TASKS[task].check(found)
    tell(f"{cleaned(found.source)}\n\n{report.table()}\n")
    for text in listed(report.warnings):
        tell(f"warning: {text}")
    report.refuse_errors()
    tell("ready to train")


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
