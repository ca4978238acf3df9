"""From grid logits to labels: the argmax over classes at every pixel."""

import torch
from torch import Tensor

from segmenter.upsample.bands import bands, check
from segmenter.upsample.geometry import Geometry


def labels(logits: Tensor, geometry: Geometry) -> Tensor:
    """Logits (B*windows K h w) to labels (B H W int64); the first class wins a tie."""
    check(logits, geometry)
    images = logits.unflatten(0, (-1, geometry.window_count))
    result = torch.empty(len(images), *geometry.size, dtype=torch.int64, device=logits.device)
    for image, out in zip(images, result, strict=True):
        for rows, pixels in bands(image, geometry):
            out[rows] = pixels.argmax(0)
    return result
