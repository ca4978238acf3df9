"""The layout of the original Segmenter: checkpoint.pth with variant.yml beside it, read and written.

Source: Segmenter, arXiv 2105.05633, and its published files. Constants of the layout: layer norms of eps 1e-5 in
encoder and decoder, positions resampled bilinearly, images smaller than the window enlarged, and the encoder's
ImageNet classifiers `encoder.head`, which are in the files but unused.
"""

from collections.abc import Collection
from pathlib import Path

import torch

from segmenter import atomic, config
from segmenter.checkpoints import keys
from segmenter.checkpoints.encoders import Shape
from segmenter.checkpoints.keys import LoadReport, TensorSource
from segmenter.checkpoints.reading import Checkpoint
from segmenter.errors import UserError
from segmenter.model.folder import Description, description
from segmenter.model.segmenter import Segmenter
from segmenter.published import variant
from segmenter.published.writable import refuse_other_parts

NAME, TITLE = "original", "the original Segmenter"
WRITES = ("linear", "mask_transformer")
CHECKPOINT = "checkpoint.pth"
IMAGENET_CLASSES = 1000
CLASSIFIERS = ("encoder.head.", "encoder.head_dist.")
STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
# Names below `decoder.`, theirs to ours.
MASK_TRANSFORMER = {
    "proj_dec.weight": "project.weight",
    "proj_dec.bias": "project.bias",
    "cls_emb": "class_embeddings",
    "decoder_norm.weight": "norm.weight",
    "decoder_norm.bias": "norm.bias",
    "proj_patch": "project_patches",
    "proj_classes": "project_classes",
    "mask_norm.weight": "mask_norm.weight",
    "mask_norm.bias": "mask_norm.bias",
}


def recognize(names: Collection[str]) -> bool:
    """Whether the keys are this layout's, or most of them are."""
    encoder = any(name.startswith("encoder.blocks.") for name in names)
    return encoder and any(name.startswith("decoder.") for name in names)


def sources(depth: int, layers: int | None, distilled: bool) -> dict[str, TensorSource]:
    """Our names to theirs; `layers` is None for the linear decoder."""
    stem = [*STEM, "dist_token"] if distilled else STEM
    found = {f"encoder.vit.{name}": f"encoder.{name}" for name in stem}
    found |= {
        f"encoder.vit.blocks.{index}.{name}": f"encoder.blocks.{index}.{name}"
        for index in range(depth)
        for name in keys.BLOCK
    }
    same = ["encoder.norm.weight", "encoder.norm.bias"]
    if layers is None:
        same += ["decoder.head.weight", "decoder.head.bias"]
    else:
        same += [f"decoder.blocks.{index}.{name}" for index in range(layers) for name in keys.BLOCK]
        found |= {f"decoder.{ours}": f"decoder.{theirs}" for theirs, ours in MASK_TRANSFORMER.items()}
    found |= {name: name for name in same}
    return {ours: TensorSource(theirs) for ours, theirs in found.items()}


