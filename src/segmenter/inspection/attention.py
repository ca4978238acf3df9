"""What the tokens of a block attend to: the softmax probabilities of its heads.

Source: Segmenter, arXiv 2105.05633, section 4 and appendix (attention maps). They are captured at the input of timm's
attention dropout, so they include relative and rotary positions.
"""

from typing import Literal

import torch
from torch import Tensor

from segmenter.errors import UserError
from segmenter.inference.mode import evaluating
from segmenter.model.segmenter import Segmenter


@torch.inference_mode()
def attention(model: Segmenter, images: Tensor, block: int, part: Literal["encoder", "decoder"] = "encoder") -> Tensor:
    """The attention of each token of a block, for normalised images, in evaluation mode.

    >>> model = segmenter.load("runs/first")
    >>> photo = segmenter.open_data("photos").split("test")[0].image()  # H W 3
    >>> images = model.normalize(torch.from_numpy(photo).permute(2, 0, 1)[None])
    >>> found = segmenter.attention(model, images, block=1)
    >>> found.shape  # 8 x 8 patches and the class token, 3 heads
    torch.Size([1, 3, 65, 65])

    Args:
        model: in any mode.
        images: B 3 H W, normalised.
        block: counted from 0.
        part: the encoder, or a decoder with blocks.

    Returns:
        Probabilities (B heads T T, 0 to 1). Row: the attending token, column: the attended one; a row sums to 1. The T
        tokens are in the encoder the prefix tokens (class, ...) and the patches row by row, in the decoder the patches
        and the classes.

    Raises:
        UserError: there is no such block.
    """
    blocks = model.encoder.vit.blocks if part == "encoder" else getattr(model.decoder, "blocks", [])
    if not 0 <= block < len(blocks):
        has = f"the blocks 0 to {len(blocks) - 1}" if len(blocks) else "no blocks"
        raise UserError(f"block is {block}, but the {part} has {has}")
    layer = blocks[block].attn
    captured: list[Tensor] = []
    # A fused attention never forms the probabilities.
    fused, layer.fused_attn = layer.fused_attn, False
    hook = layer.attn_drop.register_forward_pre_hook(lambda _, arguments: captured.append(arguments[0]))
    try:
        with evaluating(model):
            if part == "encoder":
                model.encoder.intermediate(images, [block])
            else:
                model(images)
    finally:
        hook.remove()
        layer.fused_attn = fused
    return captured[0]
