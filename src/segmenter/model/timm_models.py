"""timm, imported behind the torchvision guard: timm imports torchvision, and nothing else here imports timm."""

from segmenter import torchvision_guard  # noqa: F401  (must come first)

# isort: split
import timm
from timm.layers import HybridEmbed, PatchEmbed, resample_patch_embed
from timm.models.beit import Beit, gen_relative_position_index
from timm.models.eva import Eva
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import Block, VisionTransformer

__all__ = [
    "Beit",
    "Block",
    "Eva",
    "HybridEmbed",
    "PatchEmbed",
    "ResNetV2",
    "VisionTransformer",
    "gen_relative_position_index",
    "resample_patch_embed",
    "timm",
]
