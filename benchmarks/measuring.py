"""What the benchmarks share: measurements in turn, ratios with their spread, one table for the screen, JSON and file.

A benchmark makes `Row`s and hands them to `report`:

    arguments = options(__doc__)
    seconds = in_turn({"ours": f, "torch": g}, arguments.rounds)
    report([Row("labels", "interpolate + argmax", "ms", seconds["ours"], seconds["torch"], wanted=20)], arguments)
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from segmenter.cost.measuring import Spread, machine, short, synchronize

RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
SCALES = {"ms": 1e-3, "MiB": 2**20}
NOT_MEASURED = "not measured yet"


@dataclass
class Row:
    """Ours against something else; `ours` and `theirs` hold one value a round, in seconds or bytes."""

    what: str
    against: str
    unit: str
    """`ms` or `MiB`, as shown."""
    ours: list[float] | None
    theirs: list[float] | None
    """None: not measured."""
    wanted: float | None = None
    """Least ratio theirs / ours."""

    @property
    def ratio(self) -> Spread | None:
        """Theirs / ours: round by round, so that both met the same disturbances."""
        if not self.ours or not self.theirs:
            return None
        return Spread.of([theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)])

    def cells(self) -> list[str]:
        """The row of the table."""
        shown = [
            f"{Spread.of([value / SCALES[self.unit] for value in values])} {self.unit}" if values else NOT_MEASURED
            for values in (self.ours, self.theirs)
        ]
        wanted = short(self.wanted) if self.wanted else ""
        return [self.what, self.against, *shown, str(self.ratio) if self.ratio else NOT_MEASURED, wanted]

    def to_dict(self) -> dict:
        """The same for programs, every round's value in seconds or bytes."""
        about = {"what": self.what, "against": self.against, "unit": {"ms": "s", "MiB": "bytes"}[self.unit]}
        ratio = self.ratio._asdict() if self.ratio else None
        return about | {"ours": self.ours, "theirs": self.theirs, "ratio": ratio, "wanted": self.wanted}


def options(documentation: str, rounds: int = 15) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `documentation` is the module's."""
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--write", action="store_true", help=f"write the table to {RESULTS.name}/NAME.md")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--no-compile", action="store_true", help="leave out what torch.compile makes of it")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given, the threads set."""
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def in_turn(
    functions: dict[str, Callable[[], object]], rounds: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Seconds of each function in each round; all are called in every round, every other time in reverse order.

    One round before warms up (and compiles).
    """
    device = device or torch.device("cpu")
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in list(functions.items())[:: 1 if number % 2 else -1]:
            synchronize(device)
            since = time.perf_counter()
            function()
            synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - since)
    return seconds


def missing(package: str) -> bool:
    """Whether a library to compare with is not installed; says so."""
    if importlib.util.find_spec(package):
        return False
    print(f"{package} is not installed: left out", file=sys.stderr)
    return True


def report(rows: list[Row], arguments: argparse.Namespace, device: torch.device | None = None, note: str = "") -> None:
    """Prints the table with command, machine and date; writes it as the options say."""
    name = Path(sys.argv[0]).stem
    command = " ".join(["python -m", f"benchmarks.{name}", *_without_folders(sys.argv[1:])])
    where = machine(device or torch.device("cpu"))
    table = markdown(["what", "against", "ours", "theirs", "theirs / ours", "wanted"], [row.cells() for row in rows])
    rounds = f" Median (quarters) of {arguments.rounds} rounds." if arguments.rounds > 1 else ""
    lines = [f"`{command}`, {where}, {date.today()}.{rounds}", "", table]
    text = "\n".join([*lines, *([note, ""] if note else [])])
    print(text)
    if arguments.json:
        about = {"command": command, "machine": where, "date": str(date.today()), "note": note}
        arguments.json.write_text(json.dumps(about | {"rows": [row.to_dict() for row in rows]}, indent=1) + "\n")
    if arguments.write:
        write_between(RESULTS / f"{name}.md", text)


def _without_folders(words: list[str]) -> list[str]:
    """A command's words as they are shown: files by their names, and not where the results go."""
    kept, skip = [], False
    for word in words:
        if not skip and word != "--write" and not word.startswith("--json"):
            kept.append(Path(word).name if "/" in word else word)
        skip = word == "--json"
    return kept


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def write_between(path: Path, text: str) -> None:
    """Puts the text between the marks of a file, which is made if it is not there."""
    before, rest = (path.read_text() if path.exists() else BEGIN + END).split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}{text}{END}{rest.split(END, 1)[1]}")
