"""Proves that the comparisons take what a case is from its own metadata, and that a wrong weight makes them fail."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from recording import record, spoil

TESTS = sorted(str(path) for path in Path(__file__).parent.glob("test_recorded_*.py"))
SPOILT = "_spoilt"


@pytest.fixture(scope="module")
def compared(tmp_path_factory, environment):
    """Records cases, and runs all comparisons on them and on spoilt copies: names to how many tests ended in which way.

    They are other tests' parameters, and so need a process of their own.
    """
    root = tmp_path_factory.mktemp("cases")
    for name in record(root):
        shutil.copytree(root / name, root / f"{name}{SPOILT}")
        spoil(root / f"{name}{SPOILT}")
    report = root.parent / f"{root.name}.xml"
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *TESTS]
    settings = environment | {"SEGMENTER_GOLDENS": str(root)}
    done = subprocess.run([sys.executable, *arguments], env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # some failed, and nothing else was wrong
    names = sorted((path.name for path in root.iterdir()), key=len, reverse=True)
    found = {name: Counter() for name in names}
    for test in ElementTree.parse(report).iter("testcase"):
        case = next((name for name in names if name in test.get("name").partition("[")[2]), None)
        if case is not None:
            ends = [part.tag for part in test if part.tag in ("failure", "error", "skipped")] or ["passed"]
            found[case].update([*ends, *(f"{test.get('name')} {end}" for end in ends if end in ("failure", "error"))])
    return found


def test_cases_of_other_shapes_are_compared_and_agree(compared):
    for name, outcomes in compared.items():
        if not name.endswith(SPOILT):
            assert outcomes["failure"] + outcomes["error"] == 0, (name, outcomes)
            assert outcomes["passed"] >= 2, (name, outcomes)


def test_a_wrong_weight_makes_every_one_of_them_fail(compared):
    for name, outcomes in compared.items():
        if name.endswith(SPOILT):
            assert outcomes["failure"] >= 1, (name, outcomes)
            assert outcomes["error"] == 0, (name, outcomes)
