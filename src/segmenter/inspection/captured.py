"""Every attention of a network as it runs: queries, keys, values and the block they belong to.

A torch function mode sees each call of `scaled_dot_product_attention`, whatever timm's module around it is: rotary
positions and norms of queries and keys are then in them, and relative positions are the mask. From a call follow the
probabilities of any rows; those of all rows and layers (layers x heads x T x T) are never held.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segmenter.errors import UserError
from segmenter.inference.mode import evaluating
from segmenter.model.segmenter import Segmenter

Part = Literal["encoder", "decoder"]
BAND = 2**20  # probabilities that are formed at once, 4 MB; larger bands take longer


@dataclass(frozen=True)
class Call:
    """One attention over the T tokens of a block; a block of differential attention makes two calls."""

    part: Part
    block: int
    """Counted from 0 in the encoder, and from 0 in the decoder."""
    patches: slice
    """Where the patches are among the tokens: in the encoder after the prefix, in the decoder before the classes."""
    query: Tensor
    key: Tensor
    value: Tensor
    """B heads T d each, as they enter the product."""
    mask: Tensor | None
    """Added to the products, of a shape that broadcasts to B heads T T; relative positions are such a mask."""
    scale: float
    """By which the products are multiplied."""
    output: Tensor
    """B heads T d, part of the graph if gradients are enabled: `torch.autograd.grad` gives the gradient at it."""

    def rows(self, tokens: slice | Sequence[int] | Tensor) -> Tensor:
        """The probabilities (B heads R T float32, each row sums to 1) with which R of the tokens attend to all."""
        with torch.autocast(self.query.device.type, enabled=False):
            # The few queries are scaled, not the many products.
            products = self.query[:, :, tokens].float() * self.scale @ self.key.float().mT  # B heads R T
        if self.mask is not None:
            products = products + self.mask.expand(*self.query.shape[:3], self.key.shape[2])[:, :, tokens]
        return products.softmax(-1)

    def bands(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows, in bands of at most BAND probabilities (at least one row): the tokens, and what `rows` gives."""
        batch, heads, tokens, _ = self.query.shape
        band = max(1, BAND // (batch * heads * self.key.shape[2]))
        for first in range(0, tokens, band):
            which = slice(first, min(first + band, tokens))
            yield which, self.rows(which)


@contextmanager
def capturing(model: Segmenter, see: Callable[[Call], None]) -> Iterator[Callable[[], TorchFunctionMode]]:
    """Within it, `see` gets each attention of the model once it is computed, in evaluation mode; results stay the same.

    >>> calls = []
    >>> with capturing(model, calls.append), torch.inference_mode():
    ...     model(images)
    >>> calls[0].rows([1])  # of the encoder's first block, the first patch behind the class token

    `see` may keep the calls (each holds four times its block's tokens) or read rows of them at once, which it must with
    relative positions, whose masks (heads x T x T) would all stay. Modules that attend unfused are fused in between.
    """
    current: list[tuple[Part, int]] = []

    def entering(place: tuple[Part, int], *_) -> None:
        current[:] = [place]

    found = [(("encoder", i), block) for i, block in enumerate(blocks_of(model, "encoder"))]
    found += [(("decoder", i), block) for i, block in enumerate(blocks_of(model, "decoder"))]
    fused = {module: module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")}
    hooks = [block.register_forward_pre_hook(partial(entering, place)) for place, block in found]
    try:
        for module in fused:
            module.fused_attn = True
        watching = partial(_Watching, model, current, see)
        with evaluating(model), watching():
            yield watching
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in fused.items():
            module.fused_attn = was


def blocks_of(model: Segmenter, part: Part) -> Sequence[nn.Module]:
    """The blocks with attention of the encoder, or of the decoder, which may have none."""
    return model.encoder.vit.blocks if part == "encoder" else getattr(model.decoder, "blocks", ())


def refuse_block(model: Segmenter, part: Part, block: int) -> None:
    """Refuses a block that the model has not.

    Raises:
        UserError: there is no such block in this part.
    """
    count = len(blocks_of(model, part))
    if not count:
        raise UserError(f"block is {block}, but the {model.recipe.decoder.name} decoder has no blocks with attention")
    if not 0 <= block < count:
        raise UserError(f"block is {block}, but the {part} has the blocks 0 to {count - 1}")


class _Watching(TorchFunctionMode):
    """Hands each attention to `see`, with the block that was entered last."""

    def __init__(self, model: Segmenter, current: list[tuple[Part, int]], see: Callable[[Call], None]):
        super().__init__()
        self.model, self.current, self.see = model, current, see

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        output = function(*arguments, **options)
        if function is F.scaled_dot_product_attention and self.current:
            self._attended(output, *arguments, **options)
        return output

    def _attended(
        self,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> None:
        """The arguments of torch's function; vision transformers are never causal, and nothing drops in evaluation."""
        part, block = self.current[0]
        if part == "encoder":
            patches = slice(self.model.encoder.prefix, query.shape[2])
        else:
            patches = slice(0, query.shape[2] - len(self.model.classes))
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        self.see(Call(part, block, patches, query, key, value, attn_mask, scale, output))
