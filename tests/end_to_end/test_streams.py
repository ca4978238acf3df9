"""Proves that closed, full and broken streams and environments end every verb with a sentence, and lose no result."""

import errno
import json
import math
import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from segmenter import cli
from segmenter.cli import arguments
from segmenter.cost import benchmark as costs
from segmenter.published import cache

COMMAND = str(Path(sys.executable).parent / "segmenter")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")


@pytest.fixture
def shell(environment, tmp_path):
    """Runs the command with redirections, as a shell does them."""

    def run(redirections: str, *words: object, **variables: str) -> subprocess.CompletedProcess:
        arguments = ["sh", "-c", f'"$0" "$@" {redirections}', COMMAND, *map(str, words)]
        settings = {name: value for name, value in (environment | variables).items() if value is not None}
        return subprocess.run(
            arguments, env=settings, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
        )

    return run


@needs_full
@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_on_a_full_disk(verb, shell):
    done = shell(f"> {FULL}", verb, "--help")
    assert done.returncode == 1
    assert done.stderr == "segmenter: could not write to standard output (No space left on device)\n"


@pytest.mark.parametrize("redirections", [">&-", "< /dev/null >&-", "<&- >&-"])
def test_a_closed_stdout(redirections, shell):
    done = shell(redirections, "--help")
    assert done.returncode == 1
    assert done.stderr == "segmenter: could not write to standard output (Bad file descriptor)\n"


@pytest.mark.parametrize("redirections", ["2>&-", f"2> {FULL}", "<&- 2>&-"])
@pytest.mark.parametrize("words", [("train", "--config", "none", "--out", "run"), ("--help",)])
def test_a_closed_or_full_stderr(redirections, words, shell):
    done = shell(redirections, *words)
    assert done.returncode == (0 if words == ("--help",) else 1)
    assert done.stderr == ""
    assert bool(done.stdout) == (words == ("--help",))  # no message goes where results belong


def test_nobody_listens_at_all(shell, command, disc_run, discs, tmp_path):
    """No file of ours gets the number of a closed stream, so nothing is written into it; the work is done."""
    photos, out = discs / "test" / "images", tmp_path / "out"
    assert shell("<&- >&- 2>&-", "predict", disc_run, photos, "--out", out).returncode == 1
    loud = tmp_path / "loud"
    assert command("predict", disc_run, photos, "--out", loud).status == 0
    files = [{p.relative_to(root): p.read_bytes() for p in root.rglob("*.*")} for root in (out, loud)]
    assert files[0] == files[1]


class Deaf:
    """A stdout that takes nothing."""

    encoding = "utf-8"

    def __init__(self, code: int):
        self.code = code

    def write(self, _: str) -> int:
        raise OSError(self.code, os.strerror(self.code))

    flush = isatty = lambda self: self.write("")

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "no number")


def test_progress_that_cannot_be_shown_spoils_no_work(command, disc_run, discs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Deaf(errno.ENOSPC))
    told = command("predict", disc_run, discs / "test" / "images", "--out", tmp_path / "out", "--json")
    assert told.status == 0
    assert [Path(entry["labels"]).is_file() for entry in json.loads(told.out)] == [True, True]


