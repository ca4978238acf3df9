"""Proves of mutated files of every kind that they are read as something valid, or refused in a sentence.

The long run is `python -m benchmarks.fuzz`, which measures time as well.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are no part of the package

from benchmarks import fuzz

KINDS = (
    "classes.yaml", "recipe", "config.json", "mask", "image", "depth", "pickle", "pickle in a zip", "safetensors",
    "model.safetensors",
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def subjects(tmp_path_factory) -> dict[str, fuzz.Subject]:
    return fuzz.subjects(tmp_path_factory.mktemp("subjects"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_good_files_are_read(subjects, tmp_path, kind):
    for content in subjects[kind].good:
        found = fuzz.outcome(subjects[kind], content, tmp_path / f"x{subjects[kind].suffix}")
        assert not found.wrong
        assert not found.refused or kind == "mask"  # JPEG and WebP change colours


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_changed_in_a_file_it_is_valid_or_refused(subjects, tmp_path, kind):
    assert set(subjects) == set(KINDS)
    subject = subjects[kind]

    @settings(
        max_examples=40, derandomize=True, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(fuzz.spoilt(subject))
    def read(content: bytes) -> None:
        found = fuzz.outcome(subject, content, tmp_path / f"x{subject.suffix}")
        assert not found.wrong
        assert found.megabytes < fuzz.MEGABYTES

    read()


def test_the_long_run_prints_a_table_and_keeps_what_went_wrong(subjects, tmp_path, monkeypatch, capsys):
    def read(path: Path) -> None:
        raise KeyError("a reader's fault")

    monkeypatch.setattr(fuzz, "subjects", lambda _: {"broken": fuzz.Subject(".x", [b"good"], read)})
    fuzz.fuzz(minutes=0.005, keep=tmp_path / "kept", examples=5)
    assert "KeyError in test_properties.py" in capsys.readouterr().out
    assert (tmp_path / "kept" / "broken 0").is_file()
