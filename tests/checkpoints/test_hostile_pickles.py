"""Proves that no pickle of any protocol calls, imports, poisons or exhausts anything; half are written by hand."""

import copyreg
import functools
import operator
import os
import pickle
import random
import struct
import sys
import zipfile

import pytest
import torch
from hostile import Call, as_torch, refused, strings

from segmenter.checkpoints.reading import read
from segmenter.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

heard: list[str] = []
EVENTS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
# There is no way to take such a hook back; it does nothing but remember.
sys.addaudithook(lambda event, arguments: heard.append(f"{event} {arguments!r:.80}") if event in EVENTS else None)


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    """Fails a test in which a file had something looked up, started, connected to or written beside it."""
    monkeypatch.chdir(tmp_path)
    heard.clear()
    yield
    assert not heard
    assert not (tmp_path / "executed").exists()


def small() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"blocks.{i}.weight": torch.randn(3, 4, generator=generator) for i in range(3)}


# ---- calls, as pickles of all protocols have them

CALLS = {
    "system": Call(os.system, "touch executed"),
    "eval": Call(eval, "open('executed', 'w')"),
    "load": Call(torch.hub.load, "a/b", "c"),
    "load_state_dict_from_url": Call(torch.hub.load_state_dict_from_url, "http://localhost/"),
    "_get_layout": Call(torch.serialization._get_layout, "torch.strided"),
    "_rebuild_device_tensor_from_numpy": Call(
        torch._utils._rebuild_device_tensor_from_numpy, [1], torch.float32, "cpu", False
    ),
    "_rebuild_wrapper_subclass": Call(torch._utils._rebuild_wrapper_subclass, torch.Tensor),
    "partial": Call(functools.partial, os.system, "touch executed"),
    "attrgetter": Call(operator.attrgetter, "__class__.__mro__"),
    "getattr": Call(getattr, Call(getattr, "", "__class__"), "__mro__"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", CALLS)
def test_calls_in_every_protocol(tmp_path, name, protocol, old):
    path = tmp_path / "evil.pth"
    content = {"model": [1], "extra": CALLS[name]}
    if old:
        torch.save(content, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    else:
        as_torch(path, pickle.dumps(content, protocol))
    text = refused(path)
    if old and protocol < 2:  # no file of torch's begins like that
        assert "is not a checkpoint: it begins with" in text
    else:
        assert "which could run code; nothing in it was executed" in text
        assert f"{name}, which" in text or "functools.partial" in text or "builtin" in text or "posix.system" in text


def test_a_chain_of_attributes_of_an_inert_type(tmp_path):
    # What a method of an inert type stands for has no attributes, and is no inert type itself.
    namespace = b"cargparse\nNamespace\n"
    chain = b"cbuiltins\ngetattr\ncbuiltins\ngetattr\n" + namespace + strings("__init__") + b"\x86R"
    assert "which could run code" in refused(as_torch(tmp_path / "x.pth", chain + strings("__globals__") + b"\x86R."))
    dotted = b"\x80\x04" + strings("argparse", "Namespace.__init__.__globals__") + b"\x93."
    path = as_torch(tmp_path / "y.pth", dotted)
    assert "holds no weights" in refused(path)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("instruction", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extensions_that_are_registered(tmp_path, instruction, known, monkeypatch):
    copyreg.add_extension("os", "system", 240)
    monkeypatch.setattr(copyreg, "_extension_cache", {240: os.system} if known else {})
    monkeypatch.setattr(pickle, "_extension_cache", copyreg._extension_cache)
    try:
        program = b"\x80\x02" + instruction + strings("touch executed") + b"\x85R."
        assert "names copyreg extension 240" in refused(as_torch(tmp_path / "evil.pth", program))
    finally:
        copyreg.remove_extension("os", "system", 240)


# ---- attributes

NAMESPACE = b"cargparse\nNamespace\n"
STATES = {
    "class": b"}" + strings("__class__") + NAMESPACE + b"s",
    "dunders": b"}(" + strings("__dict__") + b"}" + strings("__reduce__", "x", "__setstate__") + b"N" + strings("name")
    + b"]u",
    "slots": b"N}(" + strings("__class__") + NAMESPACE + strings("name") + b"]u\x86",
    "code": b"N}(" + strings("__code__") + b"N" + strings("__defaults__") + b")" + strings("build") + b"Nu\x86",
}  # fmt: skip
TARGETS = {
    "placeholder": NAMESPACE + b")\x81",
    "inert name": NAMESPACE,
    "function": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "container": b"ccollections\nOrderedDict\n",
    "ordered dict": b"ccollections\nOrderedDict\n)R",
    "type of numbers": b"ctorch\nfloat32\n",
    "set": b"cbuiltins\nset\n)R",
    "text": strings("x"),
    "numpy type": b"cnumpy\ndtype\n" + strings("f8") + b"\x85R",
    "array": b"cnumpy.core.multiarray\n_reconstruct\n)R",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("target", TARGETS)
def test_attributes_that_a_file_sets_change_nothing_for_the_next(tmp_path, target, state):
    path = as_torch(tmp_path / "evil.pth", b"\x80\x02" + TARGETS[target] + STATES[state] + b"b.")
    text = refused(path)
    assert any(part in text for part in ("is cut off or damaged (", "holds no weights"))
    torch.save({"state_dict": small(), "args": 1}, path)
    assert torch.equal(read(path).state["blocks.0.weight"], small()["blocks.0.weight"])


# ---- what takes time or memory without end


def laughs(count: int) -> bytes:
    """A pair of a pair of ... : each twice the same, so that what looks at all of them never ends."""
    return b"K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(count))


ENDLESS = {
    "tuples in tuples as a key": b"})" + b"\x85" * 300_000 + b"K\x01s.",
    "pairs of pairs as a key": b"}" + laughs(60) + b"K\x01s.",
    "pairs of pairs in a set": b"cbuiltins\nset\n](" + laughs(60) + b"e\x85R.",
    "pairs of pairs in a set of protocol 4": b"\x8f(" + laughs(60) + b"\x90.",
    "pairs of pairs in a frozen set": b"(" + laughs(60) + b"\x91.",
    "pairs of pairs in a dict of protocol 0": b"(" + laughs(60) + b"K\x01d.",
    "pairs of pairs as arguments of a list": b"cbuiltins\nlist\nK\x01" + laughs(60) + b"\x86R.",
    "pairs of pairs as a storage": laughs(60) + b"Q.",
    "pairs of pairs as a count": b"(" + strings("storage") + b"ctorch\nFloatStorage\n" + strings("0", "cpu")
    + laughs(60) + b"tQ.",
    "pairs of pairs as a type of numbers": b"cnumpy\ndtype\n" + laughs(60) + b"\x85R.",
    "pairs of pairs as a method": b"cbuiltins\ngetattr\n" + NAMESPACE + laughs(60) + b"\x86R.",
    "a long key": b"}(" + b"K\x01" * 1000 + b"tK\x01s.",
    "a list copied many times": b"](" + b"K\x01" * 300_000 + b"eq\x000cbuiltins\nlist\nq\x010("
    + b"h\x01h\x00\x85R" * 20_000 + b"l.",
    "a text copied many times": strings("a" * 10**6) + b"q\x000c_codecs\nencode\nq\x010("
    + b"h\x01h\x00\x85R" * 20_000 + b"l.",
    "digits of a digest of digits": b"c_codecs\nencode\n" * 40 + strings("ab")
    + (strings("hex") + b"\x86R") * 40 + b".",
    "a shape of many sides": b"ctorch._utils\n_rebuild_tensor_v2\n((" + strings("storage") + b"ctorch\nFloatStorage\n"
    + strings("0", "cpu") + b"K\x04tQK\x00(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x3fq\x05" + b"h\x05" * 200_000
    + b"tq\x06h\x06\x89NtR.",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_pickles_that_would_take_forever(tmp_path, name):
    text = refused(as_torch(tmp_path / "endless.pth", b"\x80\x04" + ENDLESS[name]))
    assert any(part in text for part in ("is cut off or damaged (", "holds no weights", "names builtins.getattr"))


def test_a_key_beside_the_weights_that_is_no_text(tmp_path):
    torch.save({"model": small(), (1, "a"): 2, 3: 4, frozenset({5}): 6}, tmp_path / "keys.pth")
    assert read(tmp_path / "keys.pth").state.keys() == small().keys()


# ---- storages and tensors that lie

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("


def storage(kind: str = "FloatStorage", key: bytes = strings("0"), count: bytes = b"K\x04", word: str = "storage"):
    return b"(" + strings(word) + b"ctorch\n" + kind.encode() + b"\n" + key + strings("cpu") + count + b"tQ"


def tensor(place: bytes = b"K\x00", size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", where: bytes = b""):
    return TENSOR + (where or storage()) + place + size + stride + b"\x89NtR"


LIES = {
    "no tuple": b"K\x01Q",
    "a text": b"Pstorage 0\n",
    "an empty tuple": b")Q",
    "a module": storage(word="module"),
    "more numbers than there are": tensor(where=storage(count=b"K\x05")),
    "fewer numbers than there are": tensor(where=storage(count=b"K\x03"), size=b"K\x03\x85"),
    "a terabyte": tensor(where=storage(count=b"\x8a\x06\x00\x00\x00\x00\x00\x01"), size=b"K\x04\x85"),
    "a count below 0": storage(count=b"J\xff\xff\xff\xff"),
    "a count of half a number": storage(count=b"G?\xe0\x00\x00\x00\x00\x00\x00"),
    "a count that is true": storage(count=b"\x88"),
    "no type": storage(kind="Size"),
    "another type for the same": b"(" + storage() + storage(kind="IntStorage") + b"l",
    "wider numbers": tensor(where=storage(kind="DoubleStorage")),
    "a key that is no text": storage(key=b"K\x00"),
    "a key of another place": storage(key=strings("../version")),
    "a view of a storage": storage()[:-2] + strings("1") + b"K\x00K\x02\x87tQ",
    "a negative place": tensor(place=b"J\xff\xff\xff\xff"),
    "a place beyond": tensor(place=b"K\x04", size=b"K\x01\x85"),
    "a negative stride": tensor(stride=b"J\xff\xff\xff\xff\x85"),
    "a stride beyond": tensor(size=b"K\x02\x85", stride=b"K\x04\x85"),
    "a huge stride": tensor(size=b"K\x02\x85", stride=b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"),
    "a stride of 0": tensor(size=b"J\xff\xff\xff\x7f\x85", stride=b"K\x00\x85"),
    "sides whose product is small by overflow": tensor(
        size=b"\x8a\x05\x00\x00\x00\x00\x01\x8a\x05\x00\x00\x00\x00\x01\x86", stride=b"K\x00K\x00\x86"
    ),
    "more strides than sides": tensor(stride=b"K\x01K\x01\x86"),
    "a size that is a number": tensor(size=b"K\x04"),
    "half a side": tensor(size=b"G?\xe0\x00\x00\x00\x00\x00\x00\x85"),
    "a storage that is a tensor": tensor(where=tensor()),
    "a type of numbers that is a text": b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage()
    + b"K\x00K\x04\x85K\x01\x85\x89N" + strings("float32") + b"tR",
    "wider numbers of a storage without type": b"ctorch._utils\n_rebuild_tensor_v3\n("
    + b"(" + strings("storage") + b"ctorch.storage\nUntypedStorage\n" + strings("0", "cpu") + b"K\x10tQ"
    + b"K\x00K\x05\x85K\x01\x85\x89Nctorch\nfloat32\ntR",
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_storages_and_tensors_that_lie(tmp_path, name):
    path = as_torch(tmp_path / "lie.pth", b"\x80\x02}" + strings("weight") + LIES[name] + b"s.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
    assert "is cut off or damaged (" in refused(path)


def test_the_tensor_that_the_lies_are_made_of_is_read(tmp_path):
    path = as_torch(tmp_path / "true.pth", b"\x80\x02}" + strings("weight") + tensor() + b"s.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
    assert read(path).state["weight"].tolist() == [1, 2, 3, 4]


def old(tensors: bytes, keys: bytes, numbers: bytes, little: bytes = b"\x88") -> bytes:
    """A file as torch before 1.6 wrote it."""
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    system = b"\x80\x02}" + strings("little_endian") + little + b"s."
    return start + system + b"\x80\x02}" + strings("weight") + tensors + b"s." + b"\x80\x02" + keys + b"." + numbers


FOUR = struct.pack("<q4f", 4, 1, 2, 3, 4)
OLD_STORAGE = storage()[:-2] + b"NtQ"
OLD_KEYS = b"](" + strings("0") + b"e"
OLD_LIES = {
    "numbers that are not there": (tensor(where=OLD_STORAGE), OLD_KEYS, FOUR[:-1]),
    "another count before the numbers": (tensor(where=OLD_STORAGE), OLD_KEYS, struct.pack("<q4f", 3, 1, 2, 3, 4)),
    "a negative count before the numbers": (tensor(where=OLD_STORAGE), OLD_KEYS, struct.pack("<q4f", -1, 1, 2, 3, 4)),
    "a terabyte": (tensor(where=OLD_STORAGE.replace(b"K\x04NtQ", b"\x8a\x06\x00\x00\x00\x00\x00\x01NtQ")),
                   OLD_KEYS, struct.pack("<q", 2**40) + FOUR),
    "no keys": (tensor(where=OLD_STORAGE), b"]", FOUR),
    "an unknown key": (tensor(where=OLD_STORAGE), b"](" + strings("0", "1") + b"e", FOUR * 2),
    "a key of pairs of pairs": (tensor(where=OLD_STORAGE), b"](" + laughs(60) + b"e", FOUR),
    "a view": (tensor(where=OLD_STORAGE[:-3] + strings("1") + b"K\x00K\x02\x87tQ"), OLD_KEYS, FOUR),
    "a tensor beyond its storage": (tensor(where=OLD_STORAGE, size=b"K\x08\x85"), OLD_KEYS, FOUR),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD_LIES)
def test_old_files_that_lie(tmp_path, name):
    (tmp_path / "lie.pth").write_bytes(old(*OLD_LIES[name]))
    assert "is cut off or damaged (" in refused(tmp_path / "lie.pth")


def test_the_old_file_that_the_lies_are_made_of_is_read(tmp_path):
    (tmp_path / "true.pth").write_bytes(old(tensor(where=OLD_STORAGE), OLD_KEYS, FOUR))
    assert read(tmp_path / "true.pth").state["weight"].tolist() == [1, 2, 3, 4]


def test_files_of_the_other_byte_order(tmp_path):
    (tmp_path / "old.pth").write_bytes(old(tensor(where=OLD_STORAGE), OLD_KEYS, FOUR, little=b"\x89"))
    assert "is of a version of torch that is not known here" in refused(tmp_path / "old.pth")
    path = as_torch(tmp_path / "new.pth", b"\x80\x02}.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert "was written on a big-endian machine; load and save it with torch there" in refused(path)


# ---- damage of every kind


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, taken out, doubled, or instructions put between."""
    for _ in range(draw.choice((1, 1, 2, 8))):
        place, length = draw.randrange(len(content)), draw.choice((1, 1, 4, 30))
        piece = content[place : place + length]
        new = draw.choice((
            draw.randbytes(length), b"", piece * 2, content[draw.randrange(len(content)) :][:length],
            bytes([draw.choice(pickle.REDUCE + pickle.BUILD + pickle.NEWOBJ + pickle.OBJ + pickle.TUPLE1 + pickle.DUP
                               + pickle.POP + pickle.MARK + pickle.BINPERSID + pickle.SETITEM + pickle.STACK_GLOBAL)]),
            b"cos\nsystem\n" + strings("touch executed") + b"\x85R",
        ))  # fmt: skip
        content = content[:place] + new + content[place + (0 if len(new) > length else length) :]
    return content


@pytest.mark.parametrize("kind", ["new", "old"])
def test_any_damage_of_a_pickle_ends_in_weights_or_a_sentence(tmp_path, kind):
    path, draw = tmp_path / "damaged.pth", random.Random(0)
    torch.save({"model": small(), "n": torch.Size([2])}, path, _use_new_zipfile_serialization=kind == "new")
    whole, parts = path.read_bytes(), {}
    if kind == "new":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    ended = {True: 0, False: 0}
    for _ in range(300):
        if kind == "old":
            path.write_bytes(damaged(whole, draw))
        else:  # written again, as the checksum of the zip file would tell
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in parts.items():
                    archive.writestr(name, damaged(content, draw) if name.endswith("data.pkl") else content)
        try:
            found = read(path)
        except UserError:
            ended[False] += 1
        else:
            assert all(isinstance(tensor, torch.Tensor) and tensor.numel() <= 12 for tensor in found.state.values())
            ended[True] += 1
    assert min(ended.values()) > 0
