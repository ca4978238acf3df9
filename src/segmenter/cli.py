"""The command `segmenter`: verbs to functions. torch is imported only when a verb starts to work."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from segmenter import recipes
from segmenter.config import Data, Recipe
from segmenter.errors import UserError

DEFAULT_RECIPE = "finetune"
Split = Literal["train", "val", "test"]
Model = Annotated[Positional[Path], arg(metavar="MODEL")]
DataFolder = Annotated[Positional[str], arg(metavar="DATA")]


def train_with(default: Recipe):
    """The verb `train`, whose settings default to those of the recipe that --config named."""

    def train(
        out: Path,
        config: str = DEFAULT_RECIPE,
        recipe: Annotated[Recipe, arg(name=""), FlagConversionOff] = default,
    ) -> None:
        """Train a model on images and masks.

        Args:
            out: New folder for the run: the best model, the log, and what `resume` needs.
            config: Recipe: a name (see `segmenter models`) or a YAML file. The defaults below are this recipe's.
            recipe: Settings.
        """
        from segmenter.training.loop import train

        best = train(recipe, out)
        print(f"best val mIoU {best:.4f}; the model is {out}")

    return train


def check(data: DataFolder, classes: str = "", map: tuple[str, ...] = ()) -> None:
    """Read every mask and say what would spoil a training, and what to write instead.

    Args:
        data: Folder with the images and masks, or `scenes`.
        classes: Path of a classes.yaml, if it is not in the data folder.
        map: Mask values to change, each as from:to.
    """
    from segmenter.data.check import check_data
    from segmenter.data.layouts import open_data

    found = open_data(Data(root=data, classes=classes, map=map))
    report = check_data(found)
    print(f"{found.source}\n\n{report.table()}\n")
    for text in report.warnings:
        print(f"warning: {text}")
    report.refuse_errors()
    print("ready to train")


def resume(run: Annotated[Positional[Path], arg(metavar="RUN")]) -> None:
    """Go on with an interrupted training exactly where it was saved.

    Args:
        run: Folder that `train` wrote.
    """
    from segmenter.training.loop import resume

    best = resume(run)
    print(f"best val mIoU {best:.4f}; the model is {run}")


def evaluate(
    model: Model,
    data: DataFolder,
    split: Split = "test",
    multiscale: bool = False,
    native: bool = False,
    classes: str = "",
    map: tuple[str, ...] = (),
    workers: int = 2,
    json: bool = False,
) -> None:
    """Score a model on labelled images: mIoU, accuracies, and a table of the classes.

    Args:
        model: Folder of a model or a run.
        data: Folder with the images and masks, or `scenes`.
        split: Part of the data to score.
        multiscale: Average six scales and their mirror images.
        native: Keep the photos' scale instead of bringing them to the training's.
        classes: Path of a classes.yaml, if it is not in the data folder.
        map: Mask values to change, each as from:to.
        workers: Processes that load images.
        json: Print JSON instead of a table.
    """
    from segmenter.evaluation.evaluate import evaluate_folder
    from segmenter.model.loading import load

    settings = Data(root=data, classes=classes, map=map)
    scores = evaluate_folder(load(model), settings, split, multiscale, native, workers)
    print(as_json(scores.to_dict()) if json else scores.table())


def predict(
    model: Model,
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...")],
    out: Path,
    multiscale: bool = False,
    native: bool = False,
    overlays: bool = True,
    json: bool = False,
) -> None:
    """Segment photos: a label map (palette PNG) and an overlay with legend for each.

    Args:
        model: Folder of a model or a run.
        images: Files, folders or globs.
        out: Folder for labels/NAME.png and overlays/NAME.jpg.
        multiscale: Average six scales and their mirror images: better and much slower.
        native: Keep the photos' scale instead of bringing them to the training's.
        overlays: Write overlays too.
        json: Print the files written as JSON.
    """
    from segmenter.model.loading import load
    from segmenter.views.pictures import predict_files

    written = predict_files(load(model), images, out, multiscale, native, overlays)
    print(as_json(written) if json else f"{len(written)} images: {out / 'labels'}" + overlays * f", {out / 'overlays'}")


def demo(out: Path = Path("demo")) -> None:
    """Train a small Segmenter on generated scenes from nothing, score it on scenes it never saw, draw the result.

    Args:
        out: New folder for the run and the pictures.
    """
    from segmenter.demo import demo

    demo(out)


def models(pattern: Annotated[Positional[str], arg(metavar="PATTERN")] = "*") -> None:
    """List the encoders (plain vision transformers of timm), decoders and recipes.

    Args:
        pattern: Only encoders of this form, for example 'vit_small*'.
    """
    from segmenter.model.zoo import listing

    print(listing(pattern))


def as_json(content: object) -> str:
    """JSON for people and programs."""
    return json.dumps(content, indent=1)


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; 0 done, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        verbs = {
            "train": train_with(recipes.read(_config(arguments))),
            "check": check,
            "resume": resume,
            "evaluate": evaluate,
            "predict": predict,
            "demo": demo,
            "models": models,
        }
        try:
            tyro.extras.subcommand_cli_from_dict(
                verbs,
                args=arguments,
                prog="segmenter",
                description="Semantic segmentation with plain vision transformers. --debug shows tracebacks.",
            )
        finally:
            sys.stdout.flush()  # a closed pipe shows here, not at the interpreter's end
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"segmenter: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `segmenter models | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("segmenter: interrupted", file=sys.stderr)
        return 1
    return 0


def _config(arguments: list[str]) -> str:
    """The recipe that the command line names: it decides the defaults, so it is read before the rest."""
    if arguments[:1] == ["train"]:
        for place, argument in enumerate(arguments):
            if argument == "--config" and place + 1 < len(arguments):
                return arguments[place + 1]
            if argument.startswith("--config="):
                return argument.partition("=")[2]
    return DEFAULT_RECIPE


if __name__ == "__main__":
    sys.exit(main())
