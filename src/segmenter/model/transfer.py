"""Weights of one model as the start of another with the same encoder; patch size, crop and classes may differ.

Patch embeddings are resampled as in FlexiViT (arXiv 2212.08013, by timm), positions as in Segmenter, section 3.1.
"""

import torch
from torch import Tensor

from segmenter.errors import UserError
from segmenter.model.encoder import PREFIX
from segmenter.model.segmenter import Segmenter
from segmenter.model.timm_models import resample_patch_embed

SAME_MEANING = {"dpt", "dpt_depth"}
"""Decoders in which equal names mean the same; tensors of other decoders that share a size do not correspond."""


@torch.no_grad()
def transfer(source: Segmenter, model: Segmenter) -> list[str]:
    """Copies weights and normalisation of `source` into `model`; returns the tensors that keep their own values.

    The whole decoder is taken over where both have the same one for the same classes; with other classes, the tensors
    that do not depend on them.

    Raises:
        UserError: the encoders are of different kinds, or the source's ends before the model's.
    """
    if source.encoder.taps and source.encoder.depth < model.encoder.depth:
        raise UserError(
            f"train.start: the encoder there ends with block {source.encoder.depth - 1}, the last that its decoder "
            f"{source.recipe.decoder.name} reads, but {model.recipe.decoder.name} needs the blocks up to "
            f"{model.encoder.depth - 1}: start from another model, or write encoder.depth: {source.encoder.depth}"
        )
    model.mean, model.std = source.mean, source.std
    found, wanted = _needed(source, model), model.state_dict()
    if not _same_decoder(source, model):
        found = {name: tensor for name, tensor in found.items() if not name.startswith("decoder.")}
    _fit_sizes(found, source, model)
    fitting = {name for name in found if name in wanted and found[name].shape == wanted[name].shape}
    for name in sorted(found.keys() | wanted.keys()):
        # Not in the source, as its decoder does not need them
        token = name.endswith("_token") and not source.decoder.prefix
        new = name not in found and (name.startswith("encoder.norm.") or token)
        if name.startswith("encoder.") and name not in fitting and not new:
            raise UserError(
                f"train.start: the model has {source.recipe.encoder.name}, which does not fit "
                f"{model.recipe.encoder.name} ({name}); give both the same encoder.name, depth and width"
            )
    if source.classes.names != model.classes.names:
        fitting -= {f"decoder.{name}" for name in model.decoder.class_dependent}
    for name in fitting:
        wanted[name].copy_(found[name])
    return [name for name in wanted if name not in fitting]


def _needed(source: Segmenter, model: Segmenter) -> dict[str, Tensor]:
    """The source's tensors without those of the encoder that the model's decoder does not need."""
    found = source.state_dict()
    if not model.encoder.taps:
        return found
    beyond = tuple(
        f"encoder.{part}.{index}{end}"
        for index in range(model.encoder.depth, source.encoder.depth)
        for part, end in (("vit.blocks", "."), ("relative_tables", ""))
    )
    tokens = () if model.decoder.prefix else tuple(f"encoder.vit.{name}" for name in PREFIX)
    return {name: tensor for name, tensor in found.items() if not name.startswith(("encoder.norm.", *beyond, *tokens))}


def _same_decoder(source: Segmenter, model: Segmenter) -> bool:
    decoders = {source.recipe.decoder.name, model.recipe.decoder.name}
    return len(decoders) == 1 or decoders <= SAME_MEANING


def _fit_sizes(found: dict[str, Tensor], source: Segmenter, model: Segmenter) -> None:
    """Resamples patches and positions to the model's patch size and grid."""
    patches, positions = "encoder.vit.patch_embed.proj.weight", "encoder.vit.pos_embed"
    if source.encoder.patch_size != model.encoder.patch_size:
        found[patches] = resample_patch_embed(found[patches], [model.encoder.patch_size] * 2)
    if positions in found:
        grids = source.encoder.table_grid, model.encoder.table_grid
        found[positions] = model.encoder.resize_table(found[positions], *grids)
    for name in [name for name in found if name.startswith("encoder.relative_tables.")]:
        grids = (m.encoder.vit.patch_embed.grid_size for m in (source, model))
        found[name] = model.encoder.resize_relative_table(found[name], *grids)
