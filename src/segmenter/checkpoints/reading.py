"""Reads a checkpoint file of any format and executes or imports nothing: safetensors, torch (new and old), npz.

The format is recognised by the content, never by the name. The sizes that a file states are checked against its real
size, and against the numbers that are there, before memory is allocated.
"""

import io
import math
import mmap
import reprlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segmenter.checkpoints.stored import Damaged, Storage, StoredArray, StoredTensor, from_array
from segmenter.checkpoints.unpickling import ForbiddenName, Placeholder, Unpickler
from segmenter.errors import UserError

SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors", ".npz")
# Weights hardly shrink when they are compressed; a few tensors of zeros in a small file may.
LARGEST_RATIO, SLACK = 10, 64 * 2**20
WRAPPERS = ("state_dict", "model")  # where files keep their weights, beside an optimiser and the like
PREFIXES = ("module.", "_orig_mod.")  # of networks that were distributed or compiled as they were saved
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Unreadable(UserError):
    """A file whose weights cannot be read; `reason` is the sentence without the path."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} {reason}")
        self.reason = reason


@dataclass
class Checkpoint:
    """What a file holds."""

    path: Path
    state: dict[str, Tensor]
    """The weights by their names in the file."""
    about: Mapping[str, object] = field(default_factory=dict)
    """What lies beside the weights, for example `meta`."""
    placeholders: dict[str, int] = field(default_factory=dict)
    """Types that were not constructed, and how often each occurs."""
    other: tuple[str, ...] = ()
    """Names among the weights whose values are not tensors."""


def read(path: str | Path) -> Checkpoint:
    """The weights of a file, and what lies beside them.

    Raises:
        UserError: there is no such file, its format is unknown, it is damaged, would run code, claims to be far
            larger than it is, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise Unreadable(path, "is empty; copy or download it again")
    with _readable_errors(path):
        if start.startswith(b"PK\x03\x04"):
            return _read_zip(path)
        # Before the pickles: a header of 128 or 384 ... bytes begins like one.
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
            return _read_safetensors(path)
        if start[0] == 0x80:  # every pickle of protocol 2 or later
            return _read_old_torch(path)
    if start[257:262] == b"ustar":
        raise Unreadable(path, "is a tar file, as torch wrote before 2018; load and save it with torch 1.x")
    raise Unreadable(
        path, f"is not a checkpoint: it begins with {start[:12]!r}; give a torch file (.pth, .pt), .safetensors or .npz"
    )


def refuse_not_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Checks that all numbers are finite.

    Raises:
        UserError: some are not; the first tensor is named.
    """
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        count = int((~state[wrong[0]].isfinite()).sum())
        raise Unreadable(
            path,
            f"holds {count} values that are not finite in {wrong[0]} ({len(wrong)} of {len(state)} tensors have "
            "such values); the training that wrote it broke down, take an earlier checkpoint",
        )


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turns any error of a reader into one sentence."""
    try:
        yield
    except UserError:
        raise
    except ForbiddenName as error:
        raise Unreadable(
            path,
            f"names {error}, which weights do not need and which could run code; nothing in it was executed. "
            "Have its author save the bare state dict, or take the weights from elsewhere",
        ) from None
    except MemoryError as error:
        raise Unreadable(path, "does not fit into memory") from error
    except Exception as error:  # a damaged file can break every line of every reader
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Unreadable(path, f"is cut off or damaged ({reason}); copy or download it again") from error


# ---- safetensors


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
            about = file.metadata() or {}
    except SafetensorError as error:
        raise Damaged(str(error)) from error
    return _checkpoint(path, state, about)


# ---- zip: npz and torch


def _read_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        _refuse_bomb(path, archive)
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise Damaged("two parts have one name")
        if all(name.endswith(".npy") for name in names):
            return _checkpoint(path, {name.removesuffix(".npy"): _read_npy(archive.read(name)) for name in names})
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Unreadable(path, f"is a zip file of {names[:3]}, neither of torch nor of numpy; unpack it first")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{folder}code/") for name in names):
            raise Unreadable(path, "is a TorchScript program; have its author save the model's state dict")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise Unreadable(path, "was written on a big-endian machine; load and save it with torch there")
        storages: dict[str, Storage] = {}

        def storage(key: str, dtype: torch.dtype, count: int, view: object) -> Storage:
            name = f"{folder}data/{key}"
            if archive.getinfo(name).file_size != count * dtype.itemsize or view is not None:
                raise Damaged(f"{name} does not hold {count} numbers of {dtype}")
            found = storages.setdefault(name, Storage(dtype, count, lambda: archive.read(name)))
            if found.dtype != dtype:
                raise Damaged(f"{name} has two types")
            return found

        unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])), storage)
        return _torch_checkpoint(path, unpickler.load(), unpickler)


