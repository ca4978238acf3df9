"""The tasks in a report: how an image, its truth and what models made of it become a picture of several layers."""

from collections.abc import Callable
from dataclasses import dataclass

from segmenter.views.report.depth import depth_picture
from segmenter.views.report.labels import label_picture
from segmenter.views.report.page import Picture


@dataclass(frozen=True)
class Task:
    """How one task is shown."""

    picture: Callable[..., Picture]
    """Name, image, target, results by model, and what to tell of them."""


TASKS = {"labels": Task(label_picture), "depth": Task(depth_picture)}
