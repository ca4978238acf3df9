"""Positions of patches as pictures: their first values, and how they are resampled to another grid.

Source: Better plain ViT baselines, arXiv 2205.01580, for the first values; Segmenter, arXiv 2105.05633, section 3.1,
for resampling (bilinear; OpenMMLab's is bicubic, and timm's bicubic with antialias, which has another kernel too).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def waves(grid: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines of row and column (h w, width): first positions of a model that is trained from nothing.

    Random positions leave attention blind to place until they are learnt.
    """
    speeds = 100 ** -(torch.arange(width // 4) / (width // 4))  # the slowest turns once in about 600 patches
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).T  # 2 N
    angles = places[..., None] * speeds  # 2 N width/4
    return torch.cat([*angles.sin(), *angles.cos()], -1)


def resample(image: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    """A picture (1 C h w) to another size; `kind` as in encoder.position_resize."""
    antialias = kind == "antialias"
    mode = "bicubic" if antialias else kind
    return F.interpolate(image, size, mode=mode, align_corners=False, antialias=antialias)
