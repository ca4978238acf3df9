"""Weights of one model as the start of another: other patch size, crop or classes, the same encoder.

Patch embeddings are resampled as in FlexiViT (arXiv 2212.08013, by timm), positions as in Segmenter, section 3.1.
"""

import torch

from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.model.timm_models import resample_patch_embed

SAME_MEANING = {"dpt", "dpt_depth"}
"""Decoders in which equal names mean the same; of others, what happens to be of one size does not fit together."""


@torch.no_grad()
def transfer(source: Segmenter, model: Segmenter) -> list[str]:
    """Copies weights and normalisation of `source`, which is used up, into `model`; returns what stays as it was.

    The whole decoder is taken over where both have the same one for the same classes; for other classes, what does not
    depend on them.

    Raises:
        UserError: the encoders are of different kinds.
    """
    model.mean, model.std = source.mean, source.std
    if taps := (*model.decoder.taps, *model.decoder.auxiliary_taps):
        source.encoder.keep_blocks(max(taps), model.decoder.prefix)
    found, wanted = source.state_dict(), model.state_dict()
    decoders = {source.recipe.decoder.name, model.recipe.decoder.name}
    if len(decoders) > 1 and not decoders <= SAME_MEANING:
        found = {name: tensor for name, tensor in found.items() if not name.startswith("decoder.")}
    patches, positions = "encoder.vit.patch_embed.proj.weight", "encoder.vit.pos_embed"
    if source.encoder.patch_size != model.encoder.patch_size:
        found[patches] = resample_patch_embed(found[patches], [model.encoder.patch_size] * 2)
    if positions in found:
        grids = source.encoder.table_grid, model.encoder.table_grid
        found[positions] = model.encoder.resize_table(found[positions], *grids)
    relative = [name for name in found if name.startswith("encoder.relative_tables.")]
    for name in relative:
        grids = (m.encoder.vit.patch_embed.grid_size for m in (source, model))
        found[name] = model.encoder.resize_relative_table(found[name], *grids)
    same_classes = source.classes.names == model.classes.names
    class_dependent = {f"decoder.{name}" for name in model.decoder.class_dependent}
    kept = []
    for name in sorted(found.keys() | wanted.keys()):
        fits = name in found and name in wanted and found[name].shape == wanted[name].shape
        # What the source's decoder had no use for
        token = name.endswith("_token") and not source.decoder.prefix
        new = name not in found and (name.startswith("encoder.norm.") or token)
        if name.startswith("encoder.") and not fits and not new:
            raise UserError(
                f"train.start: the model has {source.recipe.encoder.name}, which does not fit "
                f"{model.recipe.encoder.name} ({name}); give both the same encoder.name, depth and width"
            )
    for name, tensor in wanted.items():
        fits = name in found and found[name].shape == tensor.shape
        if fits and (same_classes or name not in class_dependent):
            tensor.copy_(found[name])
        else:
            kept.append(name)
    return kept
