"""What every decoder has in common: which tokens it reads, and how its logits lie on the pixels."""

import math

from torch import Tensor, nn

from segmenter import config, upsample
from segmenter.errors import UserError
from segmenter.model.encoder import Encoder, Tokens
from segmenter.upsample.geometry import Size


class Decoder(nn.Module):
    """Tokens of some encoder blocks to logits on the decoder's grid. Constructed with (settings, encoder, classes)."""

    taps: tuple[int, ...] = ()
    """Blocks whose tokens it reads (0-based, without final norm); empty: the last block, after the final norm."""
    auxiliary_taps: tuple[int, ...] = ()
    """Further blocks that its auxiliary decoders read in training."""
    stages: tuple[int, ...] = ()
    """Stages of a hybrid encoder's stem that it reads before the blocks of `taps`."""
    prefix: bool = True
    """Whether the class token and other prefix tokens take part in the encoder."""
    upscale: int = 1
    """Cells of the logits along each side of a token."""
    align_corners: bool = False
    """How the logits are enlarged to pixels, as in torch's interpolate."""
    neck: tuple[str, ...] = ()
    """Prefixes of the names of parameters that learn at the encoder's rate where heads learn faster."""
    class_dependent: tuple[str, ...] = ()
    """Names of the tensors whose shape depends on the number of classes."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.ModuleList()

    @classmethod
    def blocks_read(cls, settings: config.Decoder, encoder: Encoder) -> tuple[int, ...]:
        """All blocks (0-based) that it and its auxiliary decoders read; empty: the last one, after the final norm.

        The encoder is still under construction: only its sizes are known.

        Raises:
            UserError: `decoder.taps` does not fit the encoder.
        """
        return ()

    def forward(self, levels: list[Tokens]) -> Tensor:
        """Tokens of `taps` to logits (B K h w)."""
        raise NotImplementedError

    def forward_auxiliary(self, levels: list[Tokens]) -> list[Tensor]:
        """Tokens of `taps` and `auxiliary_taps` to the logits and those of each auxiliary decoder, on their grids."""
        return [self(levels)]

    def class_vectors(self) -> Tensor:
        """What stands for each class in the weights (K D): its embedding, or its row of the last classifier.

        A decoder without classes has no `class_dependent` weights, and no class vectors.
        """
        name = next(name for name in self.class_dependent if not name.startswith("auxiliary."))
        return self.get_parameter(name).flatten(1)

    def geometry(self, grid: Size, patch_size: int, size: Size) -> upsample.Geometry:
        """How the logits of images of `size` (H, W), which have `grid` (h, w) tokens, lie on their pixels."""
        cells, extent = (tuple(side * factor for side in grid) for factor in (self.upscale, patch_size))
        return upsample.Geometry(cells, extent, size, align_corners=self.align_corners)


def evenly(depth: int, parts: int) -> tuple[int, ...]:
    """The last block of each of `parts` equal parts of an encoder: 5, 11, 17 and 23 of 24 blocks."""
    return tuple(math.ceil(depth * part / parts) - 1 for part in range(1, parts + 1))


def tapped(
    settings: config.SetrUp | config.SetrMla | config.Dpt | config.DptDepth,
    depth: int,
    published: tuple[int, ...],
    count: int | None = None,
) -> tuple[int, ...]:
    """The blocks that a decoder reads: those of `decoder.taps`, or else the published ones.

    Raises:
        UserError: a block is beyond the encoder's depth, the blocks are out of order, or there are not `count` of them.
    """
    taps, words = settings.taps or published, " ".join(map(str, settings.taps))
    if count is not None and len(taps) != count:
        raise UserError(f"decoder.taps is {words}, but {settings.name} reads {count} blocks; write {count}, or none")
    if not all(0 <= tap < depth for tap in taps):
        raise UserError(f"decoder.taps is {words}, but the encoder has the blocks 0 to {depth - 1}")
    if list(taps) != sorted(taps):
        raise UserError(f"decoder.taps is {words}; write the blocks from the first to the last")
    return tuple(taps)
