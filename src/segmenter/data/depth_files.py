"""Depth maps from files: PNG of whole numbers, .npy and .npz, all to inverse depth in 1 / metre.

Inverse depth is what the losses compare and what stereo measures; infinitely far is 0 in it. Zero, NaN and infinity
in a file all mean that nothing was measured there, as the published data sets have it.
"""

import math
import stat
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from segmenter import config
from segmenter.data.files import BROKEN, GREY_16, open_picture, unreadable
from segmenter.errors import UserError

# All that numpy, on a header that is no Python, and zipfile were seen to raise besides; NotImplementedError is one.
BROKEN_ARRAYS = (zipfile.BadZipFile, zlib.error, RuntimeError, tokenize.TokenError)
MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # as Pillow has it for pictures


class ScaleMissing(UserError):
    """The map holds whole numbers, and their scale is not stated."""


def read_inverse_depth(path: str | Path, settings: config.Data) -> np.ndarray:
    """Inverse depth (H W float32, 1 / metre) of a depth map; NaN where nothing was measured.

    `settings.depth_scale` is the number that means one metre (1 / metre where `settings.depth_kind` is inverse).

    Raises:
        UserError: the file cannot be read, is no map of one number a pixel, holds whole numbers and no scale is
            stated, or holds negative numbers or no measurement at all.
    """
    stored = _read(Path(path))
    if settings.depth_scale <= 0 and stored.dtype.kind in "iu":
        raise ScaleMissing(
            f"{path} holds whole numbers, and it is not stated which one means one metre; write it, for example "
            "--data.depth-scale 1000 for millimetres or 256 as in KITTI"
        )
    values = stored.astype(np.float64) / (settings.depth_scale or 1.0)
    measured = np.isfinite(values) & (values != 0)
    if (values[measured] < 0).any():
        least = stored[measured].min()
        raise UserError(f"{path} holds {least:g}, but depth is positive; write 0 or NaN where nothing was measured")
    inverse = np.full(values.shape, np.nan, np.float32)
    with np.errstate(over="ignore"):
        inverse[measured] = values[measured] if settings.depth_kind == "inverse" else 1 / values[measured]
    inverse[np.isinf(inverse)] = np.nan  # nearer than float32 can say
    if np.isnan(inverse).all():
        raise UserError(f"{path} holds no measurement, only zeros, NaN or infinity; remove it and its image")
    return inverse


def _read(path: Path) -> np.ndarray:
    """The numbers of a file (H W, integers or floats)."""
    suffix = path.suffix.lower()
    if suffix == ".exr":
        raise UserError(f"{path} is OpenEXR, which nothing that is installed here reads; save its numbers as .npy")
    stored = _read_png(path) if suffix == ".png" else _read_array(path)
    flat = stored
    if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[2]):
        flat = stored.squeeze(0 if stored.shape[0] == 1 else 2)
    if flat.ndim != 2 or not flat.size or flat.dtype.kind not in "iuf":
        raise UserError(
            f"{path} holds {stored.dtype} of shape {stored.shape}; a depth map has one number for every pixel: "
            "(height, width)"
        )
    return flat


def _read_png(path: Path) -> np.ndarray:
    image = open_picture(path, upright=False)
    if image.mode not in (*GREY_16, "I", "L"):
        raise UserError(
            f"{path} is a picture of the kind {image.mode!r}, not a depth map: it needs one channel, as in a grey PNG "
            "of 16 bits; a depth map drawn in colours cannot be turned back"
        )
    return np.array(image).astype(np.int32)


def _read_array(path: Path) -> np.ndarray:
    """The one array of a .npy or .npz file; the size it claims is compared with the file before memory is taken."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is a pipe or a device")
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if not start.startswith(b"PK"):
                return _array(file, path.stat().st_size)
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
                if len(parts) == 1:
                    with archive.open(parts[0]) as part:
                        return _array(part, parts[0].file_size)
    except (*BROKEN, *BROKEN_ARRAYS) as error:
        raise unreadable(path, error) from None
    names = ", ".join(part.filename.removesuffix(".npy") for part in parts[:5])
    raise UserError(f"{path} holds {len(parts)} arrays ({names}); keep the one with the depth")


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """The array of `size` bytes, its header counted, in numpy's format."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"an array of format {version}")
    shape, fortran, kind = header(file)
    count = math.prod(shape)
    if kind.hasobject:
        raise ValueError("it holds Python objects; save the numbers with allow_pickle=False")
    if kind.fields or kind.subdtype:
        raise ValueError("it holds no plain numbers")
    if count > MOST_PIXELS:
        raise ValueError(f"it says that it holds {count} numbers; a map has at most {MOST_PIXELS}")
    if count * kind.itemsize > size - file.tell():
        raise ValueError(f"it says that it holds {count} numbers, in {size} bytes")
    array = np.frombuffer(file.read(count * kind.itemsize), kind, count)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
