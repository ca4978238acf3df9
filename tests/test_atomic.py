"""Proves that files are whole or not there, that no link leads a writer astray, and that errors tell their reason."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segmenter import atomic
from segmenter.errors import UserError

KILLED = """
import os, signal, sys
from pathlib import Path
from segmenter import atomic

def writer(path):
    path.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)

atomic.write(Path(sys.argv[1]), writer)
"""


@pytest.fixture(autouse=True)
def _first_visit(monkeypatch):
    monkeypatch.setattr(atomic, "_visited", set())


@pytest.mark.parametrize("length", [250, 251, 254, 255])
def test_names_as_long_as_the_disk_takes(tmp_path, length):
    path = tmp_path / ("n" * length)
    atomic.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_longer_name_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"could not write .*\(File name too long\): choose a shorter name"):
        atomic.write_text(tmp_path / ("n" * 256), "")
    assert not list(tmp_path.iterdir())


def test_nobody_foresees_where_is_written_and_a_link_there_is_not_followed(tmp_path, monkeypatch):
    names = []
    for _ in range(2):
        atomic.write(tmp_path / "file", lambda path: names.append(path.name) or path.write_text("mine"))
    assert names[0] != names[1]
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: "0" * 2 * size)
    atomic.write(tmp_path / "file", lambda path: names.append(path.name) or path.write_text("mine"))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / names[-1]).symlink_to(victim)
    with pytest.raises(UserError, match="could not write"):
        atomic.write_text(tmp_path / "file", "other")
    assert victim.read_text() == "precious"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_at_the_place_itself_is_replaced_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    atomic.write_text(tmp_path / "file", "mine")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_what_a_killed_writer_left_is_removed_by_the_next_and_nothing_else_is(tmp_path, environment):
    path = tmp_path / "file"
    path.write_text("from before")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "from before"
    left = [other for other in tmp_path.iterdir() if other != path]
    assert len(left) == 1
    assert atomic.is_partial(left[0])
    foreign = tmp_path / left[0].name.replace(atomic._here(), "00000000")  # of another machine, just written
    kept = [tmp_path / "download.zip.part", tmp_path / "state.pt.1.part", foreign]
    for other in kept:
        other.write_text("somebody's")
    living = []

    def writer(beside: Path) -> None:
        beside.write_text("whole")
        atomic._visited.clear()
        atomic.write_text(tmp_path / "other", "")  # clears while this is being written
        living.append(beside.exists())

    atomic.write(path, writer)
    assert living == [True]
    assert path.read_text() == "whole"
    assert {*tmp_path.iterdir()} == {path, tmp_path / "other", *kept}
    os.utime(foreign, (0, 0))
    atomic._visited.clear()
    atomic.write_text(path, "again")
    assert not foreign.exists()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EACCES, "choose a folder that can be written to"),
        (errno.EROFS, "choose a folder that can be written to"),
        (errno.EMFILE, "too many files are open: allow more of them .ulimit -n., or take fewer workers"),
        (errno.EIO, "; the file from before"),
    ],
)
def test_room_is_asked_for_only_where_the_disk_is_full(tmp_path, code, advice):
    def failing(path):
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_text("before")
    with pytest.raises(UserError, match=rf"could not write .*\({os.strerror(code)}\).*{advice}") as error:
        atomic.write(tmp_path / "file", failing)
    assert ("make room" in str(error.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


@pytest.mark.parametrize("full", [True, False])
def test_where_a_library_does_not_say_why_the_disk_is_asked(tmp_path, monkeypatch, full):
    def failing(path):
        raise RuntimeError("unexpected pos 704 vs 598\nat some place")

    def flush(file):
        raise OSError(errno.ENOSPC, "")

    if full:
        monkeypatch.setattr(atomic.os, "fsync", flush)
    with pytest.raises(UserError) as error:
        atomic.write(tmp_path / "file", failing)
    assert ("No space left on device): make room there" in str(error.value)) == full
    assert ("unexpected pos 704 vs 598 at some place" in str(error.value)) != full
    assert not list(tmp_path.iterdir())


def test_rusts_words_are_understood(tmp_path):
    def failing(path):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match=r"\(No space left on device\): make room there"):
        atomic.write(tmp_path / "file", failing)
