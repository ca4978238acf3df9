"""Tensors and arrays of a file before they are read: their places, checked against the sizes that are there."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segmenter.errors import shown

MOST_AXES = 64  # of torch's and numpy's


class Damaged(Exception):
    """The file contradicts itself."""


def natural(value: object) -> int:
    """The value, a whole number from 0 up.

    Raises:
        Damaged: it is something else.
    """
    if type(value) is not int or not 0 <= value < 2**62:
        raise Damaged(f"{shown(value)} where a count was expected")
    return value


class Storage:
    """The numbers that tensors of a file are views of, read when the first of them is wanted."""

    def __init__(self, dtype: torch.dtype, count: int, read: Callable[[], bytes] | None = None):
        self.dtype, self.count, self.read = dtype, natural(count), read
        self.given = False
        self._numbers: Tensor | None = None

    def numbers(self) -> Tensor:
        """All of them, 1-D."""
        if self._numbers is None:
            content = self.read() if self.read is not None else b""
            if len(content) != self.count * self.dtype.itemsize:
                raise Damaged(f"{len(content)} bytes for {self.count} numbers of {self.dtype}")
            # A copy, as torch wants memory that may be written to.
            numbers = bytearray(content)
            self._numbers = torch.frombuffer(numbers, dtype=self.dtype) if numbers else torch.empty(0, dtype=self.dtype)
        return self._numbers


class StoredTensor:
    """A tensor of a file: its place in a storage. Checked against the storage's size before anything is read."""

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple, dtype: torch.dtype | None = None):
        if not isinstance(storage, Storage):
            raise Damaged("a tensor without storage")
        self.storage, self.dtype = storage, dtype or storage.dtype
        if not isinstance(self.dtype, torch.dtype) or not len(size) == len(stride) <= MOST_AXES:
            raise Damaged(f"a tensor of {len(size)} sizes and {len(stride)} steps")
        self.offset, self.shape, self.stride = natural(offset), tuple(size), tuple(stride)
        self.count = math.prod(map(natural, self.shape))
        available = storage.count * storage.dtype.itemsize // self.dtype.itemsize
        steps = zip(self.shape, map(natural, self.stride), strict=True)
        last = self.offset + sum((side - 1) * step for side, step in steps)
        # The first condition also refuses views that repeat numbers: a file of a few bytes could be terabytes.
        if self.count > available or (self.count and last >= available):
            raise Damaged(f"a tensor of shape {self.shape} in a storage of {available} numbers")

    def load(self) -> Tensor:
        """The tensor, in memory that no other tensor of the file has."""
        numbers = self.storage.numbers()
        if numbers.dtype != self.dtype:
            numbers = numbers.view(self.dtype)
        tensor = torch.as_strided(numbers, self.shape, self.stride, self.offset)
        if self.storage.given or self.count < numbers.numel():  # the second would keep the rest in memory
            return tensor.clone()
        self.storage.given = True
        return tensor


class StoredArray:
    """A numpy array of a file; of strings or objects it has no value."""

    value: np.ndarray | None = None

    def set_state(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        found = kind.read(content, shape[::-1] if fortran else shape)
        self.value = found.T if fortran and found is not None else found


class NumpyType:
    """A numpy dtype; `code` is None unless it is numeric."""

    def __init__(self, code: object, *_: object):
        text = code if isinstance(code, str) else ""
        self.code = text if text[:1] in "biufc" and text[1:].isdigit() else None

    def set_state(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if self.code and order in ("<", ">"):
            self.code = order + self.code

    def read(self, content: object, shape: tuple) -> np.ndarray | None:
        """An array of this type from its bytes."""
        if self.code is None or not isinstance(content, bytes):
            return None
        kind = np.dtype(self.code)
        if len(shape) > MOST_AXES or len(content) != kind.itemsize * math.prod(map(natural, shape)):
            raise Damaged(f"{len(content)} bytes for an array of {len(shape)} axes")
        return np.frombuffer(content, kind).reshape(shape)


def from_array(array: np.ndarray) -> Tensor:
    """A copy of an array of either byte order."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))
