"""What a patch of a photo, or a class embedding, attends to: the softmax probabilities of every head and layer.

Source: Segmenter, arXiv 2105.05633, section 4 and appendix (attention maps). Only the rows asked for are formed, so
that any size, layer and head costs no more than a prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segmenter import config
from segmenter.errors import UserError
from segmenter.inference.predict import Photo, as_pixels, predict
from segmenter.inspection.captured import Call, Part, blocks_of, capturing, refuse_block
from segmenter.inspection.places import (
    Point,
    Window,
    class_id,
    likeliest_place,
    refuse_outside_photo,
    window_at,
    windows_on,
)
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.segmenter import Segmenter


class Look(NamedTuple):
    """One pass of a window through the network."""

    rows: dict[tuple[Part, int], Tensor]
    """Part and block to the rows (heads R T) of R of its tokens."""
    logits: Tensor
    """1 K h w, on the decoder's grid."""


@dataclass(frozen=True)
class Attention:
    """What one token attends to in some layers, within one window of a photo."""

    maps: np.ndarray
    """Layers heads h w: to the patches, float32 from 0 to 1."""
    others: np.ndarray
    """Layers heads S: to the other tokens: in the encoder class, distillation and register tokens, in the decoder the
    classes. With `maps` they sum to 1 in each head."""
    part: Part
    layers: tuple[int, ...]
    """Which they are, counted from 0."""
    window: Window
    """The part of the photo that `maps` covers; `window.patch_box(row, column)` is a patch's place on the photo."""


def attention(
    model: Segmenter,
    image: Photo,
    at: Point | None = None,
    class_name: str = "",
    part: Part = "encoder",
    layers: Sequence[int] | None = None,
    native: bool = False,
    inference: config.Inference | None = None,
) -> Attention:
    """What the patch at a pixel attends to; or, with `class_name`, what the class's embedding does.

    >>> model = segmenter.load("runs/first")
    >>> found = segmenter.attention(model, "photos/test/images/test0.png", at=(20, 30))
    >>> found.maps.shape  # 2 layers of 3 heads, 8 x 8 patches
    (2, 3, 8, 8)
    >>> found.others.shape, float((found.maps.sum((2, 3)) + found.others.sum(2)).round(4).min())  # the class token
    ((2, 3, 1), 1.0)

    Args:
        model: in any mode.
        image: path, picture, or array (H W 3 uint8).
        at: y and x in pixels of the photo. With `class_name` it only chooses the window, which is else the one where
            the class is widest, or likeliest.
        class_name: a class of a model with a mask transformer, in whose decoder its embedding attends to the patches.
        part: where the patch attends; class embeddings are in the decoder.
        layers: counted from 0; None: all.
        native: keep the photo's scale, as in `predict`.
        inference: windows and scale, as in `predict`.

    Raises:
        UserError: neither a point nor a class is given, the point lies outside the photo, the model has no such class,
            no class embeddings, or no such layer.
    """
    photo = as_pixels(image)
    if at is None and not class_name:
        raise UserError("attention is that of a patch or a class; give at=(y, x) in pixels of the photo, or class_name")
    if at is not None:
        refuse_outside_photo(at, photo.shape[:2])
    if class_name:
        refuse_without_embeddings(model)
        part, label = "decoder", class_id(model.classes, class_name)
        at = at or likeliest_place(predict(model, photo, native=native, inference=inference), label)
    chosen = chosen_layers(model, part, layers)
    window = window_at(windows_on(model, photo, native, inference), at)
    token = class_token(window, label) if class_name else patch_token(model, window, at, part)
    look = look_at(model, model.normalize(window.pixels[None]), {part: [token]})
    return row_maps(model, window, look, part, chosen, 0)


def refuse_without_embeddings(model: Segmenter) -> None:
    """Checks that the model's classes have embeddings that attend to the patches.

    Raises:
        UserError: they have not.
    """
    if not isinstance(model.decoder, MaskTransformer):
        raise UserError(
            f"the {model.recipe.decoder.name} decoder has no class embeddings, whose attention could be shown; only "
            "mask_transformer has them: give a point instead"
        )


def chosen_layers(model: Segmenter, part: Part, layers: Sequence[int] | None) -> tuple[int, ...]:
    """These layers of the encoder or decoder, or all of them.

    Raises:
        UserError: the model has no such layer.
    """
    for layer in layers or ():
        refuse_block(model, part, layer)
    if not layers and not blocks_of(model, part):
        refuse_block(model, part, 0)
    return tuple(layers) if layers else tuple(range(len(blocks_of(model, part))))


def patch_token(model: Segmenter, window: Window, at: Point, part: Part) -> int:
    """The number of the token, among those of the encoder or decoder, of the patch at a point of the window."""
    row, column = window.patch(at)
    return row * window.grid[1] + column + (model.encoder.prefix if part == "encoder" else 0)


def class_token(window: Window, label: int) -> int:
    """The number of a class embedding among the tokens of the decoder."""
    return window.grid[0] * window.grid[1] + label


@torch.inference_mode()
def look_at(model: Segmenter, images: Tensor, tokens: Mapping[Part, Sequence[int]]) -> Look:
    """A normalised image (1 3 H W) to the rows of some tokens of the encoder, the decoder or both, in all blocks."""
    rows: dict[tuple[Part, int], Tensor] = {}

    def see(call: Call) -> None:
        if wanted := tokens.get(call.part):
            place, found = (call.part, call.block), call.rows(list(wanted))[0]  # heads R T
            # Differential attention attends twice in a block; its heads follow each other.
            rows[place] = torch.cat([rows[place], found]) if place in rows else found

    with capturing(model, see):
        logits = model(images)
    return Look(rows, logits.float())


def row_maps(model: Segmenter, window: Window, look: Look, part: Part, layers: Sequence[int], number: int) -> Attention:
    """One of the rows, in some layers, as maps.

    Raises:
        UserError: a layer was not seen to attend.
    """
    if unseen := [layer for layer in layers if (part, layer) not in look.rows]:
        raise UserError(f"block {unseen[0]} of the {part} attends in no way that can be seen; choose other layers")
    found = torch.stack([look.rows[part, layer][:, number] for layer in layers]).cpu()  # layers heads T
    prefix, count = model.encoder.prefix if part == "encoder" else 0, window.grid[0] * window.grid[1]
    maps = found[..., prefix : prefix + count].unflatten(-1, window.grid)
    others = torch.cat([found[..., :prefix], found[..., prefix + count :]], -1)
    return Attention(maps.numpy(), others.numpy(), part, tuple(layers), window)
