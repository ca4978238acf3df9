"""The verbs `train`, `resume` and `demo`: a recipe and data to a run."""

import itertools
from pathlib import Path
from typing import Annotated

from tyro.conf import AvoidSubcommands, FlagConversionOff, Positional, arg

from segmenter import recipes
from segmenter.cli.arguments import Device, print_once
from segmenter.config import Recipe
from segmenter.config_decoders import readers, refuse_unread
from segmenter.errors import UserError, WrongUse, cleaned

DEFAULT_RECIPE = "finetune"


def train_with(default: Recipe, command: str):
    """The verb `train` with the settings of the recipe that --config named as defaults; the run keeps the command."""

    def train(
        out: Path,
        config: str = DEFAULT_RECIPE,
        device: Device = "auto",
        report: bool = True,
        recipe: Annotated[Recipe, arg(name=""), FlagConversionOff, AvoidSubcommands] = default,
    ) -> None:
        """Train a model on images and masks.

        Args:
            out: New folder for the run: the best model, the log, and what `resume` needs.
            config: Recipe: a name (see `segmenter models`) or a YAML file. The defaults below are this recipe's.
            device: Where to train, or cuda:1 and so on; auto: the best there is. Several processes have one each.
            report: Write report.html into the folder: curves and some images after each validation, all at the end.
            recipe: Settings.
        """
        from segmenter.studies.live import train

        best = train(recipe, out, device, command, report)
        print_once(_finished(recipe, best, out))

    return train


def resume_with(command: str):
    """The verb `resume`; the run keeps the command."""

    def resume(
        run: Annotated[Positional[Path], arg(metavar="RUN")], device: Device = "auto", report: bool = True
    ) -> None:
        """Go on with an interrupted training exactly where it was saved.

        Args:
            run: Folder that `train` wrote.
            device: Where to train, or cuda:1 and so on; auto: the best there is. Several processes have one each.
            report: Write report.html into the folder, as `train` does.
        """
        from segmenter.studies.live import resume

        best = resume(run, device, command, report)
        print_once(_finished(recipes.read(str(run / "recipe.yaml")), best, run))

    return resume


def _finished(recipe: Recipe, best: float, run: Path) -> str:
    from segmenter.training.objective import OBJECTIVES

    return f"best val {OBJECTIVES[recipe.task].title} {best:.4f}; the model is {cleaned(str(run))}"


def demo(out: Path = Path("demo"), device: Device = "auto") -> None:
    """Train a small Segmenter on generated scenes from nothing, score it on scenes it never saw, draw the result.

    Args:
        out: New folder for the run and the pictures.
        device: Where to train and predict, or cuda:1 and so on; auto: the best there is.
    """
    from segmenter.demo import demo

    demo(out, device)


def recipe_named(arguments: list[str]) -> Recipe:
    """The recipe and decoder that the command line names: they decide which settings `train` has.

    Raises:
        UserError: there is no such recipe.
        WrongUse: there is no such decoder, or it does not read one of its settings.
    """
    if arguments[:1] != ["train"]:
        return Recipe()  # not looked at; reading one takes a third of what `--help` may take
    recipe = recipes.read(_value(arguments, "--config") or DEFAULT_RECIPE)
    try:
        if name := _value(arguments, "--decoder.name"):
            recipe = recipes.with_decoder(recipe, name)
        for argument in arguments:
            setting = argument.removeprefix("--decoder.").partition("=")[0].replace("-", "_")
            if argument.startswith("--decoder.") and readers(setting):  # of others the parser knows what was meant
                refuse_unread(recipe.decoder.name, setting)
    except UserError as error:
        raise WrongUse(str(error)) from error
    return recipe


def _value(arguments: list[str], option: str) -> str:
    """What follows an option on the command line, as the next argument or behind `=`; the last one counts."""
    found = ""
    for argument, following in itertools.pairwise([*arguments, ""]):
        if argument == option:
            found = following
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found
