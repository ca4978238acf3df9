"""The verb `report`: runs to one page."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segmenter.cli.arguments import Device, Split
from segmenter.errors import cleaned
from segmenter.ranges import Processes, checked
from segmenter.streams import tell


@checked
def report(
    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...")],
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
    data: Annotated[str, arg(metavar="DATA")] = "",
    split: Split = "auto",
    device: Device = "auto",
    workers: Processes = 2,
) -> None:
    """Write one HTML file about a run: curves, scores, images, confusions, calibration; or about several side by side.

    Args:
        runs: Folders that `train` wrote; the others are compared with the first one.
        out: File to write; without it, report.html in the folder of the only run.
        data: Folder with the images and masks, where it is no longer where the run's recipe says.
        split: Part of the data to score; `auto`: test, or val where test has no masks.
        device: Where the models run, or cuda:1 and so on; auto: the best there is.
        workers: Processes that load images.
    """
    from segmenter.studies.reporting import report

    tell(cleaned(str(report(runs, out, data, split, device, workers))))
