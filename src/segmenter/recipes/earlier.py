"""Settings that earlier releases wrote, brought to the names of this one: in run folders and in saved models.

Format 1 (before 0.2) had one group of settings for all decoders, with `layout` for what is `variant` now.
"""

from dataclasses import fields
from pathlib import Path

from segmenter.config import DECODERS
from segmenter.errors import UserError, shown

FORMAT = 2


def upgraded(content: object, source: Path | str) -> object:
    """The settings of a recipe as this release names them, without the key `format`.

    Raises:
        UserError: a later release wrote them.
    """
    if not isinstance(content, dict):
        return content
    written = content.pop("format", None)
    if written not in (None, 1, FORMAT):
        raise UserError(f"{source} has format {shown(written)}, this version reads up to {FORMAT}; update segmenter")
    decoder = content.get("decoder")
    if written != FORMAT and isinstance(decoder, dict) and "layout" in decoder:
        content = content | {"decoder": _decoder(decoder)}
    return content


def _decoder(settings: dict) -> dict:
    """The decoder's settings of format 1: those that it reads."""
    name = settings.get("name", "mask_transformer")
    kind = DECODERS.get(name) if isinstance(name, str) else None
    if kind is None:
        return settings  # refused where it is read
    own = "own" if kind.__name__.startswith("Dpt") else "original"
    named = settings | {"variant": settings["layout"] or own}
    known = {field.name for field in fields(kind)}
    return {key: value for key, value in named.items() if key in known}
