"""Semantic segmentation with plain vision transformers.

`import segmenter` is instant: torch is imported when a name below is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmenter.errors import UserError
    from segmenter.evaluation.evaluate import evaluate
    from segmenter.inference.predict import predict
    from segmenter.model.segmenter import create
    from segmenter.published.loading import load
    from segmenter.views.overlay import overlay

_HOMES = {
    "UserError": "segmenter.errors",
    "create": "segmenter.model.segmenter",
    "evaluate": "segmenter.evaluation.evaluate",
    "load": "segmenter.published.loading",
    "overlay": "segmenter.views.overlay",
    "predict": "segmenter.inference.predict",
}

__all__ = ["UserError", "create", "evaluate", "load", "overlay", "predict"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segmenter' has no attribute {name!r}")
