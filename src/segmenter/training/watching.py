"""What a run tells whoever watches it. Reports are written on a floor above, which hands these functions in.

They are called in the process that writes the run, after what they are told of is in the folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segmenter.data.samples import DataSet
from segmenter.model.segmenter import Segmenter


@dataclass(frozen=True)
class Validated:
    """A model that was scored on val just now; it stays in evaluation mode while it is looked at."""

    folder: Path
    """Of the run: the line of this validation is in its log."""
    model: Segmenter
    data: DataSet
    step: int
    steps: int
    """That the training will have."""


def nothing(*_: object) -> None:
    """Watches nothing."""


@dataclass(frozen=True)
class Watch:
    """Functions that a training calls as it goes; they may take their time, and should not raise."""

    on_validation: Callable[[Validated], object] = nothing
    on_end: Callable[[Path], object] = nothing
    """With the folder, once the last step is made, scored and saved; not for a run that had ended before."""


UNWATCHED = Watch()
