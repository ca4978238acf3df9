"""Depth as files and colours: 16-bit PNG with its scale inside, .npy, and a picture where near is bright."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import colormaps, get_data_path
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from segmenter import atomic
from segmenter.inference.depth import DepthResult
from segmenter.views.results import Write

METRIC_SCALE = 256.0  # of PNGs in metres, as KITTI's: steps of 4 mm up to 256 m
LARGEST = 65535
COLORS = colormaps["inferno"]
ENDS = (0.02, 0.98)  # quantiles that get the first and the last colour: a single near pixel must not darken the rest
TICKS = 5
BAND = 256  # rows that are turned into the numbers of a PNG together


def write_depth(result: DepthResult, path: Path, write: Write = atomic.write) -> dict[str, str | float]:
    """Writes the PNG at `path` and the .npy beside it; returns both, and the scale of the PNG.

    Value / scale is `result.depth`, rounded; 0 is left to what was not measured, as data sets have it. The scale of
    relative depth is that which gives the nearest pixel the largest value. It is the text `depth_scale` in the file.
    """
    depth, scale = result.depth, METRIC_SCALE
    if not result.metric:
        scale = LARGEST / float(depth.max()) if depth.max() > 0 else 1.0
    about = PngInfo()
    about.add_text("depth_scale", repr(scale))
    about.add_text("depth_kind", "depth" if result.metric else "inverse")
    values = np.empty(depth.shape, np.uint16)
    for top in range(0, len(depth), BAND):
        band = slice(top, top + BAND)
        values[band] = np.clip(np.rint(depth[band].astype(np.float64) * scale), 1, LARGEST)
    picture = Image.fromarray(values)
    write(path, lambda beside: picture.save(beside, format="PNG", pnginfo=about))
    array = path.with_name(f"{path.stem}.npy")
    write(array, lambda beside: _save_array(beside, result.depth))
    return {"depth": str(path), "array": str(array), "scale": scale}


def sampled_depth(result: DepthResult, rows: np.ndarray, columns: np.ndarray) -> DepthResult:
    """The result with depth (h w) at some of its rows and columns."""
    return replace(result, depth=result.depth[np.ix_(rows, columns)])


def describe_depth_files(written: list[dict[str, str | float]]) -> str:
    """What the numbers in files that `write_depth` wrote mean."""
    scales = {entry["scale"] for entry in written}
    meaning = "metres" if scales == {METRIC_SCALE} else "relative inverse depth"
    scale = f"{scales.pop():.6g}" if len(scales) == 1 else "its text depth_scale"
    return f" (PNG of 16 bits: value / {scale} = {meaning}; .npy)"


def depth_overlay(photo: Image.Image, result: DepthResult, opacity: float) -> Image.Image:
    """The colours over the photo."""
    return Image.blend(photo, depth_colors(result), opacity)


def depth_colors(result: DepthResult) -> Image.Image:
    """Inverse depth in colours, near ones bright."""
    low, high, inverse = _range(result)
    shades = np.clip((inverse - low) / (high - low), 0, 1)
    return Image.fromarray(COLORS(shades, bytes=True)[..., :3])


def depth_legend(result: DepthResult) -> Image.Image:
    """A white column with a bar of the colours and, at some of them, the depth in metres, or which end is near."""
    low, high, inverse = _range(result)
    texts = [f"{1 / value:.3g} m" for value in np.linspace(high, low, TICKS)] if result.metric else ["near", "far"]
    size = max(12, inverse.shape[0] // 24)
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    margin = size // 2
    height = max(inverse.shape[0], 2 * margin + 2 * size * len(texts))
    width = 3 * margin + size + round(max(font.getlength(text) for text in texts))
    legend = Image.new("RGB", (width, height), "white")
    rows = height - 2 * size
    bar = COLORS(np.linspace(1, 0, rows), bytes=True)[:, None, :3].repeat(size, 1)
    legend.paste(Image.fromarray(bar), (margin, size))
    draw = ImageDraw.Draw(legend)
    for text, top in zip(texts, np.linspace(size, size + rows, len(texts)), strict=True):
        draw.text((2 * margin + size, float(top)), text, fill="black", font=font, anchor="lm")
    return legend


def _range(result: DepthResult) -> tuple[float, float, np.ndarray]:
    """Inverse depth (H W) of the darkest and the brightest colour, and that of all pixels."""
    inverse = 1 / result.depth if result.metric else result.depth
    low, high = np.quantile(inverse, ENDS)
    return float(low), float(max(high, low + 1e-12)), inverse


def _save_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # to a path, np.save would add a suffix
        np.save(file, array)