def _refuse_bomb(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks the sizes that a zip file states; its reader reads no more than that."""
    have, claimed = path.stat().st_size, sum(info.file_size for info in archive.infolist())
    stored = sum(info.compress_size for info in archive.infolist())
    if claimed > LARGEST_RATIO * have + SLACK or stored > have:
        raise Unreadable(
            path,
            f"claims to unpack to {claimed / 2**20:,.0f} MB from {have / 2**20:,.1f} MB, as no weights do; "
            "it was not unpacked",
        )


def _read_npy(content: bytes) -> Tensor:
    """One array of an npz file; pickled ones are refused."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise Damaged(f"an array of format {version}")
    shape, fortran, kind = header(file)
    if kind.hasobject:
        raise ForbiddenName("an array of Python objects")
    rest = memoryview(content)[file.tell() :]
    if len(rest) != math.prod(shape) * kind.itemsize:
        raise Damaged(f"{len(rest)} bytes for an array of shape {shape}")
    bfloat = kind.kind == "V" and kind.itemsize == 2  # how JAX's files keep it
    if not bfloat and kind.kind not in "biuf":
        raise Damaged(f"an array of {kind}")
    array = np.frombuffer(rest, np.dtype("<i2") if bfloat else kind)
    array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    tensor = from_array(array)
    return tensor.view(torch.bfloat16) if bfloat else tensor


# ---- torch before 1.6


def _read_old_torch(path: Path) -> Checkpoint:
    """Three small pickles, the content, the keys of the storages, and then the numbers of each."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if Unpickler(content).load() != TORCH_MAGIC:
            raise Unreadable(path, "is a plain pickle; have its author save the state dict with torch.save")
        if Unpickler(content).load() != TORCH_PROTOCOL or Unpickler(content).load().get("little_endian") is not True:
            raise Unreadable(path, "is of a version of torch that is not known here; save it again with a newer torch")
        storages: dict[str, Storage] = {}

        def storage(key: str, dtype: torch.dtype, count: int, view: object) -> Storage:
            found = storages.setdefault(key, Storage(dtype, count))
            if (found.dtype, found.count) != (dtype, count) or view is not None:
                raise Damaged(f"storage {key} is described in two ways")
            return found

        unpickler = Unpickler(content, storage)
        found = unpickler.load()
        place = -1
        for key in Unpickler(content).load():
            place = content.tell() if place < 0 else place
            count = int.from_bytes(content[place : place + 8], "little")
            start, place = place + 8, place + 8 + count * storages[key].dtype.itemsize
            if count != storages[key].count or place > len(content):
                raise Damaged(f"the numbers of storage {key} are not all there")
            storages[key].read = lambda start=start, end=place: content[start:end]
        return _torch_checkpoint(path, found, unpickler)


# ---- what a torch file holds


def _torch_checkpoint(path: Path, content: object, unpickler: Unpickler) -> Checkpoint:
    placeholders = dict(sorted(unpickler.placeholders.items()))
    if not isinstance(content, dict):
        kind = content.name if isinstance(content, Placeholder) else type(content).__name__
        raise Unreadable(path, f"holds no weights but one {kind}; have its author save the state dict")
    about: dict[str, object] = {}
    for _ in range(2):
        wrapper = next((w for w in WRAPPERS if isinstance(content.get(w), dict)), None)
        if wrapper is not None:
            about |= {key: value for key, value in content.items() if isinstance(key, str) and key != wrapper}
            content = content[wrapper]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}
    other = tuple(key[:80] if isinstance(key, str) else reprlib.repr(key) for key in content if key not in tensors)
    amount = sum(_nbytes(value) for value in tensors.values())
    if amount > LARGEST_RATIO * path.stat().st_size + SLACK:
        raise Unreadable(path, f"claims {amount / 2**20:,.0f} MB of tensors, far more than its size; it was not read")
    state = {key: _loaded(value) for key, value in tensors.items()}
    return _checkpoint(path, state, about, placeholders, other)


def _is_tensor(value: object) -> bool:
    return isinstance(value, StoredTensor) or (isinstance(value, StoredArray) and value.value is not None)


def _nbytes(value: StoredTensor | StoredArray) -> int:
    return value.count * value.dtype.itemsize if isinstance(value, StoredTensor) else value.value.nbytes


def _loaded(value: StoredTensor | StoredArray) -> Tensor:
    return value.load() if isinstance(value, StoredTensor) else from_array(value.value)


def _checkpoint(path: Path, state: dict, about: Mapping | None = None, *rest) -> Checkpoint:
    if not state:
        raise Unreadable(path, "holds no weights: there is no tensor in it")
    clean = {}
    for key, value in state.items():
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        clean[key] = value
    if len(clean) != len(state):
        raise Damaged("two tensors have one name")
    return Checkpoint(path, clean, about or {}, *rest)
