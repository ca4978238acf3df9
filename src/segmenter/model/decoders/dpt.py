"""DPT: tokens of four blocks become maps at four scales, which residual units fuse from the coarsest to the finest.

Source: Vision transformers for dense prediction, arXiv 2103.13413, section 3.1 and appendix A. Any height and width:
where a level has an odd side, the doubled coarser level is one cell larger; published code fails there or stretches
the level, ours cuts the doubled one. Enlargements sample cell centres (align_corners false; published: true), so that
a cell means the same place in an image of any size. Published variants keep their own details: `DETAILS`.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from segmenter import config, upsample
from segmenter.errors import UserError
from segmenter.model.decoders.convolution import BatchNorm
from segmenter.model.decoders.decoder import Decoder, evenly, tapped
from segmenter.model.encoder import Encoder, Tokens
from segmenter.upsample.geometry import Size

SCALES = (4, 2, 1, 0.5)  # cells along each side of a token: the maps of four levels, finest first


class Details(NamedTuple):
    """The points in which implementations differ."""

    align_corners: bool
    """Of the enlargements between the levels."""
    pixels_align_corners: bool
    """Of the enlargement of the logits to the pixels."""
    stretched: bool
    """A level that is smaller than twice the one above it is stretched to that; else the doubled one is cut."""
    deepest_unit: bool
    """The coarsest level has a residual unit for a coarser level, though there is none."""
    auxiliary_level: int
    """The fusion whose output the auxiliary decoder reads, 0 the finest; in the paper 1."""


DETAILS = {
    "own": Details(False, False, False, False, 1),
    "original": Details(True, True, False, False, 1),
    "openmmlab": Details(True, False, True, False, 0),
    "huggingface": Details(True, True, True, False, 0),
    "smp": Details(True, True, False, True, 0),
}


class _Pyramid(Decoder):
    """What the decoders for labels and for depth share: the maps of four levels and their fusion."""

    def __init__(self, settings: config.Dpt | config.DptDepth, encoder: Encoder):
        super().__init__()
        self.details = DETAILS[settings.variant]
        self.stages = _stages(encoder)
        self.taps = encoder.taps
        published = _widths(encoder, self.stages)
        widths = settings.widths or published
        if len(widths) != len(SCALES) or any(width < 1 for width in widths):
            raise UserError(f"decoder.widths is {widths}; DPT has {len(SCALES)} levels, finest first")
        if (fixed := published[: len(self.stages)]) != widths[: len(self.stages)]:
            raise UserError(f"decoder.widths is {widths}; the encoder's ResNet has {fixed} channels, write those first")
        _refuse_readout(settings, encoder)
        levels: list[nn.Module] = [_Map() for _ in self.stages]
        for width, scale in list(zip(widths, SCALES, strict=True))[len(levels) :]:
            levels.append(Reassemble(encoder.width, width, scale, settings.readout))
        self.reassemble = nn.ModuleList(levels)
        self.narrow = nn.ModuleList(nn.Conv2d(width, settings.width, 3, padding=1, bias=False) for width in widths)
        deepest = len(SCALES) - 1
        self.fusion = nn.ModuleList(
            Fusion(settings.width, settings.norm, settings.bias, above=level < deepest or self.details.deepest_unit)
            for level in range(len(SCALES))
        )

    @classmethod
    def blocks_read(cls, settings: config.Dpt | config.DptDepth, encoder: Encoder) -> tuple[int, ...]:
        """As published, the last of each quarter of the blocks; on hybrids, two fewer."""
        count = len(SCALES) - len(_stages(encoder))
        return tapped(settings, encoder.depth, evenly(encoder.depth, len(SCALES))[-count:], count)

    def fuse(self, levels: list[Tokens]) -> list[Tensor]:
        """Tokens of the levels to the output of each fusion, finest first: B C, 8, 4, 2 and 1 cells a token."""
        maps = [self.narrow[i](self.reassemble[i](tokens)) for i, tokens in enumerate(levels)]
        fused: list[Tensor] = []
        for level, fusion in reversed(list(zip(maps, self.fusion, strict=True))):
            above = fused[0] if fused else None
            if above is not None and self.details.stretched:
                level = _resized(level, above.shape[-2:])
            elif above is not None:
                above = above[..., : level.shape[-2], : level.shape[-1]]
            # Fusion ends in a convolution of 1 x 1. It commutes with the enlargement; before it, it costs a quarter.
            doubled = F.interpolate(
                fusion(level, above), scale_factor=2, mode="bilinear", align_corners=self.details.align_corners
            )
            fused.insert(0, doubled)
        return fused

    def geometry(self, grid: Size, patch_size: int, size: Size) -> upsample.Geometry:
        """As for every decoder; where odd sides are stretched, the cells of one more token lie on the same pixels."""
        tokens = tuple(side + side % 2 for side in grid) if self.details.stretched else grid
        cells, extent = tuple(side * self.upscale for side in tokens), tuple(side * patch_size for side in grid)
        return upsample.Geometry(cells, extent, size, align_corners=self.align_corners)


class Dpt(_Pyramid):
    """DPT for labels: class logits at 8 cells a token."""

    upscale = 8

    def __init__(self, settings: config.Dpt, encoder: Encoder, classes: int):
        super().__init__(settings, encoder)
        self.align_corners = self.details.pixels_align_corners
        self.head = _label_head(settings, classes)
        dependent = ["head.4.weight", "head.4.bias"]
        if settings.auxiliary > 0:
            self.auxiliary.append(_label_head(settings, classes))
            dependent += [f"auxiliary.0.{name.removeprefix('head.')}" for name in dependent]
        self.class_dependent = tuple(dependent)

    def forward(self, levels: list[Tokens]) -> Tensor:
        """Tokens of four levels to logits (B K 8h 8w), or twice that where `geometry` cannot express the doubling."""
        return self._enlarged(self.head(self.fuse(levels)[0]), levels[-1].grid)

    def forward_auxiliary(self, levels: list[Tokens]) -> list[Tensor]:
        """The logits, and those of the auxiliary decoder (B K 4h 4w; B K 8h 8w in some published variants)."""
        fused = self.fuse(levels)
        main = self._enlarged(self.head(fused[0]), levels[-1].grid)
        return [main, *(head(fused[self.details.auxiliary_level]) for head in self.auxiliary)]

    def geometry(self, grid: Size, patch_size: int, size: Size) -> upsample.Geometry:
        """As for every decoder, unless the logits have already been doubled."""
        plain = super().geometry(grid, patch_size, size)
        if not self._enlarges_twice(grid):
            return plain
        return upsample.Geometry(tuple(2 * side for side in plain.grid), plain.extent, size)

    def _enlarged(self, logits: Tensor, grid: Size) -> Tensor:
        if not self._enlarges_twice(grid):
            return logits
        return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)

    def _enlarges_twice(self, grid: Size) -> bool:
        """Whether the doubled logits must be computed: those of Hugging Face's variant extend beyond an odd grid."""
        return self.align_corners and self.details.stretched and any(side % 2 for side in grid)


