"""Reads one numeric array from a MATLAB file of version 5 to 7, in which some data sets store their label maps.

Source: "MAT-File Format", The MathWorks. Structures, cells, text and version 7.3 (HDF5) are left out.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmenter.errors import UserError

HEADER = 128  # bytes before the first element
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC = range(6, 16)  # classes of arrays: double to uint64
LARGEST = 2**28  # bytes that an element may unpack to


def read_array(path: Path, name: str) -> np.ndarray:
    """The two-dimensional array of that name (H W).

    Raises:
        UserError: the file cannot be read, is of another version, or has no such array.
    """
    try:
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]
        for kind, data in _elements(content[HEADER:], order):
            if kind == COMPRESSED:
                unpacked = zlib.decompressobj().decompress(data, LARGEST)
                kind, data = next(_elements(unpacked, order))
            if kind == MATRIX and (found := _matrix(data, order, name)) is not None:
                return found
    except (OSError, KeyError, IndexError, ValueError, struct.error, zlib.error, StopIteration) as error:
        raise UserError(f"{path} is broken or not a MATLAB file of version 5 ({error!r}); unpack it again") from None
    raise UserError(f"{path} holds no array {name!r}; unpack it again")


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and data of each element; short ones keep both in eight bytes."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:
            yield kind & 0xFFFF, content[place + 4 : place + 4 + (kind >> 16)]
            place += 8
            continue
        yield kind, content[place + 8 : place + 8 + size]
        place += 8 + size + (-size % 8 if kind != COMPRESSED else 0)


def _matrix(data: bytes, order: str, wanted: str) -> np.ndarray | None:
    """The array in a matrix element, if it has that name."""
    parts = _elements(data, order)
    flags, dimensions, name = (next(parts)[1] for _ in range(3))
    if name.decode("latin-1") != wanted or struct.unpack_from(f"{order}I", flags)[0] & 0xFF not in NUMERIC:
        return None
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    kind, numbers = next(parts)
    values = np.frombuffer(numbers, np.dtype(order + NUMBERS[kind]))
    if len(shape) != 2 or math.prod(shape) != len(values):
        raise ValueError(f"{wanted} is of shape {shape}, but has {len(values)} values")
    return values.reshape(shape, order="F")
