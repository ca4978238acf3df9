"""`segmenter report`: what is known of one run, or of several side by side, on one page.

The numbers come from the evaluation in RUN/evaluation, which is made if it is not there; only the images that are shown
go through the model again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segmenter import atomic, recipes
from segmenter.config import Recipe
from segmenter.data.samples import DataSet, Sample
from segmenter.data.tasks import TASKS as DATA
from segmenter.errors import UserError, WrongUse, cleaned
from segmenter.evaluation import bootstrap
from segmenter.evaluation.bootstrap import Kept
from segmenter.evaluation.kept_labels import KeptLabels
from segmenter.model.segmenter import Segmenter
from segmenter.published.loading import load
from segmenter.studies.evaluations import evaluation_of
from segmenter.views.report.attending import attention_section
from segmenter.views.report.comparing import comparison
from segmenter.views.report.curves import History, read_history
from segmenter.views.report.doubting import doubtful_section
from segmenter.views.report.galleries import differing, galleries, notable
from segmenter.views.report.measured import tiles
from segmenter.views.report.page import Block, Page, Section, Text, Tiles, render
from segmenter.views.report.running import curves_section, differences_of_recipes, origin_section, training_tiles
from segmenter.views.report.tasks import TASKS

FILE = "report.html"


@dataclass(frozen=True)
class Subject:
    """One run of a report, and what could be found of it."""

    name: str
    folder: Path
    recipe: Recipe
    history: History
    model: Segmenter | None
    kept: Kept | None
    """Its evaluation."""
    data: DataSet | None
    missing: tuple[str, ...]
    """Why something is not there."""


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    data: str | Path = "",
    split: str = "auto",
    device: str = "auto",
    workers: int = 2,
) -> Path:
    """Writes one HTML file about a run, or about several side by side; returns its path.

    >>> page = segmenter.report(["runs/first"], "first.html")
    >>> "mIoU" in page.read_text(encoding="utf-8")
    True

    Args:
        runs: folders that `train` wrote; the first one is what the others are compared with.
        out: the file; None: report.html in the folder of the only run.
        data: folder with the images and masks where it is not where the recipe says.
        split: what to score; `auto`: test, or val where test has no masks.
        device: where the models run.
        workers: processes that load images.

    Raises:
        UserError: a folder is not a run, or no file is named for several runs.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise WrongUse("report is about at least one run; name a folder that `segmenter train` wrote")
    if out is None and len(folders) > 1:
        raise UserError("a report of several runs belongs to none of their folders; write --out FILE")
    path = Path(out) if out is not None else folders[0] / FILE
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it: --out {path / FILE}")
    names = _names(folders)
    subjects = [
        _subject(name, folder, str(data), split, device, workers) for name, folder in zip(names, folders, strict=True)
    ]
    page = _page_of_one(subjects[0]) if len(subjects) == 1 else _page_of_several(subjects)
    atomic.write_text(path, render(page))
    return path


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names; with the path to them where two are the same."""
    names = [cleaned(folder.absolute().name, 60) for folder in folders]
    return [
        name if names.count(name) == 1 else cleaned(str(folder)) for name, folder in zip(names, folders, strict=True)
    ]


def _subject(name: str, folder: Path, root: str, split: str, device: str, workers: int) -> Subject:
    """What can be found of a run.

    Raises:
        UserError: the folder is neither a run nor a model.
    """
    described = (folder / "recipe.yaml").is_file()
    if not described and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a run: it has neither recipe.yaml nor config.json; name a folder that `segmenter train` "
            f"wrote, or make one of a published model: segmenter convert {folder} --out FOLDER"
        )
    missing = []
    model = kept = opened = None
    try:
        model = load(folder, device)
    except UserError as error:
        if not described:
            raise
        missing.append(f"There are no scores: {error}.")
    recipe = model.recipe if model is not None else recipes.read(str(folder / "recipe.yaml"))
    settings = replace(recipe.data, root=root) if root else recipe.data
    try:
        opened = DATA[recipe.task].open(settings)
    except UserError as error:
        missing.append(f"There are no images: {error}; say where they are now with --data FOLDER.")
    if model is not None:
        try:
            kept = evaluation_of(folder, model, opened, split, workers)
        except UserError as error:
            missing.append(f"There are no scores: {error}.")
    return Subject(name, folder, recipe, read_history(folder), model, kept, opened, tuple(missing))


def _page_of_one(subject: Subject) -> Page:
    name, kept, task = subject.name, subject.kept, TASKS[subject.recipe.task]
    parts: dict[str, Section] = {}
    blocks = _missing([subject])
    if kept is not None and subject.model is not None:
        found = {name: bootstrap.intervals(kept)}
        parts = {part.title: part for part in task.sections({name: kept}, found, subject.model.classes)}
        blocks = [Text(_scored(kept)), Tiles(tiles(found[name], task.measures, len(kept))), *blocks]
        samples = _samples([subject])
        if pictures := galleries(kept, subject.model, samples):
            parts["Images"] = Section("Images", [*pictures])
        if isinstance(kept, KeptLabels):
            parts["Doubtful masks"] = doubtful_section(kept, subject.model, samples)
        first_ones = [kept.names[choice.images[0]] for choice in notable(kept)]
        parts["Attention"] = attention_section(subject.model, [samples[one] for one in first_ones if one in samples])
    training = curves_section({name: subject.history})
    numbers = training_tiles(subject.recipe, subject.history)
    if numbers:
        training = replace(training, blocks=[Tiles(numbers), *training.blocks])
    sections = [Section("Scores", blocks), training, *_ordered(parts), origin_section(subject.folder, subject.recipe)]
    return Page(name, _subtitle([subject]), [section for section in sections if section.blocks])


def _page_of_several(subjects: Sequence[Subject]) -> Page:
    scored = {subject.name: subject for subject in subjects if subject.kept is not None and subject.model is not None}
    kept = {name: subject.kept for name, subject in scored.items()}
    tasks = {subject.recipe.task for subject in scored.values()}
    parts: dict[str, Section] = {}
    blocks = _missing(subjects)
    if len(tasks) > 1:
        blocks.append(Text("Some of the runs predict labels, some depth: scores cannot be compared.", "warning"))
    elif scored:
        task = TASKS[tasks.pop()]
        found = {name: bootstrap.intervals(one) for name, one in kept.items()}
        base = next(iter(scored.values()))
        blocks += comparison(kept, found, task.measures, base.model.classes)
        names = base.model.classes.names
        alike = {name: one for name, one in kept.items() if scored[name].model.classes.names == names}
        found = {name: found[name] for name in alike}
        parts = {part.title: part for part in task.sections(alike, found, base.model.classes)}
        models = {name: scored[name].model for name in alike}
        if len(alike) > 1 and (pictures := differing(alike, models, _samples(list(scored.values())))):
            parts["Images"] = Section("Images", [*pictures])
    training = curves_section({subject.name: subject.history for subject in subjects})
    if differ := differences_of_recipes({subject.name: subject.recipe for subject in subjects}):
        training = replace(training, blocks=[*training.blocks, differ])
    origins = [origin_section(subject.folder, subject.recipe, subject.name) for subject in subjects]
    sections = [Section("Comparison", blocks), training, *_ordered(parts), *origins]
    title = " and ".join(subject.name for subject in subjects) if len(subjects) == 2 else f"{len(subjects)} runs"
    return Page(title, _subtitle(subjects), [section for section in sections if section.blocks])


def _missing(subjects: Sequence[Subject]) -> list[Block]:
    of = (lambda subject: f"{subject.name}: ") if len(subjects) > 1 else (lambda _: "")
    return [Text(of(subject) + text, "warning") for subject in subjects for text in subject.missing]


def _ordered(parts: dict[str, Section]) -> list[Section]:
    """The parts in the order in which people ask: how well, on what, why."""
    order = ("Classes", "Errors by distance", "Images")
    return [parts.pop(title) for title in order if title in parts] + list(parts.values())


def _samples(subjects: Sequence[Subject]) -> dict[str, Sample]:
    """The samples of the first subject that has data, by name."""
    for subject in subjects:
        if subject.data is not None:
            return {sample.name: sample for samples in subject.data.splits.values() for sample in samples}
    return {}


def _scored(kept: Kept) -> str:
    data = kept.about.get("data")
    root = data.get("root") if isinstance(data, dict) else ""
    where = " of ".join(str(part) for part in (kept.about.get("split"), root) if part)
    scales = ", at many scales" if kept.about.get("multiscale") else ""
    chosen = " The best model was chosen by these images, so expect a little less of others." * (
        kept.about.get("split") == "val"
    )
    return (
        f"Scored on {cleaned(where) or 'labelled images'}, {len(kept)} images{scales}.{chosen} Below a number: where "
        "it would lie, 95 times in 100, with other images of the same kind (bootstrap)."
    )


def _subtitle(subjects: Sequence[Subject]) -> str:
    networks = dict.fromkeys(f"{one.recipe.decoder.name} on {one.recipe.encoder.name}" for one in subjects)
    return cleaned("; ".join(networks))