class DptDepth(_Pyramid):
    """DPT for depth: one channel of relative inverse depth at 16 cells a token. Classes play no part.

    For patches of 8 pixels or less ours has 8 cells: with cells finer than the pixels, the head would cost more than
    all the rest. Published variants always have 16.
    """

    def __init__(self, settings: config.DptDepth, encoder: Encoder, classes: int):
        super().__init__(settings, encoder)
        self.upscale = 8 if encoder.patch_size <= 8 and settings.variant == "own" else 16
        width, half = settings.width, max(1, settings.width // 2)
        doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=self.details.align_corners)
        self.head = nn.Sequential(
            nn.Conv2d(width, half, 3, padding=1),
            doubled if self.upscale == 16 else nn.Identity(),
            nn.Conv2d(half, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
            nn.ReLU() if settings.non_negative else nn.Identity(),
        )
        # Initialised around 0 as usual, the last ReLU could zero every pixel, and with it every gradient.
        nn.init.ones_(self.head[4].bias)

    def forward(self, levels: list[Tokens]) -> Tensor:
        """Tokens of four levels to inverse depth up to scale and shift (B 1 16h 16w, or 8h 8w)."""
        return self.head(self.fuse(levels)[0])


class Reassemble(nn.Module):
    """Tokens of one block to a map with more or fewer cells: readout, projection, resampling."""

    def __init__(self, width: int, channels: int, scale: float, readout: str):
        super().__init__()
        self.readout = nn.Linear(2 * width, width) if readout == "project" else None
        self.add = readout == "add"
        self.project = nn.Conv2d(width, channels, 1)
        if scale > 1:
            self.resample: nn.Module = nn.ConvTranspose2d(channels, channels, int(scale), int(scale))
        elif scale < 1:
            self.resample = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        else:
            self.resample = nn.Identity()

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens on a grid (h, w) to a map (B C h*scale w*scale, rounded up)."""
        patches, prefix, grid = tokens
        if self.add:
            patches = patches + prefix.mean(1, keepdim=True)
        elif self.readout is not None:
            # One matrix on [patch, class token]; the class token's half is the same for every patch.
            left, right = self.readout.weight.chunk(2, 1)
            patches = F.gelu(F.linear(patches, left) + F.linear(prefix[:, :1], right, self.readout.bias))  # B N D
        return self.resample(self.project(patches.mT.unflatten(2, grid)))


class _Map(nn.Module):
    """A stage of a hybrid encoder's stem, which is a map already."""

    def forward(self, tokens: Tokens) -> Tensor:
        return tokens.patches.mT.unflatten(2, tokens.grid)


class Fusion(nn.Module):
    """A level joined with the fused coarser levels, those above it."""

    def __init__(self, width: int, norm: bool, bias: bool, above: bool):
        super().__init__()
        self.level_unit = ResidualUnit(width, norm, bias) if above else nn.Identity()
        self.unit = ResidualUnit(width, norm, bias)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, level: Tensor, above: Tensor | None) -> Tensor:
        """Two maps of one shape (B C h w), the second None at the coarsest level, to one."""
        level = self.level_unit(level)
        return self.project(self.unit(level if above is None else above + level))


