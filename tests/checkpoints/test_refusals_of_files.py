"""Proves that files that would run code, are bombs or damaged are refused in a sentence, whatever reads them."""

import builtins
import contextlib
import importlib
import io
import os
import pickle
import random
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import Call, as_torch, refused, strings
from safetensors.torch import save_file

from segmenter.checkpoints.reading import read
from segmenter.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def good(tmp_path) -> Path:
    """A file of weights that is in order."""
    generator = torch.Generator().manual_seed(0)
    weights = {f"blocks.{i}.attn.qkv.weight": torch.randn(96, 32, generator=generator) for i in range(8)}
    torch.save({"model": weights}, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


# ---- code


def calls(marker: Path) -> dict[str, Call]:
    """Ways to run something that leaves a file, by the name that must be refused."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        f"{os.system.__module__}.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "builtins.open": Call(open, str(marker), "w"),
        "builtins.__import__": Call(builtins.__import__, "antigravity"),
        "builtins.getattr": Call(getattr, {}, "clear"),
        "importlib.import_module": Call(importlib.import_module, "this"),
        "subprocess.call": Call(subprocess.call, ["touch", str(marker)]),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "torch.hub.load": Call(torch.hub.load, "a/b", "c"),
        "numpy.load": Call(np.load, str(marker)),
        "pickle.loads": Call(pickle.loads, b"."),
        "builtins.map": Call(map, str, [1]),
    }


KINDS = sorted(calls(Path("marker")))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_would_run_code(good, tmp_path, name, old):
    marker = tmp_path / "executed"
    content = {"model": weights(good), "extra": calls(marker)[name]}
    torch.save(content, good, _use_new_zipfile_serialization=not old)
    text = refused(good)
    shown = name.replace("_io.", "io.")
    shown = {"builtins.getattr": "builtin"}.get(name, shown.rpartition(".")[2])
    assert shown in text
    assert "which weights do not need and which could run code; nothing in it was executed" in text
    assert not marker.exists()


# Hand-written pickles: every instruction that calls, constructs or sets something.
PROGRAMS = {
    "global and reduce": b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R.",
    "stack global": b"\x80\x04" + strings("os", "system") + b"\x93" + strings("x") + b"\x85R.",
    "inst": b"(" + strings("touch x") + b"ios\nsystem\n.",
    "obj": b"(cos\nsystem\n" + strings("touch x") + b"o.",
    "new object": b"\x80\x02csubprocess\nPopen\n)\x81.",
    "new object with keywords": b"\x80\x04csubprocess\nPopen\n)}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "old object": b"ccopy_reg\n_reconstructor\n(cos\nPathLike\nc__builtin__\nobject\nNtR.",
    "method of a module": b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\n" + strings("x") + b"\x86R.",
    "never called": b"\x80\x02}" + strings("model") + b"cos\nsystem\ns.",
    "a name inside a known module": b"\x80\x02ctorch\nhub.load\n.",
    "another of torch's functions": b"\x80\x02ctorch._utils\n_rebuild_device_tensor_from_numpy\n.",
    "dotted through an inert module": b"\x80\x04" + strings("mmengine.config.config", "os.system") + b"\x93.",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_instruction_that_could_run_code(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    text = refused(as_torch(tmp_path / "evil.pth", PROGRAMS[name]))
    assert "which could run code; nothing in it was executed" in text
    assert {path.name for path in tmp_path.iterdir()} == before | {"evil.pth"}


INERT = b"cargparse\nNamespace\n"
STORAGE = b"(" + strings("storage") + b"ctorch\nFloatStorage\n" + strings("0", "cpu") + b"K\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
CONTRADICTIONS = {
    "a call of a number": b"K\x01)R.",
    "a call of a text": strings("os.system") + strings("x") + b"\x85R.",
    "a call of a type": b"cnumpy\nndarray\n)R.",
    "a call of an object": INERT + b")R)R.",
    "attributes of a list": b"]}b.",
    "entries of a list": b"]K\x01K\x02s.",
    "items of a dict": b"}K\x01a.",
    "items of a text": strings("x") + b"(K\x01e.",
    "a tensor without storage": TENSOR + b"K\x01K\x00)))NtR.",
    "a tensor beyond its storage": TENSOR + STORAGE + b"K\x00K\x05\x85K\x01\x85\x89NtR.",
    "a tensor after its storage": TENSOR + STORAGE + b"K\x01K\x04\x85K\x01\x85\x89NtR.",
    "a negative size": TENSOR + STORAGE + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89NtR.",
    "a negative step": TENSOR + STORAGE + b"K\x00K\x02\x85J\xff\xff\xff\xff\x85\x89NtR.",
    "repeated numbers": TENSOR + STORAGE + b"K\x00J\xff\xff\xff\x7fK\x04\x86K\x00K\x00\x86\x89NtR.",
    "no such storage": TENSOR + STORAGE.replace(strings("0", "cpu"), strings("9", "cpu")) + b"K\x00)).",
    "a long storage": STORAGE.replace(b"K\x04tQ", b"\x8a\x05\x00\x00\x00\x00\x10tQ") + b".",
    "an unhashable key": b"}]K\x01s.",
    "many bytes of a number": b"c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.",
    "a list of a number": b"c__builtin__\nlist\nJ\xff\xff\xff\x7f\x85R.",
    "memory of a bytearray": b"\x96" + struct.pack("<Q", 2**40) + b".",
    "a text that is not there": b"X\xff\xff\xff\x7f.",
    "a memo that was never written": b"h\x07.",
    "a memo of a huge index": b"K\x01r\xff\xff\xff\x7f.",
    "an empty stack": b".",
    "no end": b"K\x01",
    "no instruction": b"\xff\xfe",
    "an unknown protocol": b"\x80\x7f.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "nesting": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a dict in itself": b"}q\x00" + strings("model") + b"h\x00s.",
    "nothing": b"N.",
    "an empty dict": b"}.",
    "a placeholder": INERT + b")R.",
    "a bad array": b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x05\x85cnumpy\ndtype\n" + strings("f8")
    + b"\x85R\x89" + strings("short") + b"tb.",
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_pickles_that_contradict_themselves(tmp_path, name):
    path = as_torch(tmp_path / "odd.pth", b"\x80\x02" + CONTRADICTIONS[name])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    assert any(part in refused(path) for part in ("is cut off or damaged (", "holds no weights"))


def test_an_array_of_objects(tmp_path):
    np.savez(tmp_path / "evil.npz", a=np.array([Call(os.system, f"touch {tmp_path / 'executed'}")], dtype=object))
    assert "names an array of Python objects" in refused(tmp_path / "evil.npz")
    assert not (tmp_path / "executed").exists()


def test_a_program_of_torchscript(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"script/{name}", b"\x80\x02}.")
    assert "is a TorchScript program; have its author save the model's state dict" in refused(tmp_path / "script.pt")


def test_a_whole_model(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "names torch.nn.modules.linear.Linear" in refused(tmp_path / "whole.pt")


# ---- bombs


def bomb(path: Path, name: str, megabytes: int) -> Path:
    """A small zip file that unpacks to many bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open(name, "w", force_zip64=True) as part:
            for _ in range(megabytes):
                part.write(bytes(2**20))
    return path


@pytest.mark.parametrize("name", ["archive/data/0", "weights.npy"])
def test_a_zip_bomb(tmp_path, name):
    path = bomb(tmp_path / "bomb.pth", name, 100)
    assert path.stat().st_size < 2**20
    assert "claims to unpack to 100 MB from 0." in refused(path)
    assert "as no weights do; it was not unpacked" in refused(path)


def test_a_zip_that_claims_more_than_a_disk(tmp_path):
    path = as_torch(tmp_path / "bomb.pth", b"\x80\x02}.")
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")  # the first entry of the directory: 4 bytes of packed size, 4 of the whole
    content[start + 24 : start + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(content)
    assert "claims to unpack to 4,096 MB" in refused(path)


def test_an_array_that_claims_more_than_there_is(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    assert "0 bytes for an array of shape (1000000, 1000000)" in refused(tmp_path / "bomb.npz")


def test_tensors_that_share_one_storage_many_times(tmp_path):
    numbers = torch.zeros(2**18)
    torch.save({f"a{i}": numbers[:] for i in range(400)}, tmp_path / "views.pth")
    assert "claims 400 MB of tensors, far more than its size; it was not read" in refused(tmp_path / "views.pth")


def test_one_array_under_many_names(tmp_path):
    numbers = np.zeros(2**17)
    torch.save({f"a{i}": numbers for i in range(400)}, tmp_path / "arrays.pth")
    assert "claims 400 MB of tensors, far more than its size; it was not read" in refused(tmp_path / "arrays.pth")


# ---- damage


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off(good, share, old):
    torch.save({"model": weights(good)}, good, _use_new_zipfile_serialization=not old)
    whole = good.read_bytes()
    good.write_bytes(whole[: int(len(whole) * share)])
    expected = "is empty" if share == 0 else "is cut off or damaged ("
    assert expected in refused(good)
    assert "copy or download it again" in refused(good)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_another_file_that_was_cut_off(good, share, suffix):
    path = good.with_suffix(suffix)
    if suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in weights(good).items()})
    else:
        save_file(weights(good), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "is cut off or damaged (" in refused(path)


@pytest.mark.parametrize(
    "content", [b"no weights", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_text_file(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    text = refused(tmp_path / "model.pth")
    assert f"is not a checkpoint: it begins with {content[:12]!r}" in text


def test_another_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", "x")
    assert "is a zip file of ['a.jpg'], neither of torch nor of numpy" in refused(tmp_path / "photos.zip")


@pytest.mark.parametrize("kind", ["new", "old", "npz", "safetensors"])
def test_bytes_changed_anywhere(good, kind):
    # Whatever the damage, there is a model or a sentence, and nothing else.
    state, path = weights(good), good.with_name("damaged")
    if kind == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, **{key: value.numpy() for key, value in state.items()})
        path.write_bytes(buffer.getvalue())
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "n": np.float64(1)}, path, _use_new_zipfile_serialization=kind == "new")
    whole, draw = path.read_bytes(), random.Random(0)
    ends = [2**14] * 3 + [len(whole)]  # mostly where the structure is described
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 8))):
            place = draw.randrange(draw.choice(ends))
            content[place if kind != "new" or draw.random() < 0.5 else -1 - place] = draw.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            read(path)
