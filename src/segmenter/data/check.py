"""Reads every mask of a data set and says what would spoil a training, and what to write instead.

Images are opened for their size only. The counts of pixels a class also give the weights of a balanced loss.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segmenter.data.classes import Classes
from segmenter.data.files import image_size
from segmenter.data.findings import Finding, Verdict, duplicates, listed, look_at
from segmenter.data.likeness import MANY, PHOTO, SPOILT, likeness, warning_text
from segmenter.data.pairs import first
from segmenter.data.samples import DataSet, FileSample, Sample, size_text
from segmenter.errors import UserError

KINDS = {"unreadable": "unreadable files", "size": "sizes that differ", "value": "values without class"}


@dataclass(frozen=True)
class LabelReport(Verdict):
    """What `check_labels` found, and per split the pixels of each class (K integers)."""

    classes: Classes
    pixel_counts: dict[str, np.ndarray]
    """Pixels of each class."""
    image_pixels: dict[str, np.ndarray]
    """Labelled pixels (not ignored) of the images in which each class occurs."""
    ignored: dict[str, int]
    """Ignored pixels."""

    def table(self) -> str:
        """Share of each class, and of what is ignored, in the pixels of each split, in percent."""
        names = ["class", *self.classes.names, "(ignored)"]
        columns = [[f"{name:{max(map(len, names))}}" for name in names]]
        for split, counts in self.pixel_counts.items():
            pixels = np.append(counts, self.ignored[split])
            shares = 100 * pixels / max(pixels.sum(), 1)
            columns.append([f"{split:>8}", *(f"{share:7.2f}%" for share in shares)])
        return "\n".join("  ".join(row) for row in zip(*columns, strict=True))


@dataclass
class _Seen:
    """What one sample holds."""

    counts: np.ndarray | None = None
    """Pixels of each class (K); None where there is no mask, or none that could be counted."""
    ignored: int = 0
    """Ignored pixels."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Kind and text of each error."""
    unknown: list[str] = field(default_factory=list)
    """Mask values without class."""
    like: str | None = None
    """What it looks like where it is no mask, see `likeness`."""


def check_labels(dataset: DataSet) -> LabelReport:
    """Read all masks and image headers of every split; nothing wrong with a file stops it, errors come first."""
    classes = dataset.classes
    report = LabelReport([], classes, {}, {}, {})
    for split, samples, seen in look_at(dataset, lambda sample: _look(sample, classes)):
        counts = np.array([result.counts for result in seen if result.counts is not None])
        counts = counts.reshape(-1, len(classes))  # images K
        report.pixel_counts[split] = counts.sum(0)
        report.image_pixels[split] = ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)
        report.ignored[split] = sum(result.ignored for result in seen)
        report.findings.extend(_file_findings(samples, seen, classes) + _mask_findings(split, samples, seen))
    report.findings.extend(_class_findings(report) + duplicates(dataset))
    report.findings.extend(Finding("warning", note) for note in dataset.notes)
    report.sort()
    return report


def median_frequency_weights(report: LabelReport, split: str = "train") -> np.ndarray:
    """Weights of the classes in the loss (K, float32): median frequency / frequency; 1 where none occurs.

    A class's frequency is its pixels over the labelled pixels of the images in which it occurs.
    Source: Eigen and Fergus, arXiv 1411.4734, section 6.3.1.
    """
    counts, in_images = report.pixel_counts[split], report.image_pixels[split]
    occurs = counts > 0
    weights = np.ones(len(counts), dtype=np.float32)
    if occurs.any():
        frequency = counts[occurs] / in_images[occurs]
        weights[occurs] = np.median(frequency) / frequency
    return weights


