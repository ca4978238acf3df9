"""Proves that threads work alone on pieces, change no result and no setting, and pass on errors; also when forked."""

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from composition import smooth

from segmenter import upsample
from segmenter.upsample import Geometry, argmax, bands, pixel_losses, stream, threads

CPU = torch.device("cpu")
PLAIN = Geometry((9, 11), (144, 176), content=(140, 171))
WINDOWS = Geometry((6, 6), (96, 96), windows=((0, 80), (0, 80)), final=(150, 160))
FINE = Geometry((60, 70), (60, 70))


@pytest.fixture(autouse=True)
def _many_pieces(monkeypatch) -> Iterator[None]:
    """There is something to share, and torch's setting is as it was afterwards."""
    for module, name in ((stream, "CHUNK"), (bands, "TILE"), (argmax, "POINTS"), (pixel_losses, "SMALL")):
        monkeypatch.setattr(module, name, 10_000)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def with_gradient(loss: Callable, geometry: Geometry, classes: int = 40, **options) -> list[torch.Tensor]:
    """A loss of two images and its gradient."""
    logits = smooth((2 * geometry.window_count, classes, *geometry.grid)).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (2, *geometry.size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    value = loss(logits, labels, geometry, **options)
    return [value.detach(), torch.autograd.grad(value, logits)[0]]


def predicted(geometry: Geometry) -> list[torch.Tensor]:
    """Labels, counts, probabilities and their labels."""
    logits = smooth((2 * geometry.window_count, 40, *geometry.grid))
    passes = [(logits[: geometry.window_count], geometry), (logits[geometry.window_count :], geometry)]
    found = upsample.labels(logits, geometry)
    counts = upsample.confusion(logits, found.roll(3, 2), geometry)
    return [found, counts, upsample.labels_of_mean(passes), *(p for _, p in upsample.mean_probabilities(passes))]


WEIGHT = torch.linspace(0.5, 2, 40)
CALLS = {
    "predicted": lambda: predicted(PLAIN),
    "predicted, windows": lambda: predicted(WINDOWS),
    "predicted, fine": lambda: predicted(FINE),
    "loss": lambda: with_gradient(upsample.cross_entropy, PLAIN, weight=WEIGHT, smoothing=0.1),
    "loss, windows": lambda: with_gradient(upsample.cross_entropy, WINDOWS, weight=WEIGHT),
    "loss, fine": lambda: with_gradient(upsample.cross_entropy, FINE, weight=WEIGHT, smoothing=0.1),
    "loss, few classes": lambda: with_gradient(upsample.cross_entropy, PLAIN, 3),
    "loss, hard": lambda: with_gradient(upsample.cross_entropy, PLAIN, hard=0.3),
    "loss, hard, fine": lambda: with_gradient(upsample.cross_entropy, FINE, hard=0.3),
    "dice": lambda: with_gradient(upsample.dice, PLAIN),
    "dice, fine": lambda: with_gradient(upsample.dice, FINE),
}


def alike(ours: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(*pair) for pair in zip(ours, others, strict=True))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_results_are_those_of_one_thread_bit_for_bit(call):
    torch.set_num_threads(1)
    wanted = call()
    for number in (2, 3):
        torch.set_num_threads(number)
        assert alike(call(), wanted)
        assert torch.get_num_threads() == number


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_operation_runs_on_one_thread(call, monkeypatch):
    seen, each = [], threads.each

    def watched(function, pieces):
        def look(piece):
            result = function(piece)
            seen.append((torch.get_num_threads(), threading.current_thread().name))
            return result

        return each(look, pieces)

    for name in ("argmax", "probabilities", "stream", "pixel_losses", "losses"):
        monkeypatch.setattr(sys.modules[f"segmenter.upsample.{name}"], "each", watched)
    torch.set_num_threads(2)
    call()
    assert len(seen) > 4
    assert {number for number, _ in seen} == {1}
    assert all(name.startswith("segmenter pixels") for _, name in seen)


def test_as_many_threads_as_the_caller_has():
    meeting = threading.Barrier(3)
    torch.set_num_threads(3)
    threads.in_own_thread(CPU, lambda: threads.each(lambda _: meeting.wait(60), range(3)))  # each waits for the others
    torch.set_num_threads(1)
    here = threading.current_thread()
    seen = threads.in_own_thread(CPU, lambda: threads.each(lambda _: threading.current_thread(), range(5)))
    assert seen == [here] * 5


def test_results_come_in_the_order_of_the_pieces():
    torch.set_num_threads(3)
    found = threads.in_own_thread(CPU, lambda: threads.each(lambda i: time.sleep((10 - i) / 1000) or i, range(10)))
    assert found == list(range(10))


def test_threads_that_start_later_have_the_setting_as_it_was():
    torch.set_num_threads(3)
    predicted(PLAIN)
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3]


