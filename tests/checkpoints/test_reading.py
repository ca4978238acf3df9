"""Proves that the weights of a torch file are read as they were written, whatever wrote them."""

import pickle

import numpy as np
import pytest
import torch

from segmenter.checkpoints.reading import read
from segmenter.errors import UserError


def test_every_kind_of_number_in_a_file(tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn]  # fmt: skip
    state = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    whole = torch.arange(24.0).reshape(4, 6)
    state |= {"view": whole[1:3, ::2], "transposed": whole.T, "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    for old in (False, True):
        torch.save(state, tmp_path / "kinds.pth", _use_new_zipfile_serialization=not old)
        found = read(tmp_path / "kinds.pth").state
        assert found.keys() == state.keys()
        for key, value in state.items():
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key].to(torch.complex128), value.to(torch.complex128)), key
    found["view"].zero_()
    assert found["transposed"].any()  # no two tensors share memory


def test_a_plain_pickle_is_named(tmp_path):
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": [1, 2]}))
    with pytest.raises(UserError, match="is a plain pickle"):
        read(tmp_path / "plain.pkl")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path, protocol, old):
    content = {
        "state_dict": {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.nn.Parameter(torch.ones(3))},
        "beside": [b"", b"bytes", {1, 2}, frozenset({3}), (4, (5,)), "text", 2**70, {(6, "7"): 8}],
    }
    options = {"_use_new_zipfile_serialization": not old, "pickle_protocol": protocol}
    torch.save(content, tmp_path / "weights.pth", **options)
    found = read(tmp_path / "weights.pth")
    assert found.about["beside"] == content["beside"]
    assert {key: value.tolist() for key, value in found.state.items()} == {
        "a": [[0, 3], [1, 4], [2, 5]],
        "b": [1, 1, 1],
    }
    assert not any(value.requires_grad for value in found.state.values())


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_either_byte_order(tmp_path, order, old):
    arrays = {"a": np.arange(6, dtype=f"{order}f4").reshape(2, 3), "b": np.arange(3, dtype=f"{order}i8")}
    torch.save(arrays, tmp_path / "weights.pth", _use_new_zipfile_serialization=not old)
    np.savez(tmp_path / "weights.npz", **arrays)
    for name in ("weights.pth", "weights.npz"):
        found = read(tmp_path / name).state
        assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["b"].tolist() == [0, 1, 2]


def test_any_type_of_numbers_that_torch_writes(tmp_path):
    path, read_back = tmp_path / "weights.pth", []
    for dtype in {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}:
        try:
            whole = torch.arange(16, dtype=torch.uint8).view(dtype)
            torch.save({"a": whole}, path)
        except (RuntimeError, KeyError, TypeError):  # torch has no views or no files of quantized numbers
            continue
        try:
            found = read(path).state["a"]
        except UserError:
            assert str(dtype).startswith("torch.q")  # quantized
            continue
        assert found.dtype == dtype
        assert torch.equal(found.view(torch.uint8), whole.view(torch.uint8))
        read_back.append(dtype)
    assert {torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.uint32} < set(read_back)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_no_two_tensors_of_a_file_share_memory(tmp_path, names, old):
    whole = torch.zeros(4)
    state = {"a": whole, "b": whole, "c": torch.nn.Parameter(whole), "d": whole[:2]}
    path = tmp_path / "tied.pth"
    torch.save({name: state[name] for name in names}, path, _use_new_zipfile_serialization=not old)
    found = read(path).state
    for number, tensor in enumerate(found.values()):
        tensor.fill_(number)
    assert [tensor.unique().item() for tensor in found.values()] == list(range(len(names)))


def test_a_part_of_a_storage_does_not_keep_the_rest(tmp_path):
    torch.save({"a": torch.zeros(1000)[:2]}, tmp_path / "part.pth")
    assert read(tmp_path / "part.pth").state["a"].untyped_storage().nbytes() == 8