def read(checkpoint: Checkpoint) -> tuple[Segmenter, LoadReport]:
    """The network of a file of this layout, in evaluation mode, and a report.

    Raises:
        UserError: keys are missing or unknown, shapes contradict each other or variant.yml, values are not finite.
    """
    path, state, report = checkpoint.path, checkpoint.state, LoadReport(TITLE)
    beside = variant.Variant(path.parent / variant.NAME, checkpoint.about)
    linear = any(key.startswith("decoder.head.") for key in state)
    distilled = "encoder.dist_token" in state or beside.get("net_kwargs", "distilled", bool, False)
    # If the last blocks are missing, variant.yml still counts them.
    depth = max(keys.depth(state, "encoder.blocks."), min(beside.get("net_kwargs", "n_layers", int, 0), 999))
    layers = max(keys.depth(state, "decoder.blocks."), min(beside.get("net_kwargs.decoder", "n_layers", int, 0), 999))
    names = sources(depth, None if linear else layers, distilled)
    keys.refuse_other_keys(checkpoint, report, {source.key for source in names.values()}, CLASSIFIERS)

    width = keys.axis(path, state, "encoder.cls_token", 2, 3)
    patch = keys.axis(path, state, "encoder.patch_embed.proj.weight", 3, 4)
    positions = keys.axis(path, state, "encoder.pos_embed", 1, 3) - 1 - distilled
    count = keys.axis(path, state, "decoder.head.bias" if linear else "decoder.mask_norm.bias", 0, 1)
    if section := beside.section(variant.OURS):
        about = description(section, f"{beside.path}: the section {variant.OURS}", "remove it")
    else:
        decoder = config.Linear()
        if not linear:
            decoder = config.MaskTransformer(
                layers=layers,
                dropout=beside.get("net_kwargs.decoder", "dropout", float, 0.1),
                drop_path=beside.get("net_kwargs.decoder", "drop_path_rate", float, 0.0),
            )
        size = beside.image_size(path, positions, patch)
        recipe = beside.recipe(Shape(patch, width, beside.heads(width), depth, distilled), decoder, size)
        about = Description(beside.classes(count), *beside.normalization(distilled), recipe)
        report.assumed += beside.assumed
    with keys.on_meta():
        network = Segmenter.from_description(about)
    keys.fill(network, checkpoint, report, names)
    return network.eval(), report


def write(network: Segmenter, folder: str | Path) -> list[str]:
    """Writes checkpoint.pth and variant.yml; returns the points in which the original code treats them differently.

    Read back here they give the same model bit for bit: a section of our own states what the layout cannot.

    Raises:
        UserError: the network has parts that the original does not have, or the files cannot be written.
    """
    folder, recipe, encoder, state = Path(folder), network.recipe, network.encoder, network.state_dict()
    linear, distilled = recipe.decoder.name == "linear", "encoder.vit.dist_token" in state
    names = sources(encoder.depth, None if linear else recipe.decoder.layers, distilled)
    refuse_other_parts(network, names.keys(), 1 + distilled, TITLE)
    heads = None if linear else recipe.decoder.heads
    if not linear and (encoder.width % variant.HEAD_WIDTH or heads not in (None, encoder.width // variant.HEAD_WIDTH)):
        raise UserError(
            f"the mask transformer's heads differ from the original's, one for every {variant.HEAD_WIDTH} of "
            f"{encoder.width} features; save the model in our own layout instead (segmenter)"
        )
    shape = Shape(encoder.patch_size, encoder.width, encoder.vit.blocks[0].attn.num_heads, encoder.depth, distilled)
    weights = keys.to_published(state, names)
    # The original loads strictly, so its unused classifiers must be there.
    for name in ("head", "head_dist") if distilled else ("head",):
        weights[f"encoder.{name}.weight"] = torch.zeros(IMAGENET_CLASSES, encoder.width)
        weights[f"encoder.{name}.bias"] = torch.zeros(IMAGENET_CLASSES)
    content = {"model": weights, "n_cls": len(network.classes), "epoch": 0}

    def write_all(path: Path) -> None:
        torch.save(content, path)
        atomic.write_text(folder / variant.NAME, variant.text(network, shape))

    atomic.write(folder / CHECKPOINT, write_all)
    return _differences(network)


def _differences(network: Segmenter) -> list[str]:
    """The points in which the original code treats the model differently."""
    recipe, found, eps = network.recipe, [], network.encoder.norm.eps
    if eps != variant.NORM_EPS:
        found.append(f"encoder layer norms of eps {variant.NORM_EPS:g}, here {eps:g}: logits differ by about 3e-4")
    if recipe.encoder.position_resize != "bilinear":
        found.append(f"positions resampled bilinearly, here {recipe.encoder.position_resize}")
    if variant.normalization_name(network) is None:
        found.append(f"another normalisation than this model's mean {network.mean} and std {network.std}")
    if not recipe.inference.enlarge:
        found.append("images smaller than the window enlarged to it, here taken whole")
    if len(set(recipe.inference.window)) > 1 or len(set(recipe.inference.stride)) > 1:
        found.append(f"square windows, here of {recipe.inference.window} pixels every {recipe.inference.stride}")
    return found
