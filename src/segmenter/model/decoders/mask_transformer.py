"""The mask transformer: class embeddings meet the patch tokens, and their cosine is the mask.

Source: Segmenter, arXiv 2105.05633, section 3.2, equation 4. As in the published code, a layer norm over the
classes follows the cosine, before the enlargement (the paper has no norm there).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmenter import config
from segmenter.errors import UserError
from segmenter.model.decoders.decoder import Decoder
from segmenter.model.encoder import Encoder, Tokens
from segmenter.model.timm_models import Block


class MaskTransformer(Decoder):
    """Class embeddings and patch tokens share a small transformer; their cosine is the mask."""

    class_dependent = ("class_embeddings", "mask_norm.weight", "mask_norm.bias")

    def __init__(self, settings: config.MaskTransformer, encoder: Encoder, classes: int):
        super().__init__()
        width = encoder.width
        self.project = nn.Linear(width, width)
        self.class_embeddings = nn.Parameter(torch.empty(1, classes, width))
        rates = torch.linspace(0, settings.drop_path, settings.layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(_block(width, settings, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        # Right-multiplied matrices, as published: y = x M, not x M^T.
        self.project_patches = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.project_classes = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.mask_norm = nn.LayerNorm(classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_embeddings, std=0.02)

    def forward(self, levels: list[Tokens]) -> Tensor:
        """The encoder's last tokens (B N D on a grid h, w) to logits (B K h w)."""
        patches, embeddings = self.compared(levels)
        logits = self.mask_norm(patches @ embeddings.mT)  # B N K
        return logits.mT.unflatten(2, levels[0].grid)  # B K h w

    def compared(self, levels: list[Tokens]) -> tuple[Tensor, Tensor]:
        """The encoder's last tokens to patches (B N D) and class embeddings (B K D) of length 1, after the blocks."""
        ((patches, _, grid),) = levels
        classes = self.class_embeddings.shape[1]
        tokens = self.project(patches)  # B N D
        tokens = torch.cat([tokens, self.class_embeddings.expand(len(tokens), -1, -1)], 1)  # B N+K D
        for block in self.blocks:
            tokens = block(tokens)
        patches, embeddings = self.norm(tokens).split([math.prod(grid), classes], 1)
        patches = F.normalize(patches @ self.project_patches, dim=-1)  # B N D
        embeddings = F.normalize(embeddings @ self.project_classes, dim=-1)  # B K D
        return patches, embeddings

    def class_vectors(self) -> Tensor:
        """The class embeddings before the blocks (K D)."""
        return self.class_embeddings[0]


def _block(width: int, settings: config.MaskTransformer, drop_path: float) -> nn.Module:
    """timm's pre-norm block, with norms of eps 1e-5 and heads of 64 features as published.

    Where 64 does not divide the width, as in no published model, the heads are the next larger size that does.
    """
    heads = settings.heads or next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
    if heads < 1 or width % heads:
        raise UserError(f"decoder.heads is {heads}, which does not divide the {width} features of the encoder")
    return Block(
        width,
        num_heads=heads,
        qkv_bias=True,
        proj_drop=settings.dropout,
        attn_drop=settings.dropout,
        drop_path=drop_path,
        norm_layer=nn.LayerNorm,
    )
