"""The tasks in a report: how images become pictures of several layers, and what is said of their evaluations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segmenter.views.report import by_distance, scored
from segmenter.views.report.depth import depth_picture
from segmenter.views.report.labels import label_picture
from segmenter.views.report.measured import Measure
from segmenter.views.report.page import Picture, Section


@dataclass(frozen=True)
class Task:
    """How one task is shown."""

    picture: Callable[..., Picture]
    """Name, image, target, results by model, and what to tell of them."""
    measures: Mapping[str, Measure]
    """Of all images, by their names in an evaluation; by the first one images are ranked."""
    sections: Callable[..., list[Section]]
    """Evaluations and their intervals by run, and the classes, to the parts of a page."""


TASKS = {
    "labels": Task(label_picture, scored.MEASURES, scored.label_sections),
    "depth": Task(depth_picture, by_distance.MEASURES, by_distance.depth_sections),
}
