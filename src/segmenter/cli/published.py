"""The verbs `convert` and `models`: models of others, and what there is."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segmenter.cli.arguments import as_json
from segmenter.errors import cleaned
from segmenter.streams import tell

LONGEST_LINE = 2000  # characters of what `convert` tells


def convert(
    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")],
    out: Path,
    layout: str = "segmenter",
) -> None:
    """Write a model in another layout, and say what of the checkpoint was used, left out and assumed.

    Args:
        checkpoint: Published checkpoint or its folder, folder of a model or a run, or a name that `models` lists.
        out: New folder for the files.
        layout: segmenter (our own folder), original (the authors' files), openmmlab, or huggingface (DPT).
    """
    from segmenter.published.converting import convert

    tell("\n".join(cleaned(line, LONGEST_LINE) for line in convert(checkpoint, out, layout)))


def models(pattern: Annotated[Positional[str], arg(metavar="PATTERN")] = "*", json: bool = False) -> None:
    """List decoders, recipes, published models that can be named, and encoders (timm's plain vision transformers).

    Args:
        pattern: Only what has a name of this form, for example 'vit_small*' or 'seg-*'.
        json: Print JSON instead of tables.
    """
    from segmenter.published.zoo import find, listing

    found = find(pattern)
    tell(as_json(found) if json else listing(found))
