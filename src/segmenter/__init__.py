"""Semantic segmentation with plain vision transformers.

`import segmenter` is instant: torch is imported when a name below is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmenter.data.tasks import check, open_data
    from segmenter.errors import UserError
    from segmenter.evaluation.calibration import calibrate
    from segmenter.evaluation.doubtful import doubtful
    from segmenter.evaluation.evaluate import evaluate
    from segmenter.inference.predict import predict
    from segmenter.inspection.area import attended_area
    from segmenter.inspection.attention import attention
    from segmenter.inspection.class_embeddings import class_embeddings
    from segmenter.inspection.relevance import relevance
    from segmenter.model.segmenter import create
    from segmenter.published.loading import load
    from segmenter.studies.reporting import report
    from segmenter.studies.starting import resume, train
    from segmenter.views.overlay import overlay

_HOMES = {
    "UserError": "segmenter.errors",
    "attended_area": "segmenter.inspection.area",
    "attention": "segmenter.inspection.attention",
    "calibrate": "segmenter.evaluation.calibration",
    "check": "segmenter.data.tasks",
    "class_embeddings": "segmenter.inspection.class_embeddings",
    "create": "segmenter.model.segmenter",
    "doubtful": "segmenter.evaluation.doubtful",
    "evaluate": "segmenter.evaluation.evaluate",
    "load": "segmenter.published.loading",
    "open_data": "segmenter.data.tasks",
    "overlay": "segmenter.views.overlay",
    "predict": "segmenter.inference.predict",
    "relevance": "segmenter.inspection.relevance",
    "report": "segmenter.studies.reporting",
    "resume": "segmenter.studies.starting",
    "train": "segmenter.studies.starting",
}

__all__ = [
    "UserError",
    "attended_area",
    "attention",
    "calibrate",
    "check",
    "class_embeddings",
    "create",
    "doubtful",
    "evaluate",
    "load",
    "open_data",
    "overlay",
    "predict",
    "relevance",
    "report",
    "resume",
    "train",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segmenter' has no attribute {name!r}")
