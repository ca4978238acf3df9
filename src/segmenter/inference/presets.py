"""Windows and scale of the published commands, as named settings for `predict` and `evaluate`.

Source: rstrudel/segmenter at 20d1bfa (the evaluation while segm.train runs, segm.eval.miou, segm.inference) and the
test configuration of mmsegmentation 1.2.2. Multi-scale testing is a flag there as here. Accidents of those commands are
left out: docs/published-quirks.md, Q1, Q11 and Q13.
"""

from dataclasses import replace
from typing import Literal

from segmenter.config import Inference, Recipe
from segmenter.errors import UserError

Preset = Literal["segm.train", "segm.eval.miou", "segm.inference", "mmseg"]
OVERLAP = 32  # pixels that windows share at least


def settings(preset: str, recipe: Recipe) -> Inference:
    """The inference settings that a published command uses for a model of this recipe.

    Raises:
        UserError: there is no such preset.
    """
    own, crop = recipe.inference, recipe.augment.crop
    overlapping = Inference(window=crop, stride=tuple(max(side - OVERLAP, 1) for side in crop))
    known = {
        # The model's windows are those of its data set, as stated in variant.yml and the recipes.
        "segm.train": replace(own, batch=1, enlarge=True, native=False),
        "segm.eval.miou": replace(overlapping, batch=4, enlarge=True),
        "segm.inference": replace(own, batch=2, enlarge=True, native=True),
        "mmseg": replace(overlapping, batch=1),
    }
    if preset not in known:
        raise UserError(f"there is no preset {preset!r}; choose {', '.join(known)}")
    return known[preset]
