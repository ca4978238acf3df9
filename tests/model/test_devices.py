"""Proves which device and which precision a name means, and what is said where there is no such thing."""

import pytest
import torch

from segmenter import load
from segmenter.errors import UserError
from segmenter.model.devices import device_of, multiplying_in, precision_of

CPU = torch.device("cpu")


@pytest.fixture
def having(monkeypatch):
    """Makes this machine one with so many CUDA devices, and MPS or not."""

    def change(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return change


@pytest.mark.parametrize(("cuda", "mps", "best"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_is_the_best_there_is(having, cuda, mps, best):
    having(cuda, mps)
    assert device_of("auto") == torch.device(best)


def test_a_named_device_is_that_one(having):
    having(cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert device_of(name) == torch.device(name)


@pytest.mark.parametrize(
    ("cuda", "name", "text"),
    [
        (0, "cuda", "there is no CUDA device here for --device cuda; write --device cpu"),
        (0, "cuda:1", "there is no CUDA device here for --device cuda:1; write --device cpu"),
        (0, "mps", "there is no MPS device here for --device mps; write --device cpu"),
        (2, "cuda:2", "there is no cuda:2 here, the last CUDA device is cuda:1; write --device cuda:1"),
        (2, "gpu", "there is no device 'gpu'; write auto, cpu, cuda, cuda:1 (the second one) or mps"),
        (2, "cuda:x", "there is no device 'cuda:x'; write auto, cpu, cuda, cuda:1 (the second one) or mps"),
    ],
)
def test_what_is_not_there_is_said(having, cuda, name, text):
    having(cuda)
    with pytest.raises(UserError) as error:
        device_of(name)
    assert str(error.value) == text


def test_a_precision_is_what_was_asked_for():
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert {name: precision_of(name, torch.device("cuda")) for name in names} == names
    assert [precision_of(name, CPU) for name in ("fp32", "bf16")] == [torch.float32, torch.bfloat16]
    with pytest.raises(UserError, match="fp16 is for GPUs, CPUs compute it much slower than fp32; write --precision"):
        precision_of("fp16", CPU)
    with pytest.raises(UserError, match="there is no precision 'half'; write auto or fp32 or bf16 or fp16"):
        precision_of("half", CPU)


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bf16_only_where_the_device_computes_it_natively(monkeypatch, able):
    wanted = torch.bfloat16 if able else torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able and not including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able}, raising=False)
    assert precision_of("auto", torch.device("cuda")) == wanted
    assert precision_of("auto", CPU) == wanted
    assert precision_of("auto", torch.device("mps")) == torch.float32


def test_a_network_multiplies_in_its_precision_and_fp32_leaves_the_callers():
    square = torch.ones(4, 4)
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        with multiplying_in(precision, CPU):
            assert (square @ square).dtype == precision
    with torch.autocast("cpu", torch.bfloat16), multiplying_in(torch.float32, CPU):
        assert (square @ square).dtype == torch.bfloat16


def test_what_cannot_be_had_is_said_before_the_files_are_looked_for(having):
    having()
    with pytest.raises(UserError, match="there is no CUDA device here"):
        load("nothing", device="cuda")
    with pytest.raises(UserError, match="there is no precision 'fp8'"):
        load("nothing", precision="fp8")
