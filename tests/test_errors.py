"""Proves that no message is longer than its bound or carries what a terminal would obey, whatever it quotes."""

import pickle
import time

import pytest

from segmenter.data.findings import Finding, Verdict
from segmenter.errors import LISTED, LONGEST, UserError, cleaned, listed, shown


def nested(levels: int, width: int = 9) -> tuple:
    """A tuple that is small in memory and would be endless as text."""
    value: tuple = ("x",)
    for _ in range(levels):
        value = (value,) * width
    return value


def test_plain_values_are_written_as_python_does():
    for value in (1, 1.5, None, True, "a", b"a", [1, "b"], (1,), (1, 2), {"a": [1]}, [], (), {}):
        assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value", [nested(40), "x" * 10**7, 10**4000, list(range(10**6)), {i: nested(30) for i in range(100)}, object()]
)
def test_other_values_are_cut_while_they_are_written(value):
    start = time.perf_counter()
    assert len(shown(value)) <= 100
    assert time.perf_counter() - start < 5  # the whole text would take longer than anybody waits


def test_what_a_terminal_would_obey_is_made_visible():
    text = cleaned("a\x1b[2Jb\nc\x07\u202e\x85\udcff d")
    assert text == "a\\x1b[2Jb\\nc\\x07\\u202e\\x85\\udcff d"
    assert shown("\x1b]0;x") == "'\\x1b]0;x'"


def test_a_sentence_keeps_its_beginning_and_what_to_do():
    text = str(UserError("photo.png is " + "\x1b" * 10**6 + "; copy it again"))
    assert len(text) <= LONGEST
    assert text.startswith("photo.png is \\x1b")
    assert text.endswith("\\x1b; copy it again")
    assert text.isprintable()


def test_a_list_shows_the_first_and_how_many_more():
    error = UserError("these:", [f"- \n{i}" + "x" * 10**4 for i in range(1000)])
    first, *lines = str(error).splitlines()
    assert (first, len(lines), lines[-1]) == ("these:", LISTED + 1, f"- and {1000 - LISTED} more")
    assert all(len(line) <= LONGEST and line.isprintable() for line in lines)
    assert listed(["a", "b"]) == ["a", "b"]


def test_an_error_is_the_same_in_another_process():
    error = UserError("a\nb", ["- c", "- d"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a\\nb\n- c\n- d"
    assert str(UserError(error.args[0])) == "a\\nb"  # cleaned twice is cleaned once


def test_findings_are_bounded_too():
    verdict = Verdict([Finding("error", f"mask\x1b {i} " + "y" * 10**5) for i in range(50)])
    with pytest.raises(UserError) as caught:
        verdict.refuse_errors()
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + LISTED + 1
    assert all(len(line) <= LONGEST and line.isprintable() for line in lines)
