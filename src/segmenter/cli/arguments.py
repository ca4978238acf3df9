"""What the verbs share: the types of their arguments, and how they print a result."""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from segmenter.streams import tell

Split = Literal["auto", "train", "val", "test"]
Model = Annotated[Positional[Path], arg(metavar="MODEL")]
DataFolder = Annotated[Positional[str], arg(metavar="DATA")]
Device = Annotated[str, arg(metavar="auto|cpu|cuda|mps")]
Precision = Literal["fp32", "bf16", "fp16", "auto"]


def as_json(content: object) -> str:
    """JSON for people and programs, which know no numbers that are not finite."""
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def print_once(text: str) -> None:
    """Prints a result; of several processes that have it, the first one does."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        tell(text)
