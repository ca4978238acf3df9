"""The layouts that models are read from and written in: to add another one, write its module and add it to the list.

Everything about a layout is in its module; nothing else needs to change.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from segmenter.checkpoints.keys import LoadReport
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import WrongUse
from segmenter.model.segmenter import Segmenter
from segmenter.published import (
    dpt_openmmlab,
    dpt_original,
    dpt_smp,
    huggingface,
    openmmlab,
    original,
    own,
    setr_openmmlab,
    setr_original,
)


class Layout(Protocol):
    """A module for one layout."""

    NAME: str
    """On the command line; several layouts of one library share it where no decoder is in two of them."""
    TITLE: str
    """In messages."""
    WRITES: tuple[str, ...]
    """The decoders whose models can be written."""
    write: Callable[[Segmenter, Path], list[str]] | None
    """Writes a model into a folder; returns the points in which other code that reads it differs from ours.

    Raises:
        UserError: the network has parts that the layout cannot hold, or the files cannot be written.
    """

    def recognize(self, names: Collection[str]) -> bool:
        """Whether the keys are this layout's, or most of them are."""

    def read(self, checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
        """The network of a file of this layout, in evaluation mode, and what was made of the file.

        Raises:
            UserError: keys are missing or unknown, shapes contradict each other, values are not finite.
        """


LAYOUTS: tuple[Layout, ...] = (
    own,
    original,
    openmmlab,
    setr_original,
    setr_openmmlab,
    dpt_original,
    dpt_openmmlab,
    huggingface,
    dpt_smp,
)


def recognized(names: Collection[str]) -> Layout | None:
    """The layout that has these keys, or most of them."""
    return next((layout for layout in LAYOUTS if layout.recognize(names)), None)


def written_layouts() -> list[str]:
    """Names of the layouts that models are written in."""
    return list(dict.fromkeys(layout.NAME for layout in LAYOUTS if layout.write is not None))


def refuse_unwritten(name: str) -> None:
    """Checks that models can be written in a layout of this name.

    Raises:
        WrongUse: there is no such layout, or it can only be read.
    """
    if name not in written_layouts():
        known = " or ".join(written_layouts())
        raise WrongUse(f"models cannot be written in a layout {name!r}; choose --layout {known}")


def layouts_for(decoder: str) -> dict[str, Layout]:
    """The layouts that a model with this decoder is written in, by name."""
    return {layout.NAME: layout for layout in LAYOUTS if decoder in layout.WRITES}
