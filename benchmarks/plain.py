"""The formulation that ours is measured against, in plain torch: every class at every pixel, as libraries do it.

`Plain` is a timm ViT with a mask transformer of its own and takes over a model's weights, so that both can be seen to
answer alike; the rest works on any network's logits.
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmenter import upsample
from segmenter.errors import UserError
from segmenter.inference.passes import at_scales
from segmenter.inference.windows import windows_of
from segmenter.model.segmenter import Segmenter
from segmenter.model.timm_models import Block, timm


class Plain(nn.Module):
    """Normalised images (B 3 H W) of the crop's size to labels (B H W): ViT, mask transformer, interpolate, softmax.

    Raises:
        UserError: the model is no ViT with a mask transformer.
    """

    def __init__(self, model: Segmenter):
        super().__init__()
        recipe = model.recipe
        if recipe.decoder.name != "mask_transformer" or model.encoder.prefix != 1:
            raise UserError("--model is no ViT with a class token and a mask transformer, which this is a copy of")
        width, classes, size = model.encoder.width, len(model.classes), recipe.augment.crop
        trained = model.encoder.vit
        sizes = {"img_size": size, "patch_size": model.encoder.patch_size, "depth": model.encoder.depth}
        sizes |= {"embed_dim": width, "num_heads": trained.blocks[0].attn.num_heads}
        self.vit = timm.create_model(recipe.encoder.name, num_classes=0, global_pool="", **sizes)
        for norm in (module for module in self.vit.modules() if isinstance(module, nn.LayerNorm)):
            norm.eps = trained.blocks[0].norm1.eps
        self.project = nn.Linear(width, width)
        self.class_embeddings = nn.Parameter(torch.empty(1, classes, width))
        blocks = (Block(width, b.attn.num_heads, qkv_bias=True, norm_layer=nn.LayerNorm) for b in model.decoder.blocks)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.project_patches = nn.Parameter(torch.empty(width, width))
        self.project_classes = nn.Parameter(torch.empty(width, width))
        self.mask_norm = nn.LayerNorm(classes)
        self.grid = model.encoder.grid(*size)
        state = {f"vit.{name}": tensor for name, tensor in trained.state_dict().items()}
        state |= {f"vit.norm.{name}": tensor for name, tensor in model.encoder.norm.state_dict().items()}
        self.load_state_dict(state | model.decoder.state_dict())

    def logits(self, images: Tensor) -> Tensor:
        """Images to logits (B K h w)."""
        patches = self.vit.forward_features(images)[:, 1:]
        classes = self.class_embeddings.expand(len(images), -1, -1)
        tokens = self.norm(self.blocks(torch.cat([self.project(patches), classes], 1)))
        patches, classes = tokens.split([patches.shape[1], classes.shape[1]], 1)
        patches = F.normalize(patches @ self.project_patches, dim=-1)
        classes = F.normalize(classes @ self.project_classes, dim=-1)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # B N K
        return masks.transpose(1, 2).reshape(len(images), -1, *self.grid)

    def forward(self, images: Tensor) -> Tensor:
        logits = F.interpolate(self.logits(images), images.shape[-2:], mode="bilinear", align_corners=False)
        return logits.softmax(1).argmax(1)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B K h w) and labels (B H W, 255: ignore) to torch's loss."""
    logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=255)


Pass = tuple[list[Tensor], upsample.Geometry, bool]
"""Logits (K h w) of every window, how they lie on the scaled image, whether that is mirrored."""


@torch.inference_mode()
def network(model: Segmenter, image: np.ndarray) -> list[Pass]:
    """An image (H W 3 uint8) at six scales, straight and mirrored, to the logits of every window."""
    passes, settings = [], model.recipe.inference
    for small in at_scales(image, model.recipe.augment, native=True):
        for mirrored in (False, True):
            crops, geometry = windows_of(model, small.flip(-1) if mirrored else small, settings)
            parts = [torch.stack(crops[i : i + settings.batch]) for i in range(0, len(crops), settings.batch)]
            passes.append(([one for part in parts for one in model(model.normalize(part))], geometry, mirrored))
    return passes


@torch.inference_mode()
def labels_of_passes(passes: list[Pass], size: tuple[int, int]) -> Tensor:
    """As the published Segmenter does it: passes to labels (H W) by way of maps of every class at every pixel."""
    total = 0
    for logits, geometry, mirrored in passes:
        (height, width), (rows, columns) = geometry.window_size, geometry.windows
        canvas = (max(rows) + height, max(columns) + width)
        scores, count = torch.zeros(len(logits[0]), *canvas), torch.zeros(canvas)
        for one, (y, x) in zip(logits, itertools.product(rows, columns), strict=True):
            full = F.interpolate(one[None], geometry.extent, mode="bilinear", align_corners=geometry.align_corners)
            scores[:, y : y + height, x : x + width] += full[0, :, :height, :width]
            count[y : y + height, x : x + width] += 1
        full = F.interpolate((scores / count)[None], size, mode="bilinear", align_corners=False)[0]
        total = total + (full.flip(-1) if mirrored else full).softmax(0)
    return (total / len(passes)).argmax(0)