def _look(sample: Sample, classes: Classes) -> _Seen:
    """Size, values and counts of one sample."""
    seen = _Seen()
    if not isinstance(sample, FileSample):
        return _count(sample.target(), classes, seen)
    size = None
    try:
        size = image_size(sample.image_path)
    except UserError as error:
        seen.problems.append(("unreadable", str(error)))
    if sample.target_path is None:
        return seen
    try:
        mask = sample.stored(classes.by_color)
    except UserError as error:
        seen.problems.append(("unreadable", str(error)))
        return seen
    if size is not None and mask.shape[:2] != size:
        seen.problems.append(("size", size_text(sample, size, mask.shape[:2])))
    labels, seen.unknown = classes.lookup(mask)
    if seen.unknown:
        seen.like = likeness(mask)
        return seen
    seen = _count(labels, classes, seen)
    if np.count_nonzero(seen.counts) >= MANY:
        seen.like = likeness(mask)
    return seen


def _count(labels: np.ndarray, classes: Classes, seen: _Seen) -> _Seen:
    seen.counts = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]  # ignore lies above
    seen.ignored = labels.size - int(seen.counts.sum())
    return seen


def _file_findings(samples: Sequence[Sample], seen: Sequence[_Seen], classes: Classes) -> list[Finding]:
    """What is wrong with single files; values without class are reported once per value, not once per file."""
    by_kind = defaultdict(list)
    holders = defaultdict(list)
    for sample, result in zip(samples, seen, strict=True):
        for kind, text in result.problems:
            by_kind[kind].append(text)
        for value in result.unknown if result.like is None else ():
            holders[value].append(str(sample.target_path))
    for value, masks in holders.items():
        subject = f"{masks[0]} holds" if len(masks) == 1 else f"{len(masks)} masks ({first(masks)}) hold"
        by_kind["value"].append(f"{subject} {classes.unknown_text(value)}")
    return [finding for kind, texts in by_kind.items() for finding in listed(texts, KINDS[kind])]


def _mask_findings(split: str, samples: Sequence[Sample], seen: Sequence[_Seen]) -> list[Finding]:
    """Masks that can be read but teach nothing, are not masks, or were stored with loss."""
    findings = []
    for kind in (PHOTO, SPOILT):
        alike = [(sample, result) for sample, result in zip(samples, seen, strict=True) if result.like == kind]
        if alike:
            severity = "error" if any(result.unknown for _, result in alike) else "warning"
            masks = [sample.target_path for sample, _ in alike]
            findings.append(Finding(severity, f"{split}: {warning_text(kind, masks, len(samples))}"))
    pairs = zip(samples, seen, strict=True)
    empty = [sample.name for sample, result in pairs if result.counts is not None and not result.counts.any()]
    if empty:
        text = f"{split}: {len(empty)} of {len(samples)} masks hold nothing but ignored pixels ({first(empty)})"
        findings.append(Finding("warning", f"{text}; they teach nothing: label them or remove them"))
    lossy = [str(sample.target_path) for sample in samples if _is_jpeg(sample)]
    if lossy:
        text = f"{split}: {len(lossy)} masks are JPEG files ({first(lossy)})"
        findings.append(Finding("warning", f"{text}, which changes values at edges; export them as PNG"))
    return findings


def _is_jpeg(sample: Sample) -> bool:
    mask = sample.target_path if isinstance(sample, FileSample) else None
    return mask is not None and mask.suffix.lower() in (".jpg", ".jpeg")


def _class_findings(report: LabelReport) -> list[Finding]:
    """Classes that cannot be learnt, because no training mask holds them."""
    counts = report.pixel_counts.get("train", np.ones(len(report.classes)))
    findings = []
    for i in np.flatnonzero(counts == 0).tolist():
        text = f"no training mask holds class {i} ({report.classes.names[i]})"
        if report.ignored["train"] and not report.classes.values:  # else it is stated what the masks mean
            share = report.ignored["train"] / (counts.sum() + report.ignored["train"])
            value = report.classes.ignore
            text += f", but {share:.0%} of the pixels are ignored; if {value} means it: --data.map {value}:{i}"
        findings.append(Finding("warning", text))
    return findings
