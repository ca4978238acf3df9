"""What `explain` looks at in a photo: points and classes, each in a window, and the overview that shows where."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inspection.places import Box, Point, Window, likeliest_place, widest_places, window_at, windows_on
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.segmenter import Segmenter
from segmenter.views.heat import MARK
from segmenter.views.lettering import font
from segmenter.views.overlay import overlay
from segmenter.views.tasks import TASKS

POINTS = 4  # that are looked at where none are named: one in each of the widest regions
CLASSES = 8  # on the sheet of classes
OVERVIEW, SMALLEST_OVERVIEW = 2**20, 900  # pixels at most, and along the longer side at least


@dataclass(frozen=True, eq=False)
class Subject:
    """A patch or a class that is looked at."""

    name: str
    """For titles: "the patch at x 3, y 4 (car)" or "class car"."""
    caption: str
    """For rows: "point 2" and "car" on two lines, or "car"."""
    label: int
    """The class, or what the model says at the point; of a model of depth 0."""
    window: Window
    at: Point | None = None
    """The patch's point; None for a class."""

    @property
    def marked(self) -> Box | None:
        """Where the patch lies on the photo."""
        return self.window.patch_box(*self.window.patch(self.at)) if self.at is not None else None

    @property
    def where(self) -> str:
        """A sentence that names the window, where there are several."""
        one = self.window.rows * self.window.columns == 1
        return "" if one else f" Seen in {self.window.describe()}."


@dataclass(frozen=True)
class Asked:
    """What is looked at in one photo."""

    photo: np.ndarray
    result: Result | DepthResult
    windows: list[Window]
    points: list[Subject]
    classes: list[Subject]
    """Named by the user."""
    shown: list[Subject]
    """Classes on the sheet of all of them."""

    def describe(self) -> dict[str, object]:
        """What is looked at, and in which windows, in plain JSON types."""
        names = self.result.classes.names if isinstance(self.result, Result) else ()
        points = [
            {"x": subject.at[1], "y": subject.at[0], "window": subject.window.describe()}
            | ({"class": names[subject.label]} if names else {})
            for subject in self.points
        ]
        classes = [{"class": s.caption, "window": s.window.describe()} for s in self.classes or self.shown]
        return {"points": points, "classes": classes}


def what_to_look_at(
    model: Segmenter,
    photo: np.ndarray,
    result: Result | DepthResult,
    at: Sequence[Point],
    labels: Sequence[int],
    native: bool,
) -> Asked:
    """What to look at in a photo whose result is known."""
    windows = windows_on(model, photo, native)
    widest = widest_places(result.labels, len(result.classes)) if isinstance(result, Result) else {}
    if not at and not labels:
        middle = (photo.shape[0] // 2, photo.shape[1] // 2)
        at = list(widest.values())[:POINTS] or [middle]

    def of_class(label: int) -> Subject:
        place = widest[label] if label in widest else likeliest_place(result, label)
        name = model.classes.names[label]
        return Subject(f"the embedding of class {name}", name, label, window_at(windows, place))

    points = []
    for number, point in enumerate(at, 1):
        label = int(result.labels[point]) if isinstance(result, Result) else 0
        says = model.classes.names[label] if isinstance(result, Result) else ""
        name = f"the patch at x {point[1]}, y {point[0]}" + f" ({says})" * bool(says)
        points.append(Subject(name, f"point {number}\n{says}".strip(), label, window_at(windows, point), point))
    shown = (labels or list(widest)[:CLASSES]) if isinstance(model.decoder, MaskTransformer) else []
    return Asked(photo, result, windows, points, [*map(of_class, labels)], [*map(of_class, shown)])


def overview(asked: Asked, only: Subject | None = None) -> Image.Image:
    """The photo with what the model says, and the points and windows that are looked at.

    With `only`, it is that of one subject alone, without legend: a small picture for the head of a sheet.
    """
    photo, result = asked.photo, asked.result
    if (larger := -(-SMALLEST_OVERVIEW // max(photo.shape[:2]))) > 1:  # letters would cover a small photo
        size = (photo.shape[1] * larger, photo.shape[0] * larger)
        result = TASKS[result.task].sampled(result, *(np.arange(side) // larger for side in size[::-1]))
        photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    width = overlay(photo, result, legend=False, largest=OVERVIEW).width
    picture = overlay(photo, result, legend=only is None, largest=OVERVIEW)
    scale, line = width / asked.photo.shape[1], max(2, width // 300) * (1 if only is None else 2)
    draw, size = ImageDraw.Draw(picture), max(10, width // (40 if only is None else 18))
    if len(asked.windows) > 1:
        subjects = [only] if only else [*asked.points, *asked.classes, *asked.shown]
        for box in {subject.window.box for subject in subjects}:
            top, left, bottom, right = (side * scale for side in box)
            draw.rectangle([left, top, right - 1, bottom - 1], outline="white", width=line)
    for number, subject in enumerate(asked.points, 1):
        if only is None or only is subject:
            y, x = ((where + 0.5) * scale for where in subject.at)
            draw.circle((x, y), size * 0.9, fill="black", outline=MARK, width=line)
            draw.text((x, y), str(number), fill=MARK, font=font(size, bold=True), anchor="mm")
    return picture
