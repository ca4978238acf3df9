"""SETR's three decoders: Naive, progressive upsampling (PUP) and multi-level feature aggregation (MLA).

Source: SETR, arXiv 2012.15840, section 3.2. Where the paper leaves something open, the authors' code and OpenMMLab's
differ: ours follows the authors' unless `decoder.variant` is openmmlab (docs/decoders.md lists the points). Both
enlarge features to the image inside the network. A 1 x 1 classifier commutes with a bilinear enlargement: ours comes
before the last one, which is left to `upsample`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmenter import config
from segmenter.model.decoders.convolution import convolution
from segmenter.model.decoders.decoder import Decoder, evenly, tapped
from segmenter.model.encoder import Encoder, Tokens

OPENMMLAB = "openmmlab"
NORM_EPS = 1e-6  # of the heads, in both implementations, whatever the encoder's


def as_map(norm: nn.LayerNorm, tokens: Tokens) -> Tensor:
    """Tokens (B N D on a grid h, w), normalised, to a feature map (B D h w)."""
    return norm(tokens.patches).mT.unflatten(2, tokens.grid)


def enlarged(features: Tensor, factor: int, align_corners: bool = False) -> Tensor:
    """Features (B C h w) to (B C h*factor w*factor), bilinear."""
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=align_corners)


def classifier(inputs: int, classes: int, kernel: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution to class logits, initialised near zero."""
    layer = nn.Conv2d(inputs, classes, kernel, padding=kernel // 2, bias=bias)
    nn.init.normal_(layer.weight, std=0.01)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class UpHead(nn.Module):
    """Convolutions with an enlargement by `factor` after each of them, then the classifier.

    The last enlargement is done here, on the logits, only if it does not reach the image's size; otherwise `upsample`
    does it together with the enlargement to the pixels.
    """

    def __init__(self, encoder: Encoder, width: int, classes: int, kernel: int, layers: int, factor: int):
        super().__init__()
        self.norm = nn.LayerNorm(encoder.width, eps=NORM_EPS)
        inputs = [encoder.width] + [width] * (layers - 1)
        self.convolutions = nn.ModuleList(convolution(channels, width, kernel) for channels in inputs)
        self.classify = classifier(width, classes)
        self.factor = factor
        self.last_factor = factor if factor**layers < encoder.patch_size else 1
        self.upscale = factor ** (layers - 1) * self.last_factor

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of a block (B N D on a grid h, w) to logits (B K h*upscale w*upscale)."""
        features = as_map(self.norm, tokens)  # B D h w
        for index, layer in enumerate(self.convolutions):
            features = layer(enlarged(features, self.factor) if index else features)  # B C, then larger each time
        logits = self.classify(features)
        return logits if self.last_factor == 1 else enlarged(logits, self.last_factor)


class _Up(Decoder):
    """Naive and PUP: a head on the last of the taps, auxiliary heads on the others.

    `head` and `auxiliary` are the number of convolutions and the enlargement after each; with `auxiliary_on_last` the
    last tap has an auxiliary head too.
    """

    def __init__(
        self,
        settings: config.SetrUp,
        encoder: Encoder,
        classes: int,
        kernel: int,
        head: tuple[int, int],
        auxiliary: tuple[int, int],
        auxiliary_on_last: bool = False,
    ):
        super().__init__()
        *others, last = encoder.taps
        self.taps = (last,)
        self.head = UpHead(encoder, settings.width, classes, kernel, *head)
        self.upscale = self.head.upscale
        if settings.auxiliary:
            self.auxiliary_taps = (*others, last) if auxiliary_on_last else tuple(others)
            self.auxiliary.extend(
                UpHead(encoder, settings.width, classes, kernel, *auxiliary) for _ in self.auxiliary_taps
            )
        self.class_dependent = tuple(name for name, _ in self.named_parameters() if "classify." in name)

    @classmethod
    def blocks_read(cls, settings: config.SetrUp, encoder: Encoder) -> tuple[int, ...]:
        """As published, 9, 14, 19 and 23 of 24 blocks, 4, 7, 9 and 11 of 12."""
        return tapped(settings, encoder.depth, evenly(encoder.depth, 5)[1:])

    def forward(self, levels: list[Tokens]) -> Tensor:
        """Tokens of the last tap (B N D on a grid h, w) to logits (B K h*upscale w*upscale)."""
        return self.head(levels[0])

    def forward_auxiliary(self, levels: list[Tokens]) -> list[Tensor]:
        """Tokens of all taps to the logits and those of each auxiliary head, on their grids."""
        main, *others = levels
        return [self.head(main), *(head(tokens) for head, tokens in zip(self.auxiliary, others, strict=True))]


class SetrNaive(_Up):
    """A convolution of 1 x 1 and the classifier; the original enlarges once, OpenMMLab by 4 and then to the image."""

    def __init__(self, settings: config.SetrUp, encoder: Encoder, classes: int):
        once = (1, encoder.patch_size)
        plans = ((1, 4), (settings.auxiliary_layers, 4)) if settings.variant == OPENMMLAB else (once, once)
        super().__init__(settings, encoder, classes, 1, *plans)


class SetrPup(_Up):
    """Convolutions of 3 x 3, each followed by an enlargement by 2, until the image's size is reached: 4 for 16 pixels.

    Where the patch size is not a power of two, the last enlargement goes straight to the image.
    """

    def __init__(self, settings: config.SetrUp, encoder: Encoder, classes: int):
        layers = max(1, math.ceil(math.log2(encoder.patch_size)))
        theirs = settings.variant == OPENMMLAB
        auxiliary = (settings.auxiliary_layers if theirs else 1, 4)
        super().__init__(settings, encoder, classes, 3, (layers, 2), auxiliary, auxiliary_on_last=not theirs)


class SetrMla(Decoder):
    """Four blocks' maps, summed from the deepest upward; each gets its own head, and all are classified together.

    The class token takes no part: it is left out before the first block.
    """

    prefix = False
    upscale = 4
    neck = ("norms.", "project.", "merge.")

    def __init__(self, settings: config.SetrMla, encoder: Encoder, classes: int):
        super().__init__()
        width, narrow = settings.width, settings.head_width or math.ceil(settings.width / 2)
        self.aligned = settings.variant != OPENMMLAB
        self.taps = encoder.taps
        self.norms = nn.ModuleList(nn.LayerNorm(encoder.width, eps=NORM_EPS) for _ in self.taps)
        self.project = nn.ModuleList(convolution(encoder.width, width, 1) for _ in self.taps)
        self.merge = nn.ModuleList(convolution(width, width, 3) for _ in self.taps)
        self.heads = nn.ModuleList(
            nn.Sequential(convolution(width, narrow, 3), convolution(narrow, narrow, 3)) for _ in self.taps
        )
        self.classify = classifier(len(self.taps) * narrow, classes, kernel=3 if self.aligned else 1)
        if settings.auxiliary:
            self.auxiliary.extend(classifier(width, classes, bias=not self.aligned) for _ in self.taps)
        names = (name for name, _ in self.named_parameters())
        self.class_dependent = tuple(name for name in names if name.startswith(("classify.", "auxiliary.")))

    @classmethod
    def blocks_read(cls, settings: config.SetrMla, encoder: Encoder) -> tuple[int, ...]:
        """As published, the last of each quarter of the blocks."""
        return tapped(settings, encoder.depth, evenly(encoder.depth, 4), count=4)

    def forward(self, levels: list[Tokens]) -> Tensor:
        """Tokens of four blocks (B N D on a grid h, w) to logits (B K 4h 4w)."""
        return self._logits(self._maps(levels))

    def forward_auxiliary(self, levels: list[Tokens]) -> list[Tensor]:
        """The same, followed by the logits (B K h w) of each block's map, from the first block to the last."""
        maps = self._maps(levels)
        return [self._logits(maps), *(classify(map_) for classify, map_ in zip(self.auxiliary, maps, strict=False))]

    def _maps(self, levels: list[Tokens]) -> list[Tensor]:
        """Tokens of each block to its map (B C h w), into which those of all deeper blocks have been summed."""
        total: Tensor | float = 0.0
        maps: list[Tensor] = []
        parts = list(zip(self.norms, self.project, self.merge, levels, strict=True))
        for norm, project, merge, tokens in reversed(parts):
            total = total + project(as_map(norm, tokens))  # B C h w
            maps.insert(0, merge(total))
        return maps

    def _logits(self, maps: list[Tensor]) -> Tensor:
        features = torch.cat([head(map_) for head, map_ in zip(self.heads, maps, strict=True)], 1)  # B 4C/2 h w
        if self.aligned:  # a classifier of 3 x 3, which does not commute
            return self.classify(enlarged(features, 4, align_corners=True))  # B K 4h 4w
        return enlarged(self.classify(features), 4)
