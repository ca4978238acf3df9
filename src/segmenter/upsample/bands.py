"""Pixel logits in bands of rows: the one loop that every operator on pixels shares, so that none holds K x H x W."""

from collections.abc import Iterator

import torch
from torch import Tensor

from segmenter.upsample.geometry import Geometry

# Elements of one band: 8 MB of float32 stay near the cache and are far below a photo's K x H x W.
BAND = 2_000_000


def check(logits: Tensor, geometry: Geometry) -> None:
    """Raises ValueError unless logits (B*windows K h w) fit the geometry."""
    if logits.ndim != 4 or tuple(logits.shape[-2:]) != geometry.grid or len(logits) % geometry.window_count:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit a grid of {geometry.grid} "
            f"with {geometry.window_count} windows an image"
        )


def bands(logits: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Tensor]]:
    """Logits of ONE image (windows K h w) to (rows, pixel logits K r W), band by band from the top."""
    height, width = geometry.size
    logits = logits.float()
    rows, columns = ([m.to(logits.device) for m in ms] for ms in (geometry.rows, geometry.columns))
    # A row of windows that does not touch a band is left out: its matrix is zero there.
    touched = [matrix.any(1) for matrix in rows]
    step = max(1, BAND // (logits.shape[1] * width))
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        total = torch.zeros(logits.shape[1], band.stop - band.start, width, device=logits.device)
        for i, row in enumerate(rows):
            if not touched[i][band].any():
                continue
            for j, column in enumerate(columns):
                cells = row[band] @ logits[i * len(columns) + j]  # K r w
                total += cells @ column.T  # K r W
        yield band, total
