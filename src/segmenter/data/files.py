"""Pictures and masks from files, with nothing changed in silence: what cannot be read exactly is refused.

A picture becomes RGB, 8 bits, upright (EXIF); transparency is dropped. A mask keeps its stored numbers
(palette indices, not their colours) and is never turned: it has to fit the upright picture.
"""

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segmenter.data.classes import Classes
from segmenter.errors import UserError, cleaned

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow tries no others, whatever a file is called: for some it starts programs (PostScript: Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
SAMPLES_PER_PIXEL = 277  # TIFF tag
# All that Pillow's decoders were seen to raise on broken files.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, AttributeError, ArithmeticError,
    MemoryError,
)  # fmt: skip


def read_image(path: str | Path) -> np.ndarray:
    """The picture as RGB (H W 3, uint8), upright; of an animation the first frame.

    Grey, palette, CMYK and 1-bit pictures become RGB, transparency is dropped, 16-bit grey is divided by 257.

    Raises:
        UserError: the file is missing, broken, no picture, or has channels that are not a colour picture's.
    """
    image = open_picture(path)
    if _is_grey_16(image):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)  # H W 3
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise UserError(
            f"{path} has pixels of the kind {image.mode!r}, which is neither grey (8 or 16 bits) nor RGB; "
            "save it as an 8-bit RGB picture"
        )
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which copies in any case


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture, from its header alone.

    Raises:
        UserError: the file is missing, empty or no picture.
    """
    try:
        with _opened(path) as image:
            width, height = image.size
            # Pillow turns TIFF itself; only an "exif" entry (JPEG, PNG, WebP) is ours to apply.
            turned = "exif" in image.info and image.getexif().get(ORIENTATION) in TRANSPOSED
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from None
    return (width, height) if turned else (height, width)


def read_values(path: str | Path, by_color: bool = False) -> np.ndarray:
    """The stored numbers of a mask, H W (uint8, or int32 above 8 bits); with `by_color` its colours, H W 3.

    An RGB mask whose three channels are equal counts as grey.

    Raises:
        UserError: the file is missing, broken, no picture, or a colour picture where values are wanted.
    """
    image = open_picture(path, upright=False)
    kind = str(image.info.get("stored", ""))  # as the file has it, before Pillow widened or narrowed it
    if ";16B" in kind and image.mode in ("LA", "RGB", "RGBA"):
        raise UserError(f"{path} is a mask with several channels of 16 bits; save it with one channel, as grey")
    if by_color and image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return np.array(image.convert("RGB"))
    if image.mode in ("L", "P", "1"):
        scale = {"L;2": 85, "L;4": 17}.get(kind, 1)  # Pillow stretches grey of 2 and 4 bits to 0..255
        return np.array(image).astype(np.uint8) // np.uint8(scale)
    if image.mode in ("LA", "PA"):
        return np.array(image)[..., 0]
    if image.mode in GREY_16 or image.mode == "I":
        return np.array(image).astype(np.int32)
    if image.mode in ("RGB", "RGBA"):
        channels = np.array(image)[..., :3]  # H W 3
        if (channels == channels[..., :1]).all():
            return channels[..., 0]
        raise UserError(
            f"{path} is a colour picture, but masks hold class ids; if its colours are the classes, write "
            "`masks: colors` and each class's color in classes.yaml"
        )
    raise UserError(f"{path} has pixels of the kind {image.mode!r}; save the mask as 8-bit grey of class ids")


def read_mask(path: str | Path, classes: Classes) -> np.ndarray:
    """Labels (H W, uint8, or uint16 above 255 classes) of a mask file.

    Raises:
        UserError: as `read_values` and `Classes.decode`.
    """
    return classes.decode(read_values(path, classes.by_color), path)


def read_palette(path: str | Path) -> list[tuple[int, int, int]]:
    """Colours of a palette file, in the order of the indices; empty where it has none."""
    image = open_picture(path, upright=False)
    flat = image.getpalette("RGB") or []
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def open_picture(path: str | Path, upright: bool = True) -> Image.Image:
    """The decoded first frame; `info["stored"]` names how the file keeps its numbers.

    Raises:
        UserError: the file is missing, broken or no picture, or has channels that Pillow would drop.
    """
    try:
        with _opened(path) as image:
            stored = image.tile[0][3] if image.format == "PNG" and image.tile else ""
            image.load()
            bands = len(image.getbands())
            stored_bands = image.tag_v2.get(SAMPLES_PER_PIXEL, 1) if image.format == "TIFF" else bands
            if upright and "exif" in image.info:
                ImageOps.exif_transpose(image, in_place=True)
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from None
    if stored_bands > bands:  # Pillow would drop the rest
        raise UserError(f"{path} has {stored_bands} channels, of which {bands} can be used; save it as an RGB picture")
    image.info["stored"] = stored
    return image


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """A picture of one of the known formats, from a regular file: to open a pipe would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is a pipe or a device")
    with Image.open(path, formats=FORMATS) as image:
        yield image


def _is_grey_16(image: Image.Image) -> bool:
    # Older Pillow opens PNG of 16 bits as "I"; no PNG has more bits. Other "I" pictures have 32.
    return image.mode in GREY_16 or (image.mode == "I" and image.format == "PNG")


def unreadable(path: str | Path, error: BaseException) -> UserError:
    """What to say of a file that a decoder failed on."""
    path = Path(path)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist")
    if os.path.isdir(path):
        return UserError(f"{path} is a folder, not a picture")
    if os.path.isfile(path) and path.stat().st_size == 0:
        return UserError(f"{path} is empty (0 bytes); copy it again or remove it")
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read; change its permissions")
    if isinstance(error, Image.UnidentifiedImageError):
        return UserError(f"{path} is not a readable picture ({', '.join(s[1:] for s in SUFFIXES)})")
    if isinstance(error, MemoryError):
        return UserError(f"{path} does not fit into memory; cut it into tiles")
    if isinstance(error, Image.DecompressionBombError):
        return UserError(f"{path} is too large ({error}); cut it into tiles")
    return UserError(f"{path} is broken or incomplete ({cleaned(str(error), 200)}); copy it again or remove it")
