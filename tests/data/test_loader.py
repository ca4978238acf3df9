"""Proves that processes that load images end with the main one, whatever ends it."""

import subprocess
import sys

SCRIPT = """
from torch.utils.data import Dataset

from segmenter.data.loader import loaded


class Endless(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return index


with loaded(Endless(), workers=1) as numbers:
    for number in numbers:
        raise RuntimeError("unforeseen")
"""


def test_an_error_nobody_foresaw_ends_the_command(environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: unforeseen")
