"""What is wrong or strange with data, as sentences; found by reading every file of every split, several at a time."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from segmenter.data.pairs import first
from segmenter.data.samples import DataSet, FileSample, Sample
from segmenter.errors import UserError, cleaned
from segmenter.progress import Progress

LISTED = 10  # findings of one kind that are written out
GENERATED = 30  # generated samples looked at in a split: drawing takes time, and none of them can be broken


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`: training refuses) or strange (`warning`)."""

    severity: Literal["error", "warning"]
    text: str

    def __post_init__(self):
        object.__setattr__(self, "text", cleaned(self.text))  # names of files and classes may hold anything


@dataclass(frozen=True)
class Verdict:
    """What findings mean for a training; a report has this beside its numbers."""

    findings: list[Finding]

    def table(self) -> str:
        """The numbers of the report for people."""
        raise NotImplementedError

    def sort(self) -> None:
        """Errors first, each kind in the order in which they were found."""
        self.findings.sort(key=lambda finding: finding.severity)  # "error" < "warning"

    @property
    def warnings(self) -> list[str]:
        """What is strange, but does not keep from training."""
        return [finding.text for finding in self.findings if finding.severity == "warning"]

    def refuse_errors(self) -> None:
        """Raises all the errors together, if there are any.

        Raises:
            UserError: at least one finding is an error.
        """
        errors = [finding.text for finding in self.findings if finding.severity == "error"]
        if errors:
            raise UserError("the data cannot be trained on:", [f"- {text}" for text in errors])


def look_at(dataset: DataSet, look: Callable[[Sample], Any]) -> Iterator[tuple[str, list[Sample], list]]:
    """Each split with its samples and what `look` says of each; a bar shows how far it is."""
    splits = {
        split: [sample for i, sample in enumerate(samples) if isinstance(sample, FileSample) or i < GENERATED]
        for split, samples in dataset.splits.items()
    }
    bar = Progress(total=sum(map(len, splits.values())), desc="check", unit="image", leave=False)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for split, samples in splits.items():
            seen = []
            for result in pool.map(look, samples):
                seen.append(result)
                bar.update()
            yield split, samples, seen


def listed(texts: Sequence[str], more: str, most: int = LISTED) -> list[Finding]:
    """The first texts of a kind as errors, and how many `more` there are."""
    findings = [Finding("error", text) for text in texts[:most]]
    if len(texts) > most:
        findings.append(Finding("error", f"and {len(texts) - most} more {more}"))
    return findings


def duplicates(dataset: DataSet) -> list[Finding]:
    """Images of val and test that are, byte for byte, in train as well: their scores mean nothing."""
    by_size = defaultdict(list)  # only files of equal size are read
    for split, samples in dataset.splits.items():
        for path in (sample.image_path for sample in samples if isinstance(sample, FileSample)):
            if path.is_file():
                by_size[path.stat().st_size].append((split, path))
    twins = defaultdict(list)
    for files in by_size.values():
        if len({split for split, _ in files}) > 1:
            for split, path in files:
                with path.open("rb") as file:
                    twins[hashlib.file_digest(file, "sha256").digest()].append((split, path))
    findings = []
    for other in ("val", "test"):
        same = []
        for files in twins.values():
            train = [path for split, path in files if split == "train"]
            same += [f"{path} = {train[0]}" for split, path in files if split == other and train]
        if same:
            text = f"{len(same)} images of {other} are also in train ({first(same)})"
            findings.append(Finding("warning", f"{text}; scores there come out too high: remove one of each pair"))
    return findings