def test_many_callers_at_once():
    torch.set_num_threads(1)
    wanted, found = CALLS["loss"](), []
    torch.set_num_threads(2)
    callers = [threading.Thread(target=lambda: found.append(CALLS["loss"]())) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert len(found) == 6
    assert all(alike(one, wanted) for one in found)


def test_modes_are_those_of_the_caller():
    torch.set_num_threads(2)
    modes = lambda: (torch.is_inference_mode_enabled(), torch.is_grad_enabled())  # noqa: E731
    everywhere = lambda: threads.in_own_thread(CPU, lambda: threads.each(lambda _: modes(), range(4)))  # noqa: E731
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            assert everywhere() == [modes()] * 4
    wanted = predicted(PLAIN)
    with torch.inference_mode():
        found = predicted(PLAIN)
        assert all(tensor.is_inference() for tensor in found[:2])
        assert alike(found, wanted)


def test_who_watches_every_operation_sees_them_all(largest_tensor):
    logits = smooth((1, 40, *PLAIN.grid))
    sizes = []
    for number in (1, 2):
        torch.set_num_threads(number)
        with largest_tensor() as largest:
            upsample.labels(logits, PLAIN)
        sizes.append(largest.elements)
    assert sizes[0] == sizes[1] > logits.numel()


def test_an_error_reaches_the_caller_and_ends_the_work():
    torch.set_num_threads(2)
    begun = []

    def fail(piece: int) -> None:
        begun.append(piece)
        raise ArithmeticError(f"piece {piece}")

    with pytest.raises(ArithmeticError, match=r"piece [01]"):
        threads.in_own_thread(CPU, lambda: threads.each(fail, range(1000)))
    assert len(begun) <= 2
    truth = torch.full((2, *PLAIN.size), 40)
    with pytest.raises(ValueError, match="the labels hold 40, but there are 40 classes"):
        upsample.confusion(smooth((2, 40, *PLAIN.grid)), truth, PLAIN)
    with pytest.raises(ValueError, match="the labels hold 40, but there are 40 classes"):
        upsample.cross_entropy(smooth((2, 40, *PLAIN.grid)), truth, PLAIN)
    torch.set_num_threads(1)
    wanted = predicted(PLAIN)
    torch.set_num_threads(2)
    assert alike(predicted(PLAIN), wanted)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes do not fork here")
def test_in_a_forked_process():
    script = """
import os, torch
from segmenter import upsample
torch.set_num_threads(2)
logits, geometry = torch.randn(2, 40, 9, 11), upsample.Geometry((9, 11), (144, 176))
wanted = upsample.labels(logits, geometry)
child = os.fork()
same = torch.equal(upsample.labels(logits, geometry), wanted)
if child == 0:
    os._exit(0 if same else 1)
print(same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "True 0\n", ended.stderr


def test_while_the_interpreter_ends():
    script = """
import atexit, torch
from segmenter import upsample
torch.set_num_threads(2)
logits, geometry = torch.randn(2, 40, 9, 11), upsample.Geometry((9, 11), (144, 176))
wanted = upsample.labels(logits, geometry)
atexit.register(lambda: print(torch.equal(upsample.labels(logits, geometry), wanted)))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
