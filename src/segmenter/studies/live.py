"""Trainings with their reports: report.html in the run folder, light while it runs, whole once it has ended.

A report that cannot be written is a warning: it never ends a training.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segmenter import atomic
from segmenter.config import Recipe
from segmenter.data.samples import Sample
from segmenter.errors import UserError, cleaned
from segmenter.progress import say
from segmenter.studies.reporting import FILE, report
from segmenter.training import loop
from segmenter.training.watching import UNWATCHED, Validated, Watch
from segmenter.views.report.curves import read_history
from segmenter.views.report.galleries import picture
from segmenter.views.report.page import Gallery, Page, Section, Tiles, render
from segmenter.views.report.running import curves_section, origin_section, training_tiles
from segmenter.views.report.tasks import TASKS

PICTURES = 4  # of val, the same ones every time
REFRESH = 15  # seconds


def train(recipe: Recipe, out: Path, device: str = "auto", command: str = "", reports: bool = True) -> float:
    """As `training.loop.train`, with reports."""
    return loop.train(recipe, out, device, watching(device) if reports else UNWATCHED, command)


def resume(out: Path, device: str = "auto", command: str = "", reports: bool = True) -> float:
    """As `training.loop.resume`, with reports."""
    return loop.resume(out, device, watching(device) if reports else UNWATCHED, command)


def watching(device: str = "auto") -> Watch:
    """What writes the reports of a training on a device."""
    told: list[Path] = []

    def live(validated: Validated) -> None:
        write_live(validated)
        if not told:
            say(f"watch it in a browser: {cleaned(str(validated.folder / FILE))}")
        told.append(validated.folder)

    return Watch(_forgiving(live), _forgiving(lambda folder: write_whole(folder, device)))


def _forgiving(write: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same, with a warning where it fails."""

    def written(about: Any) -> None:
        try:
            write(about)
        except Exception as error:  # whatever it is, hours of training must not end with it
            reason = cleaned(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}", 300)
            say(f"warning: no report was written: {reason}")

    return written


def write_live(validated: Validated) -> None:
    """Writes the page of a training that still runs: its curves, and some images of val as the model sees them now."""
    folder, model = validated.folder, validated.model
    samples = fixed_samples(validated.data.splits["val"])
    pictures = [picture(sample, {"": model}, TASKS[model.recipe.task], light=True) for sample in samples]
    history = read_history(folder)
    sections = [
        Section("Now", [Tiles(training_tiles(model.recipe, history))]),
        curves_section({folder.name: history}),
        Section("Images of val", [Gallery(f"After step {validated.step}", pictures)]),
        origin_section(folder, model.recipe),
    ]
    state = f"Training: step {validated.step} of {validated.steps}. This page reads itself again as it goes on."
    page = Page(folder.name, state, sections, REFRESH)
    atomic.write_text(folder / FILE, render(page))


def fixed_samples(samples: Sequence[Sample]) -> list[Sample]:
    """A few samples from all over a split, the same ones every time."""
    labelled = [sample for sample in samples if sample.labelled]
    step = max(1, len(labelled) // PICTURES)
    return labelled[::step][:PICTURES]


def write_whole(folder: Path, device: str) -> None:
    """Writes the report of a run that has ended, on val, by which its best model was chosen; Ctrl-C leaves it out."""
    say("writing the report; Ctrl-C leaves it out, the model is saved")
    try:
        report([folder], split="val", device=device)
    except KeyboardInterrupt:
        say(f"no report was written; for one: segmenter report {folder}")
