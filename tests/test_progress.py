"""Proves that progress is a line now and then where nothing can be redrawn, and never ends what it tells of."""

import sys
from contextlib import suppress

import pytest

from segmenter import progress
from segmenter.progress import Progress, say


def test_without_a_terminal_only_the_end_of_what_is_quick_is_told(capfd):
    for _ in Progress(range(5), "look", unit="image"):
        pass
    for _ in Progress(range(5), "unseen", unit="image", leave=False):
        pass
    err = capfd.readouterr().err
    assert err.startswith("look: 100%, 5/5 image, ")
    assert err.count("\n") == 1
    assert "\r" not in err


def test_without_a_terminal_a_line_is_written_every_30_seconds(capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(total=100, desc="train", unit="step") as bar:
        for step in range(100):
            now[0] += 1.0
            bar.update()
            bar.set_postfix_str(f"loss {step}")
            bar.refresh()
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(",")[1] for line in lines] == [f" {step}/100 step" for step in (30, 60, 90, 100)]
    assert "loss 99" in lines[-1]


def test_what_nobody_wants_to_see_is_silent(capfd, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Progress(total=3, desc="train", unit="step", disable=True) as bar:
        bar.set_postfix_str("loss")
        bar.update(3)
    assert capfd.readouterr().err == ""


def test_how_much_there_is_may_be_unknown(capfd):
    with Progress(desc="file", unit="B", unit_scale=True) as bar:
        bar.update(2000)
    assert capfd.readouterr().err.startswith("file: 2.00k B, ")


def test_on_a_terminal_it_is_redrawn(capfd, monkeypatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    for _ in Progress(range(5), "look", unit="image"):
        pass
    err = capfd.readouterr().err
    assert err.count("\r") >= 2
    assert "look: 100%|" in err


@pytest.mark.parametrize("gone", ["full", "closed", "none"])
def test_a_stderr_that_takes_nothing_ends_nothing(monkeypatch, gone):
    with suppress(OSError), open("/dev/null" if gone == "closed" else "/dev/full", "w") as file:
        if gone == "closed":
            file.close()
        monkeypatch.setattr(sys, "stderr", None if gone == "none" else file)
        say("step 1: val mean iou 0.5")
        seen = list(Progress(range(3), "look"))
        monkeypatch.undo()
    assert seen == [0, 1, 2]
