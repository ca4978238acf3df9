"""The files that a verb writes into a folder: it overwrites only its own, and only with `overwrite`.

Its own are those that a list beside them names with their sha256. A mark inside a file would survive a correction by
hand, and .npy has no place for one.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from segmenter import atomic
from segmenter.data.apart import refuse_data
from segmenter.download import digest
from segmenter.errors import UserError

LIST = "predicted.jsonl"
LISTS = {"predict": LIST, "explain": "explained.jsonl", "check": "doubted.jsonl"}
LONGEST = 2**16  # characters of a line in it
Write = Callable[[Path, Callable[[Path], object]], None]


class Results:
    """The results of a verb in a folder."""

    def __init__(self, folder: Path, verb: str = "predict"):
        self.folder, self.verb, self.list = folder, verb, folder / LISTS[verb]
        self._replaced: set[Path] = set()

    def claim(self, paths: Sequence[Path], overwrite: bool) -> None:
        """Checks that all these files may be written below the folder.

        Raises:
            UserError: the folder holds data, or files that the verb did not write, or results without `overwrite`.
        """
        below = dict.fromkeys(self.folder / path.relative_to(self.folder).parts[0] for path in paths)
        refuse_data([self.folder, *below])
        if self.list.is_symlink() or (self.list.exists() and not self.list.is_file()):
            raise UserError(f"{self.list} is not a file, but {self.verb} lists its results there; choose another --out")
        there = [path for path in paths if os.path.lexists(path)]
        recorded = self._recorded() if there else {}
        foreign = [path for path in there if not self._is_own(path, recorded)]
        if foreign:
            raise UserError(
                f"{self.folder} holds {len(foreign)} files in the place of results that {self.verb} did not write, or "
                "that were changed since; choose another --out:",
                [f"- {path}" for path in foreign],
            )
        if there and not overwrite:
            raise UserError(
                f"{self.folder} holds {len(there)} results of an earlier {self.verb}; choose another --out, or add "
                "--overwrite to replace them:",
                [f"- {path}" for path in there],
            )
        self._replaced = set(there)

    def write(self, path: Path, writer: Callable[[Path], object]) -> None:
        """Writes a file as `atomic.write` does, and records it as a result.

        Raises:
            UserError: as there, or another process has written it since.
        """
        if path not in self._replaced and os.path.lexists(path):
            raise UserError(f"{path} appeared after {self.verb} began; choose another --out")

        def write_and_record(beside: Path) -> None:
            writer(beside)
            self._record(path, digest(beside))

        atomic.write(path, write_and_record)

    def _is_own(self, path: Path, recorded: dict[str, set[str]]) -> bool:
        if path.is_symlink() or not path.is_file():
            return False
        return digest(path) in recorded.get(path.relative_to(self.folder).as_posix(), ())

    def _recorded(self) -> dict[str, set[str]]:
        """Hashes of each result; lines that are not results, such as one cut off by a kill, are skipped."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        if self.list.is_file():
            with self.list.open(encoding="utf-8", errors="replace") as lines:
                while line := lines.readline(LONGEST):
                    try:
                        entry = json.loads(line)
                        found[entry["file"]].add(entry["sha256"])
                    except (ValueError, TypeError, KeyError, RecursionError):
                        continue
        return found

    def _record(self, path: Path, found: str) -> None:
        """Records a file before it is moved into place: after a kill in between, the old file or none is there."""
        entry = json.dumps({"file": path.relative_to(self.folder).as_posix(), "sha256": found})
        with self.list.open("a+b") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            cut = file.read() not in (b"", b"\n")
            file.write(b"\n" * cut + entry.encode() + b"\n")