class ResidualUnit(nn.Module):
    """Two convolutions, each after a ReLU, beside the identity."""

    def __init__(self, width: int, norm: bool, bias: bool):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=bias) for _ in range(2))
        self.norm1, self.norm2 = (BatchNorm(width) if norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """A map (B C h w) to one of the same shape."""
        return x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(F.relu(x))))))


def _label_head(settings: config.Dpt, classes: int) -> nn.Sequential:
    width = settings.width
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        BatchNorm(width),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Conv2d(width, classes, 1),
    )


def _resized(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False) if x.shape[-2:] != size else x


def _stages(encoder: Encoder) -> tuple[int, ...]:
    """The stages of a hybrid encoder's stem with the resolution of the two finest levels; else empty."""
    strides = [stage.stride for stage in encoder.stages]
    wanted = [encoder.patch_size // int(scale) for scale in SCALES[:2]]
    return tuple(strides.index(stride) for stride in wanted) if set(wanted) <= set(strides) else ()


def _widths(encoder: Encoder, stages: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of the levels as published for widths of 768 and 1024; for other widths in the proportions of 768."""
    if stages:
        return (*(encoder.stages[stage].width for stage in stages), encoder.width, encoder.width)
    if encoder.width == 1024:
        return 256, 512, 1024, 1024
    return tuple(max(1, encoder.width // part) for part in (8, 4, 2, 1))


def _refuse_readout(settings: config.Dpt | config.DptDepth, encoder: Encoder) -> None:
    if settings.readout != "ignore" and not encoder.has_class_token:
        raise UserError(
            f"decoder.readout is {settings.readout!r}, which needs a class token, and {encoder.settings.name} has "
            "none; write decoder.readout: ignore"
        )