@pytest.mark.parametrize("verb", ["check", "evaluate", "predict", "convert", "models"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_results_that_nobody_can_have(verb, code, command, disc_run, discs, tmp_path, monkeypatch):
    words = {
        "check": [discs],
        "evaluate": [disc_run, discs, "--workers", 0, "--json"],
        "predict": [disc_run, discs / "test" / "images", "--out", tmp_path / "out"],
        "convert": [disc_run, "--out", tmp_path / "out"],
        "models": [],
    }[verb]
    monkeypatch.setattr(sys, "stdout", Deaf(code))
    told = command(verb, *words)
    assert "Traceback" not in told.err
    last = told.err.splitlines()[-1] if told.err else ""
    if code == errno.EPIPE:
        assert told.status == 0
        assert "standard output" not in last
    else:
        assert told.status == 1
        assert last == f"segmenter: could not write to standard output ({os.strerror(code)})"
    assert verb not in ("predict", "convert") or any((tmp_path / "out").iterdir())


def test_names_that_the_terminal_has_no_letters_for(shell, disc_folder):
    root = disc_folder("Größe…")
    done = shell("", "check", root, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "ready to train" in done.stdout


def test_json_has_no_numbers_that_are_not_finite():
    content = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf, "d": "nan"}, "e": 2}
    found = json.loads(arguments.as_json(content), parse_constant=pytest.fail)
    assert found == {"a": [None, [None, 1.5]], "b": {"c": None, "d": "nan"}, "e": 2}


# ---- environments


def test_a_machine_without_a_home_folder(command, monkeypatch, tmp_path):
    """As in containers whose user is a number alone."""
    for name in ("HOME", cache.CACHE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    told = command("convert", "seg-tiny-mask-ade20k", "--out", tmp_path / "out")
    assert told.status == 1
    assert told.err == (
        "segmenter: there is no home folder here to keep downloaded models in; set SEGMENTER_CACHE to a folder\n"
    )


@pytest.mark.parametrize("verb", ["predict", "convert", "demo", "train", "prepare"])
def test_an_output_folder_that_cannot_be(verb, command, disc_run, discs, tmp_path, tiny_recipe, recipe_file):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    recipe = recipe_file(tiny_recipe(discs, steps=1))
    words = {
        "predict": [disc_run, discs / "test" / "images", "--out", out],
        "convert": [disc_run, "--out", out],
        "demo": ["--out", out],
        "train": ["--config", recipe, "--out", out],
        "prepare": ["camvid", out],
    }[verb]
    told = command(verb, *words)
    assert told.status == 1
    assert "Traceback" not in told.err
    last = told.err.splitlines()[-1]
    assert last.startswith("segmenter: could not write ")
    assert str(tmp_path / "file") in last
    assert (tmp_path / "file").read_text() == "mine"


def test_no_folder_for_temporary_files(command, disc_run, monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(costs, "tempfile", SimpleNamespace(gettempdir=none))
    told = command("benchmark", disc_run, "--size", 64, 64, "--seconds", 0)
    assert told.status == 1
    assert told.err.splitlines()[-1] == "segmenter: No usable temporary directory found in ['/tmp']; set TMPDIR to one"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_what_the_system_refuses_is_a_sentence(verb, command, disc_run, discs, tmp_path, monkeypatch):
    """An error that no verb has foreseen: a name of more letters than the system takes."""
    name = "x" * 5000
    words = {
        "train": ["--config", name, "--out", tmp_path / "run"],
        "check": [name],
        "resume": [name],
        "evaluate": [disc_run, name],
        "predict": [name, discs / "test" / "images", "--out", tmp_path / "out"],
        "calibrate": [name, discs],
        "data": [name, "--out", tmp_path / "out"],
        "explain": [name, discs / "test" / "images", "--out", tmp_path / "out"],
        "report": [name],
        "benchmark": [name],
        "prepare": ["camvid", name],
        "demo": ["--out", name],
        "convert": [name, "--out", tmp_path / "out"],
        "models": [name],
    }[verb]
    told = command(verb, *words)
    assert told.status == 1
    assert "Traceback" not in told.err
    last = told.err.splitlines()[-1]
    assert last.startswith("segmenter: ")
    assert len(last) <= 620


def test_a_librarys_warning_is_one_line_of_the_command(disc_run, command, tmp_path):
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01"  # two entries are promised, a part of one is there
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.jpg", exif=damaged)
    told = command("predict", disc_run, tmp_path / "photo.jpg", "--out", tmp_path / "out")
    assert told.status == 0
    lines = [line for line in told.err.splitlines() if "EXIF" in line]
    assert lines
    assert all(line.startswith("warning: Corrupt EXIF data") for line in lines)
    assert "site-packages" not in told.err
