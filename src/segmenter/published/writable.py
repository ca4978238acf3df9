"""Checks that a published layout can hold a model of ours."""

import math
from collections.abc import Set

from segmenter.checkpoints.keys import few
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter


def refuse_other_parts(network: Segmenter, names: Set[str], prefix: int, layout: str) -> None:
    """Checks that a network has exactly the tensors that a layout holds.

    `names` are ours; `prefix` is the number of tokens before the patches, which have positions too.

    Raises:
        UserError: it has other tensors, or some are missing.
    """
    state = network.state_dict()
    other = sorted(names ^ state.keys())
    if not other and state["encoder.vit.pos_embed"].shape[1] != math.prod(network.encoder.table_grid) + prefix:
        other = ["encoder.vit.pos_embed"]
    if other:
        raise UserError(
            f"{network.recipe.encoder.name} with {network.recipe.decoder.name} differs from {layout} in {few(other)}; "
            "save the model in our own layout instead (segmenter)"
        )
