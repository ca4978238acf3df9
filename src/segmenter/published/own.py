"""Our own layout, a model folder, as one of the known layouts: `model.folder` does the work."""

from collections.abc import Collection
from pathlib import Path

from segmenter.checkpoints import keys
from segmenter.checkpoints.keys import LoadReport
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model import folder as folders
from segmenter.model.segmenter import DECODERS, Segmenter

NAME, TITLE = "segmenter", "our own model folder"
WRITES = tuple(DECODERS)
FILES = (folders.WEIGHTS, folders.ABOUT)


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    return any(name.startswith("encoder.vit.") for name in names)


def read(checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
    """The model of a folder's weights, in evaluation mode, and a report.

    Raises:
        UserError: the description is not beside them, or does not fit.
    """
    weights, about = FILES
    if checkpoint.path.name != weights or not (checkpoint.path.parent / about).is_file():
        raise UserError(
            f"{checkpoint.path} holds the weights of a model folder; name it {weights} again, with {about} beside it"
        )
    return read_folder(checkpoint.path.parent)


def read_folder(folder: Path) -> tuple[Segmenter, LoadReport]:
    """The model of a folder, in evaluation mode, and a report.

    Raises:
        UserError: a file is missing or damaged, or they do not fit each other.
    """
    about = folders.read(folder)
    try:
        with keys.on_meta():  # no memory is allocated before the weights are known to fit
            model = Segmenter.from_description(about)
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, LookupError) as error:
        text = f"{folder / folders.ABOUT} describes a network that cannot be built ({error})"
        raise UserError(f"{text}; {folders.RESTORE}") from error
    state, unused = folders.read_weights(model, folder / folders.WEIGHTS)
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    # In newly allocated memory: unaligned parts of the file could make arithmetic round differently. What is computed
    # and never saved, such as rotary positions, exists only in a model built on a real device.
    model = Segmenter.from_description(about) if computed else model.to_empty(device="cpu")
    model.load_state_dict(state)
    return model.eval(), LoadReport(TITLE, used=len(model.state_dict()), unused=unused)


def write(network: Segmenter, folder: Path) -> list[str]:
    """Writes model.safetensors and config.json, which say everything."""
    network.save(folder)
    return []
