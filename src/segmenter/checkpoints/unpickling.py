"""A pickle reader that executes and imports nothing, and takes time and memory in proportion to the file.

Every name is looked up in the tables below and nowhere else: what builds a tensor or a container is ours, what else
published files carry becomes a `Placeholder`, any other name ends the reading. torch's own reader of weights would not
do: it knows no pickles after protocol 3 and no foreign dicts, reads optimisers too, and lets a number become as many
bytes. We subclass Python's implementation, as each instruction can be bounded there.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import torch

from segmenter.checkpoints.stored import Damaged, NumpyType, Storage, StoredArray, StoredTensor, natural

# Items that calls may copy beyond one for each byte of the file, and the longest tuple that is a key.
COPIED, LONGEST_KEY = 2**20, 16

# Types found in published files that hold no weights; they, and what belongs to them, are never constructed.
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
INERT = frozenset(f"{module}.{kind}" for module, kinds in {
    "addict": "Dict", "addict.addict": "Dict", "argparse": "Namespace", "easydict": "EasyDict", "munch": "Munch",
    "mmcv.runner.log_buffer": "LogBuffer", "mmcv.utils.config": "Config ConfigDict",
    "mmengine.config": "ConfigDict", "mmengine.config.config": "Config ConfigDict",
    "mmengine.logging.history_buffer": "HistoryBuffer", "mmengine.logging.message_hub": "MessageHub",
    "pathlib": _PATHS, "pathlib._local": _PATHS, "types": "SimpleNamespace", "yacs.config": "CfgNode",
}.items() for kind in kinds.split())  # fmt: skip

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
}  # fmt: skip


class ForbiddenName(Exception):
    """The file names something that is neither weights nor a known harmless type."""


@dataclass(frozen=True, eq=False)
class Name:
    """A name of the tables; `build` makes what a call of it stands for, without touching what has that name."""

    full: str
    build: Callable[..., Any]
    inert: bool = False


class Placeholder:
    """Stands for an object of an inert type; takes whatever a pickle puts into it, and keeps nothing."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, not constructed>"

    def extend(self, items: object) -> None: ...

    append = extend

    def __setitem__(self, key: object, value: object) -> None: ...


class Row(tuple):
    """A tuple of a file. Python hashes tuples in tuples by recursion without end, and each time anew."""

    __slots__ = ()

    def __hash__(self) -> int:
        if len(self) > LONGEST_KEY or any(isinstance(item, tuple) for item in self):
            raise Damaged("a key of many parts")
        return super().__hash__()


def _container(kind: type) -> Callable[..., Any]:
    """`kind` of at most one container, so that no number becomes an array of that many bytes."""

    def build(*arguments: object) -> object:
        if len(arguments) > 1 or not all(isinstance(a, list | tuple | set | dict | bytes) for a in arguments):
            raise Damaged(f"a {kind.__name__} of {', '.join(type(a).__name__ for a in arguments[:3])}")
        return kind(*arguments)

    return build


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Damaged("bytes in an unknown encoding")
    return text.encode("latin1")


def _scalar(kind: NumpyType, content: bytes = b"") -> object:
    found = kind.read(content, ())
    return Placeholder("numpy.generic") if found is None else found.item()


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


def _tensor_of_type(*arguments: Any) -> StoredTensor:
    return StoredTensor(*arguments[:4], dtype=arguments[6])


def _tensor_of_class(function: Name, kind: object, arguments: tuple, *_: object) -> StoredTensor:
    """A tensor with attributes; they are left out."""
    if not isinstance(function, Name) or function.build not in (_tensor, _tensor_of_type):
        raise ForbiddenName(getattr(function, "full", "a tensor of a class of its own"))
    return function.build(*arguments)


def _attribute(owner: object, name: object = "") -> Placeholder:
    """Methods of inert types are pickled as getattr(type, name)."""
    if isinstance(owner, Name) and owner.inert and isinstance(name, str):
        return Placeholder(f"{owner.full}.{name[:80]}")
    raise ForbiddenName("builtins.getattr")


def _object(kind: object, *_: object) -> Placeholder:
    """How old pickles make an object of a class."""
    if isinstance(kind, Name) and kind.inert:
        return kind.build()
    raise ForbiddenName(kind.full if isinstance(kind, Name) else "copyreg._reconstructor")


