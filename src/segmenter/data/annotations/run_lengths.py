"""Bitmaps as run lengths, from files that nobody vouches for: COCO's, CVAT's and Label Studio's.

Source: the formats' documentation (COCO's mask API; CVAT's XML; the bit stream of thi.ng/rle-pack for Label Studio).
Every length is checked before anything of that size is made.
"""

import numpy as np

from segmenter.data.annotations.record import BadShape
from segmenter.errors import shown

LONGEST_NUMBER = 12  # characters of one length: 60 bits


def coco_mask(counts: object, size: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
    """Pixels (H W, bool) of COCO's run lengths for `size`, column by column, a list or compressed as text.

    Raises:
        BadShape: they are neither, or make another number of pixels, or the picture has another size.
    """
    refuse_other_size(size, picture)
    lengths = _decompressed(counts) if isinstance(counts, str) else counts
    return runs(lengths, size[::-1]).T


def refuse_other_size(size: tuple[int, int], picture: tuple[int, int]) -> None:
    """Checks that a bitmap has the size of its picture (height, width).

    Raises:
        BadShape: it has not.
    """
    if tuple(size) != tuple(picture):
        stated, wanted = (f"{height} x {width}" for height, width in (size, picture))
        raise BadShape(f"has a bitmap of {stated} (height x width), but its picture has {wanted}")


def cvat_mask(text: str, size: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
    """Pixels (h w, bool) of CVAT's run lengths for a box of `size` within a picture, "3, 5, ...", row by row.

    Raises:
        BadShape: they are no numbers, or make another number of pixels, or the box is larger than the picture.
    """
    if size[0] > picture[0] or size[1] > picture[1]:
        raise BadShape(f"has a mask of {size[0]} x {size[1]}, but its picture has {picture[0]} x {picture[1]}")
    try:
        lengths = np.array([int(length) for length in text.split(",")] if text.strip() else [], dtype=object)
    except ValueError:
        raise BadShape(f"has the run lengths {shown(text)}; write whole numbers with commas") from None
    return runs(lengths, size)


def runs(lengths: object, size: tuple[int, int]) -> np.ndarray:
    """Pixels (h w, bool) of run lengths row by row, the first of what does not belong.

    Raises:
        BadShape: they are no list of numbers from 0 up, or make another number of pixels.
    """
    if isinstance(lengths, list):
        if not all(type(length) is int for length in lengths):
            raise BadShape(f"has the run lengths {shown(lengths)}; write whole numbers")
        lengths = np.array(lengths, dtype=object)
    elif not isinstance(lengths, np.ndarray):
        raise BadShape(f"has the run lengths {shown(lengths)}; write a list of numbers")
    if (lengths < 0).any():
        raise BadShape(f"has the run length {shown(lengths[lengths < 0][0])}, but none can be below 0")
    total, wanted = int(lengths.sum()), size[0] * size[1]
    if total != wanted:
        raise BadShape(f"has run lengths for {shown(total)} pixels, but {size[0]} x {size[1]} has {wanted}")
    belongs = np.arange(len(lengths)) % 2 == 1
    return np.repeat(belongs, lengths.astype(np.int64)).reshape(size)


def _decompressed(text: str) -> np.ndarray:
    """COCO's compressed lengths: characters of 5 bits each, low ones first, with the change to the last but one."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63:
        raise BadShape(f"has the run lengths {shown(text)}, which are not COCO's compressed text")
    ends = np.flatnonzero(codes & 32 == 0)
    if not ends.size or ends[-1] != len(codes) - 1:
        raise BadShape(f"has run lengths that are cut off after {len(codes)} characters")
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts).max() >= LONGEST_NUMBER:
        raise BadShape("has a run length of more than 60 bits")
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    lengths = np.add.reduceat((codes & 31) << (5 * place), starts)
    lengths -= (codes[ends] & 16 > 0) * (1 << (5 * (ends - starts + 1)))
    if np.abs(lengths).max() > 2**40:
        raise BadShape("has a run length that no picture reaches")
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def label_studio_mask(packed: object, size: tuple[int, int], picture: tuple[int, int]) -> np.ndarray:
    """Pixels (H W, bool) of Label Studio's brush: RGBA as a packed stream of bits, of which transparency counts.

    The stream: 32 bits number of values; 5 bits size of a value, less one; four times 4 bits sizes of run lengths, less
    one; then runs: one bit whether they repeat, 2 bits which size, the length less one, and the value or values.

    Raises:
        BadShape: it is no such stream, is cut off, or makes another number of pixels, or the picture has another size.
    """
    refuse_other_size(size, picture)
    if not isinstance(packed, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in packed):
        raise BadShape(f"has the brush strokes {shown(packed)}; write a list of numbers from 0 to 255")
    bits = bin(int.from_bytes(bytes([1, *packed]), "big"))[3:]
    if len(bits) < 53:
        raise BadShape(f"has brush strokes of {len(packed)} bytes, which are cut off")
    count, word = int(bits[:32], 2), int(bits[32:37], 2) + 1
    if word != 8:
        raise BadShape(f"has brush strokes with values of {word} bits, but Label Studio writes 8")
    if count != 4 * size[0] * size[1]:
        raise BadShape(f"has brush strokes for {count // 4} pixels, but {size[0]} x {size[1]} has {size[0] * size[1]}")
    sizes = [int(bits[at : at + 4], 2) + 1 for at in range(37, 53, 4)]
    values, filled, at = np.zeros(count, np.uint8), 0, 53
    while filled < count:
        width = sizes[int(bits[at + 1 : at + 3] or "0", 2)]
        repeated, start = bits[at : at + 1] == "1", at + 3 + width
        length = int(bits[at + 3 : start] or "0", 2) + 1
        at = start + (8 if repeated else 8 * length)
        if at > len(bits) or filled + length > count:
            raise BadShape(f"has brush strokes that are cut off or wrong after {filled // 4} pixels")
        if repeated:
            values[filled : filled + length] = int(bits[start:at], 2)
        else:
            values[filled : filled + length] = np.packbits(np.frombuffer(bits[start:at].encode(), np.uint8) & 1)
        filled += length
    return values.reshape(*size, 4)[..., 3] >= 128
