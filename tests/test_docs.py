"""Proves that the pages name what exists: tests in docs/robustness.md, pages and files in links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


def test_every_kind_of_bad_input_names_a_test_that_exists():
    text = (ROOT / "docs" / "robustness.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(?:Test\w+::)?(test_\w+)", text)
    assert len(named) >= 120
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