def _never(*_: object) -> object:
    raise Damaged("a type called as a function")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "collections.Counter": _container(dict),
    "collections.OrderedDict": _container(dict),
    "collections.defaultdict": lambda *_: {},  # its factory is in the table or refused; here it makes nothing
    "copy_reg._reconstructor": _object,
    "copyreg._reconstructor": _object,
    "numpy.dtype": NumpyType,
    "numpy.ndarray": _never,
    "torch.Size": _container(Row),
    "torch.Tensor": _never,
    "torch.device": lambda *_: Placeholder("torch.device"),
    "torch.nn.parameter.Parameter": _never,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_class,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
}
for _core in ("numpy.core", "numpy._core"):
    _BUILDERS[f"{_core}.multiarray._reconstruct"] = lambda *_: StoredArray()
    _BUILDERS[f"{_core}.multiarray.scalar"] = _scalar
for _builtins in ("builtins", "__builtin__"):
    _BUILDERS[f"{_builtins}.getattr"] = _attribute
    _BUILDERS[f"{_builtins}.object"] = _never
    _BUILDERS[f"{_builtins}.complex"] = lambda real=0.0, imaginary=0.0: complex(float(real), float(imaginary))
    for _kind in (set, frozenset, list, dict, bytes, bytearray):
        _BUILDERS[f"{_builtins}.{_kind.__name__}"] = _container(_kind)
    _BUILDERS[f"{_builtins}.tuple"] = _container(Row)
_TORCH_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class Unpickler(pickle._Unpickler):
    """Reads one pickle; `storage` is asked for each storage (key, dtype, count, view) that a tensor lies in.

    Raises:
        ForbiddenName: a name outside the tables; nothing was called.
        Damaged: contradictions. Other damage shows as any of Python's errors.
    """

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, storage: Callable[..., Storage] | None = None):
        super().__init__(file, encoding="latin1")
        self.placeholders: Counter[str] = Counter()
        self._file, self._storage, self._copied = file, storage, 0

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full in _BUILDERS:
            return Name(full, _BUILDERS[full])
        if full in _TORCH_DTYPES:
            return _TORCH_DTYPES[full]
        if module in ("torch", "torch.cuda", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        if any(full == inert or full.startswith(f"{inert}.") for inert in INERT):
            return Name(full, lambda *_: self._placeholder(full), inert=True)
        raise ForbiddenName(full)

    def _placeholder(self, name: str) -> Placeholder:
        self.placeholders[name] += 1
        return Placeholder(name)

    def get_extension(self, code: int) -> None:
        raise ForbiddenName(f"copyreg extension {code}")

    def persistent_load(self, pid: object) -> Storage:
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Damaged("a reference to no storage")
        _, dtype, key, _, count, *view = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise Damaged("a storage without type or name")
        return self._storage(key, dtype, natural(count), view[0] if view else None)

    def _instantiate(self, called: object, arguments: Collection) -> None:
        """What all instructions come to that call something."""
        if not isinstance(called, Name):
            raise Damaged(f"a call of a {type(called).__name__}")
        if not called.inert:
            # Otherwise one long text could be copied by every third byte of the file.
            self._copied += sum(len(a) for a in arguments if isinstance(a, Collection))
            if self._copied > COPIED + self._file.tell():
                raise Damaged("the same content copied many times")
        self.append(called.build(*arguments))

    def load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise Damaged("a call without arguments")
        self._instantiate(called, arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, NumpyType | StoredArray):
            target.set_state(state)
        elif not isinstance(target, Placeholder | dict | StoredTensor | set):  # their attributes are left out
            raise Damaged(f"attributes of a {type(target).__name__}")

    def load_tuple(self) -> None:
        items = self.pop_mark()
        self.append(Row(items))


def _short_tuple(length: int) -> Callable[[Unpickler], None]:
    def load(self: Unpickler) -> None:
        self.stack[-length:] = (Row(self.stack[-length:]),)

    return load


Unpickler.dispatch |= {
    pickle.REDUCE[0]: Unpickler.load_reduce,
    pickle.NEWOBJ[0]: Unpickler.load_reduce,
    pickle.NEWOBJ_EX[0]: Unpickler.load_newobj_ex,
    pickle.BUILD[0]: Unpickler.load_build,
    pickle.TUPLE[0]: Unpickler.load_tuple,
    pickle.TUPLE1[0]: _short_tuple(1),
    pickle.TUPLE2[0]: _short_tuple(2),
    pickle.TUPLE3[0]: _short_tuple(3),
}
for _name in ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"):  # of no torch file; the first takes memory unchecked
    del Unpickler.dispatch[getattr(pickle, _name)[0]]
