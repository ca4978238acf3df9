"""Reads every depth map of a data set and says what would spoil a training, and what to write instead.

As `check` does with masks. Images are opened for their size only.
"""

from dataclasses import dataclass, field

import numpy as np

from segmenter.data.depth_files import ScaleMissing
from segmenter.data.files import image_size
from segmenter.data.findings import Finding, Verdict, duplicates, listed, look_at
from segmenter.data.samples import DataSet, Sample
from segmenter.errors import UserError

# Metres between which the median of a data set lies; else the scale is probably not what was meant.
PLAUSIBLE = (0.05, 1000.0)


@dataclass(frozen=True)
class Range:
    """What the maps of one split hold."""

    maps: int
    measured: float
    """Share of the pixels, 0 to 1."""
    nearest: float
    """Metres, as the next two."""
    median: float
    """Of the medians of the maps."""
    farthest: float


@dataclass(frozen=True)
class DepthReport(Verdict):
    """What `check_depth` found."""

    ranges: dict[str, Range]
    """By split; none where no map of it could be read."""

    def table(self) -> str:
        """Maps, share of measured pixels and range of the depth in each split."""
        rows = [f"{'split':6}  {'maps':>6}  {'measured':>8}  {'nearest':>8}  {'median':>8}  {'farthest':>8}"]
        rows += [
            f"{split:6}  {found.maps:6}  {100 * found.measured:7.1f}%  {found.nearest:8.4g}  {found.median:8.4g}  "
            f"{found.farthest:8.4g}"
            for split, found in self.ranges.items()
        ]
        return "\n".join(rows)


@dataclass
class _Seen:
    """What one sample holds."""

    measured: float | None = None
    """Share of its pixels; None where there is no map, or none that could be read."""
    depths: tuple[float, float, float] = (np.nan,) * 3
    """Nearest, median and farthest, metres."""
    no_scale: bool = False
    problems: list[str] = field(default_factory=list)


def check_depth(dataset: DataSet) -> DepthReport:
    """Reads all depth maps and image headers of every split; nothing wrong with a file stops it, errors come first."""
    report = DepthReport([], {})
    for split, _, seen in look_at(dataset, _look):
        report.findings.extend(_file_findings(seen))
        read = [result for result in seen if result.measured is not None]
        if read:
            nearest, median, farthest = np.array([result.depths for result in read]).T
            share = float(np.mean([result.measured for result in read]))
            found = Range(len(read), share, nearest.min(), np.median(median), farthest.max())
            report.ranges[split] = found
            if dataset.settings.depth_kind == "depth" and not PLAUSIBLE[0] <= found.median <= PLAUSIBLE[1]:
                text = f"{split}: the median depth is {found.median:.4g} m; if that cannot be, write the number that "
                report.findings.append(Finding("warning", f"{text}means one metre: --data.depth-scale"))
    report.findings.extend(duplicates(dataset))
    report.sort()
    return report


def _look(sample: Sample) -> _Seen:
    """Size and range of one sample."""
    seen = _Seen()
    if not sample.labelled:
        try:
            image_size(sample.image_path)
        except UserError as error:
            seen.problems.append(str(error))
        return seen
    try:
        inverse = sample.target()
    except UserError as error:
        seen.no_scale = isinstance(error, ScaleMissing)
        seen.problems.append(str(error))
        return seen
    known = inverse[inverse > 0]  # a scene's sky is infinitely far
    seen.measured = 1 - float(np.isnan(inverse).mean())
    if known.size:
        seen.depths = tuple(1 / float(value) for value in (known.max(), np.median(known), known.min()))
    return seen


def _file_findings(seen: list[_Seen]) -> list[Finding]:
    """What is wrong with single files; a missing scale is reported only once."""
    no_scale = [text for result in seen if result.no_scale for text in result.problems]
    others = [text for result in seen if not result.no_scale for text in result.problems]
    return listed(others, "files that cannot be used") + listed(no_scale, "maps of whole numbers", most=1)
