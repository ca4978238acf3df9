"""The layouts that models are read from and written in: to know another one, write its module and add it to the list.

What describes a layout stands in its module, so that nothing else has to be changed for it.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from segmenter.checkpoints.keys import Report
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
    """A module that knows one layout."""

    NAME: str
    """For the command line; layouts of one library share it where no decoder is in two of them."""
    TITLE: str
    """For sentences."""
    WRITES: tuple[str, ...]
    """The decoders that it can be written with."""
    write: Callable[[Segmenter, Path], list[str]] | None
    """Writes a model into a folder; returns in which points what reads it elsewhere treats it otherwise than we.

    Raises:
        UserError: the network has parts that the layout has not, or the files cannot be written.
    """

    def recognise(self, names: Collection[str]) -> bool:
        """Whether the keys are this layout's, or most of them are."""

    def read(self, checkpoint: Checkpoint) -> tuple[Segmenter, Report]:
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


def recognised(names: Collection[str]) -> Layout | None:
    """The layout that has these keys, or most of them."""
    return next((layout for layout in LAYOUTS if layout.recognise(names)), None)


def written() -> list[str]:
    """Names of the layouts that models are written in."""
    return list(dict.fromkeys(layout.NAME for layout in LAYOUTS if layout.write is not None))


def refuse_unwritten(name: str) -> None:
    """Does nothing if models are written in a layout of this name.

    Raises:
        WrongUse: there is none, or it is only read.
    """
    if name not in written():
        raise WrongUse(f"no model is written in a layout {name!r}; choose --layout {' or '.join(written())}")


def writing(decoder: str) -> dict[str, Layout]:
    """The layouts that a model with this decoder is written in, by name."""
    return {layout.NAME: layout for layout in LAYOUTS if decoder in layout.WRITES}
