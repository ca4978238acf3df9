"""A pickle reader that executes and imports nothing: tensors, numpy values and plain containers, all built by us.

Python's pickle may call whatever a file names. Here every name is looked up in the tables below and nowhere else:
what builds a tensor or a container is ours, what published files carry besides weights (OpenMMLab's histories and
configurations, argument lists) becomes a `Placeholder`, and any other name ends the reading. We subclass the Python
implementation, as each instruction can be bounded there and its memo takes no memory for what is not stored.
"""

import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch

from segmenter.checkpoints.stored import Damaged, NumpyType, Storage, StoredArray, StoredTensor, natural

# Types found in published files that hold no weights; they, and what belongs to them, are never constructed.
INERT = frozenset({
    "addict.Dict",
    "addict.addict.Dict",
    "argparse.Namespace",
    "easydict.EasyDict",
    "mmcv.runner.log_buffer.LogBuffer",
    "mmcv.utils.config.Config",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.ConfigDict",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.message_hub.MessageHub",
    "munch.Munch",
    "types.SimpleNamespace",
    "yacs.config.CfgNode",
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in
      ("", "Posix", "Windows", "PurePosix", "PureWindows")),
})  # fmt: skip

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
}  # fmt: skip


class ForbiddenName(Exception):
    """The file names something that is neither weights nor a known harmless type."""


class Placeholder:
    """Stands for an object of an inert type; takes whatever a pickle puts into it, and keeps nothing."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, not constructed>"


class _Name:
    """A name of the tables; `make` builds what a call of it stands for, without calling it."""

    def __init__(self, name: str, make: Callable[..., Any], inert: bool = False):
        self.name, self.make, self.inert = name, make, inert


def _container(kind: type) -> Callable[..., Any]:
    """`kind` of at most one container, so that no number becomes an array of that many bytes."""

    def make(*arguments: object) -> object:
        if len(arguments) > 1 or not all(isinstance(a, list | tuple | set | dict | bytes) for a in arguments):
            raise Damaged(f"a {kind.__name__} of {arguments!r:.80}")
        return kind(*arguments)

    return make


def _without_factory(factory: object = None, *_: object) -> dict:
    return {}  # what defaultdict would make is in the table or refused; here it makes nothing


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Damaged("bytes in an unknown encoding")
    return text.encode("latin1")


def _scalar(kind: NumpyType, content: bytes = b"") -> object:
    found = kind.read(content, ())
    return Placeholder("numpy.generic") if found is None else found.item()


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


def _tensor_of_type(storage: Storage, offset: int, size: tuple, stride: tuple, *rest: object) -> StoredTensor:
    if len(rest) < 3 or not isinstance(rest[2], torch.dtype):
        raise Damaged("a tensor without type")
    return StoredTensor(storage, offset, size, stride, rest[2])


def _tensor_of_class(function: _Name, kind: object, arguments: tuple, *_: object) -> object:
    """A tensor with attributes; they are left out."""
    if not isinstance(function, _Name) or not function.name.startswith("torch._utils._rebuild_tensor"):
        raise ForbiddenName(getattr(function, "name", "a tensor of a class of its own"))
    return function.make(*arguments)


def _attribute(owner: object, name: object = "") -> Placeholder:
    """Methods of inert types are pickled as getattr(type, name)."""
    if isinstance(owner, _Name) and owner.inert:
        return Placeholder(f"{owner.name}.{name}")
    raise ForbiddenName("builtins.getattr")


def _object(kind: object, *_: object) -> Placeholder:
    """How old pickles make an object of a class."""
    if isinstance(kind, _Name) and kind.inert:
        return kind.make()
    raise ForbiddenName(kind.name if isinstance(kind, _Name) else "copyreg._reconstructor")


def _never(*_: object) -> object:
    raise Damaged("a type called as a function")


_CONTAINERS = (set, frozenset, list, tuple, dict, bytes, bytearray)
_BUILDERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "collections.Counter": _container(dict),
    "collections.OrderedDict": _container(dict),
    "collections.defaultdict": _without_factory,
    "copy_reg._reconstructor": _object,
    "copyreg._reconstructor": _object,
    "numpy.dtype": NumpyType,
    "numpy.ndarray": _never,
    "torch.Size": _container(tuple),
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
    _BUILDERS |= {f"{_builtins}.{k.__name__}": _container(k) for k in _CONTAINERS}
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
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full in _BUILDERS:
            return _Name(full, _BUILDERS[full])
        if full in _TORCH_DTYPES:
            return _TORCH_DTYPES[full]
        if module in ("torch", "torch.cuda", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        if any(full == inert or full.startswith(f"{inert}.") for inert in INERT):
            return _Name(full, lambda *_, **__: self._placeholder(full), inert=True)
        raise ForbiddenName(full)

    def _placeholder(self, name: str) -> Placeholder:
        self.placeholders[name] += 1
        return Placeholder(name)

    def persistent_load(self, pid: object) -> Storage:
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Damaged(f"a reference {pid!r:.80} to nothing")
        _, dtype, key, _, count, *view = pid
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise Damaged(f"a storage {pid!r:.80}")
        return self._storage(key, dtype, natural(count), view[0] if view else None)

    def _call(self, called: object, arguments: object) -> object:
        if not isinstance(called, _Name):
            raise Damaged(f"a call of {called!r:.80}")
        if not isinstance(arguments, tuple):
            raise Damaged("a call without arguments")
        return called.make(*arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack.pop()
        # Containers are made by their names' builders, objects only of inert types.
        self.append(self._call(kind, arguments if not getattr(kind, "inert", False) else ()))

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        arguments = self.pop_mark()
        self.append(self._call(self.find_class(module, name), tuple(arguments)))

    def load_obj(self) -> None:
        kind, *arguments = self.pop_mark()
        self.append(self._call(kind, tuple(arguments)))

    def get_extension(self, code: int) -> None:
        raise ForbiddenName(f"copyreg extension {code}")

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, NumpyType):
            target.set_order(state)
        elif isinstance(target, StoredArray):
            _, shape, kind, fortran, content = state
            found = kind.read(content, shape[::-1] if fortran else shape)
            target.value = found.T if fortran and found is not None else found
        elif not isinstance(target, Placeholder | dict | StoredTensor | set):  # their attributes are left out
            raise Damaged(f"attributes of {target!r:.80}")

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise Damaged(f"items of {target!r:.80}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_setitems(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Placeholder):
            raise Damaged(f"entries of {target!r:.80}")

    def load_additems(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise Damaged("members of what is no set")
        self.stack[-1].update(items)


for _code in (
    "REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS",
):  # fmt: skip
    Unpickler.dispatch[getattr(pickle, _code)[0]] = getattr(Unpickler, f"load_{_code.lower()}")
for _code in ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"):  # of no torch file; the first takes memory unchecked
    del Unpickler.dispatch[getattr(pickle, _code)[0]]
