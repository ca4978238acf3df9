"""The page of a run and what it is made of besides scores: curves, command, environment, recipe."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from segmenter import recipes
from segmenter.config import Recipe
from segmenter.errors import cleaned
from segmenter.training import environment
from segmenter.training.objective import OBJECTIVES
from segmenter.views.report.curves import History, curves
from segmenter.views.report.measured import NONE
from segmenter.views.report.page import Block, Cell, Code, Facts, Plots, Section, Table, Text, Tile

NAMES = {
    "began": "began",
    "command": "command",
    "after_step": "went on after step",
    "device": "device",
    "processor": "processor",
    "cores": "cores",
    "processes": "processes",
    "precision": "precision",
    "segmenter": "segmenter",
    "torch": "torch",
    "timm": "timm",
    "accelerate": "accelerate",
    "python": "Python",
    "system": "system",
}


def curves_section(histories: Mapping[str, History]) -> Section:
    """The curves of runs by name, and a sentence on each log that is missing or torn."""
    blocks: list[Block] = [Text(text, "warning") for text in _complaints(histories)]
    if plots := curves(histories):
        blocks.insert(0, Plots(plots))
    return Section("Training", blocks)


def _complaints(histories: Mapping[str, History]) -> list[str]:
    found = []
    for run, history in histories.items():
        if not history.there:
            found.append(f"{run} has no log.jsonl, so there are no curves of it: it is a model without its training.")
        elif history.unreadable:
            lines = "1 line" if history.unreadable == 1 else f"{history.unreadable} lines"
            found.append(f"{lines} of the log.jsonl of {run} cannot be read and {_are(history)} left out.")
    return found


def _are(history: History) -> str:
    return "is" if history.unreadable == 1 else "are"


def training_tiles(recipe: Recipe, history: History) -> list[Tile]:
    """The best validation and how far and how fast the training is."""
    objective = OBJECTIVES[recipe.task]
    tiles = []
    if best := history.best(objective.metric):
        tiles.append(Tile(f"{100 * best[1]:.1f} %", f"best {objective.title} on val", f"after step {best[0]}"))
    steps, loss = history.values.get("loss", ([], []))
    if len(steps):
        tiles.append(Tile(f"{steps[-1]:.0f}", "steps made", f"of {recipe.train.steps}"))
        tiles.append(Tile(f"{loss[-1]:.3g}", "loss now" if steps[-1] < recipe.train.steps else "last loss"))
    if duration := _duration(recipe, history):
        speed = history.values["images_per_second"][1][-1]
        tiles.append(Tile(duration, "time of updates", f"{speed:.3g} images a second at last"))
    return tiles


def _duration(recipe: Recipe, history: History) -> str:
    """How long the updates took, from the speeds in the log; empty where it does not say."""
    steps, speeds = history.values.get("images_per_second", ([], []))
    if not len(steps) or not (speeds > 0).all():
        return ""
    seconds, before = 0.0, 0.0
    for step, speed in zip(steps, speeds, strict=True):
        seconds += (step - before) * recipe.train.batch / speed
        before = step
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def differences_of_recipes(recipes_of: Mapping[str, Recipe]) -> Table | None:
    """The settings in which the recipes of runs by name differ; none where they are the same."""
    flat = {run: dict(_settings(asdict(recipe))) for run, recipe in recipes_of.items()}
    names = dict.fromkeys(name for settings in flat.values() for name in settings)
    rows = []
    for name in names:
        values = [_shown(settings[name]) if name in settings else NONE for settings in flat.values()]
        if len(set(values)) > 1:
            rows.append([Cell(name), *map(Cell, values)])
    if not rows:
        return None
    return Table("What differs in the recipes", ["setting", *flat], rows, numeric=len(flat) + 1)


def _settings(content: Mapping, group: str = "") -> Iterator[tuple[str, object]]:
    """Settings with their names as on the command line."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def _shown(value: object) -> str:
    """A setting as people write it."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "none" if value in (None, "", (), []) else cleaned(text, 120)


def origin_section(folder: Path, recipe: Recipe, run: str = "") -> Section:
    """Command, environment and recipe of a run."""
    sessions = environment.sessions(folder)
    blocks: list[Block] = []
    for number, session in enumerate(sessions[-3:] if len(sessions) > 3 else sessions):
        title = "Environment" if number == 0 else "Continued"
        known = [(NAMES[key], cleaned(str(session[key]))) for key in NAMES if session.get(key) not in (None, "")]
        blocks.append(Facts(title, [row for row in known if row != (NAMES["after_step"], "0")]))
    if not sessions:
        blocks.append(Text(f"{folder.name} has no {environment.FILE}: it does not say where it was trained.", "quiet"))
    return Section("Origin", [*blocks, Code("Recipe", recipes.to_yaml(recipe))], run)
