"""The command `segmenter`: verbs to functions. torch is imported only when a verb starts to work."""

import itertools
import json
import math
import os
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import AvoidSubcommands, FlagConversionOff, Positional, arg

from segmenter import recipes, streams
from segmenter.cli_data import DataAtRoot, DataOfModel
from segmenter.config import Alignment, Recipe
from segmenter.config_decoders import readers, refuse_unread
from segmenter.errors import Said, UserError, WrongUse, cleaned, listed
from segmenter.inference.presets import Preset
from segmenter.ranges import Drawn, Images, Processes, Seconds, checked
from segmenter.streams import tell

DEFAULT_RECIPE = "finetune"
LONGEST_LINE = 2000  # characters of what `convert` tells
Split = Literal["auto", "train", "val", "test"]
LabelFormat = Literal["labels", "ade20k", "cityscapes"]
DataSetName = Literal["ade20k", "pascal_context", "cityscapes", "voc", "camvid"]
Model = Annotated[Positional[Path], arg(metavar="MODEL")]
DataFolder = Annotated[Positional[str], arg(metavar="DATA")]
Device = Annotated[str, arg(metavar="auto|cpu|cuda|mps")]
Precision = Literal["fp32", "bf16", "fp16", "auto"]


def train_with(default: Recipe):
    """The verb `train`, whose settings default to those of the recipe that --config named."""

    def train(
        out: Path,
        config: str = DEFAULT_RECIPE,
        device: Device = "auto",
        recipe: Annotated[Recipe, arg(name=""), FlagConversionOff, AvoidSubcommands] = default,
    ) -> None:
        """Train a model on images and masks.

        Args:
            out: New folder for the run: the best model, the log, and what `resume` needs.
            config: Recipe: a name (see `segmenter models`) or a YAML file. The defaults below are this recipe's.
            device: Where to train, or cuda:1 and so on; auto: the best there is. Several processes have one each.
            recipe: Settings.
        """
        from segmenter.training.loop import train

        best = train(recipe, out, device)
        print_once(_finished(recipe, best, out))

    return train


@checked
def check(
    data: DataFolder,
    task: Literal["labels", "depth"] = "labels",
    options: Annotated[DataAtRoot, arg(name="data")] = DataAtRoot(),  # noqa: B008  (nobody changes it)
) -> None:
    """Read every mask, or depth map, and say what would spoil a training, and what to write instead.

    Args:
        data: Folder with the images and masks, or depth maps, or `scenes`.
        task: What the images come with.
        options: The folder's settings, as `train` has them.
    """
    from segmenter.data.tasks import TASKS

    found = TASKS[task].open(replace(options, root=data))
    report = TASKS[task].check(found)
    tell(f"{cleaned(found.source)}\n\n{report.table()}\n")
    for text in listed(report.warnings):
        tell(f"warning: {text}")
    report.refuse_errors()
    tell("ready to train")


def resume(run: Annotated[Positional[Path], arg(metavar="RUN")], device: Device = "auto") -> None:
    """Go on with an interrupted training exactly where it was saved.

    Args:
        run: Folder that `train` wrote.
        device: Where to train, or cuda:1 and so on; auto: the best there is. Several processes have one each.
    """
    from segmenter.training.loop import resume

    best = resume(run, device)
    print_once(_finished(recipes.read(str(run / "recipe.yaml")), best, run))


def _finished(recipe: Recipe, best: float, run: Path) -> str:
    from segmenter.training.objective import OBJECTIVES

    return f"best val {OBJECTIVES[recipe.task].title} {best:.4f}; the model is {cleaned(str(run))}"


@checked
def evaluate(
    model: Model,
    data: DataFolder,
    split: Split = "auto",
    multiscale: bool = False,
    native: bool = False,
    preset: Preset | None = None,
    options: Annotated[DataOfModel, arg(name="data")] = DataOfModel(),  # noqa: B008  (nobody changes it)
    alignment: Alignment = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Processes = 2,
    json: bool = False,
) -> None:
    """Score a model on labelled images: mIoU, accuracies and a table of the classes, or the errors of depth.

    Args:
        model: Folder of a model or a run, published checkpoint, or a name that `models` lists.
        data: Folder with the images and masks, or depth maps, or `scenes`.
        split: Part of the data to score; `auto`: test, or val where test has no masks.
        multiscale: Average six scales and their mirror images.
        native: Keep the photos' scale instead of bringing them to the training's.
        preset: Windows and scale as this command of the published code has them, instead of the model's own.
        options: The folder's settings, as `train` has them.
        alignment: Of predicted depth to the true one, image by image; auto: least_squares for relative models, none
            for metric ones.
        device: Where the model runs, or cuda:1 and so on; auto: the best there is. Several processes have one each
            and share the images.
        precision: In which the network multiplies; auto: bf16 where the device computes it natively, else fp32.
        workers: Processes that load images.
        json: Print JSON instead of a table.
    """
    from segmenter.evaluation.evaluate import evaluate
    from segmenter.inference.presets import settings as seen_as
    from segmenter.model.processes import device_here
    from segmenter.published.loading import load

    network = load(model, str(device_here(device)), precision)
    inference = seen_as(preset, network.recipe) if preset else None
    settings = options.completed(data, network.recipe.data)
    scores = evaluate(network, settings, multiscale, native, split, inference, alignment, workers, together=True)
    print_once(as_json(scores.to_dict()) if json else scores.table())


def predict(
    model: Model,
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...")],
    out: Path,
    multiscale: bool = False,
    native: bool = False,
    preset: Preset | None = None,
    overlays: bool = True,
    format: LabelFormat = "labels",
    overwrite: bool = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    json: bool = False,
) -> None:
    """Segment photos: a label map (palette PNG) and an overlay with legend for each; or say their depth.

    Args:
        model: Folder of a model or a run, published checkpoint, or a name that `models` lists.
        images: Files, folders or globs.
        out: Folder for labels/NAME.png (of depth: depth/NAME.png and .npy) and overlays/NAME.jpg.
        multiscale: Average six scales and their mirror images: better and much slower.
        native: Keep the photos' scale instead of bringing them to the training's.
        preset: Windows and scale as this command of the published code has them, instead of the model's own.
        overlays: Write overlays too.
        format: What the label maps hold: class ids, or what the test server of ADE20K or Cityscapes takes.
        overwrite: Write anew what an earlier `predict` wrote there; files of others are never overwritten.
        device: Where the model runs, or cuda:1 and so on; auto: the best there is.
        precision: In which the network multiplies; auto: bf16 where the device computes it natively, else fp32.
        json: Print the files written as JSON.
    """
    from segmenter.inference.presets import settings
    from segmenter.published.loading import load
    from segmenter.views.pictures import made_smaller, predict_files, summary

    network = load(model, device, precision)
    inference = settings(preset, network.recipe) if preset else None
    written = predict_files(network, images, out, multiscale, native, overlays, format, inference, overwrite)
    if text := made_smaller(written):
        print(text, file=sys.stderr)
    tell(as_json(written) if json else summary(written, out, overlays))


@checked
def benchmark(
    model: Model,
    image: str = "",
    size: tuple[Drawn, Drawn] = (960, 1280),
    batch: Images = 4,
    only: tuple[Literal["single", "batch", "windows", "multiscale", "training"], ...] = (),
    device: Device = "auto",
    precision: Precision = "fp32",
    seconds: Seconds = 3.0,
    json: bool = False,
) -> None:
    """Measure what a model costs here, stage by stage: milliseconds, memory, operations, images a second.

    Args:
        model: Folder of a model or a run, published checkpoint, or a name that `models` lists.
        image: Photo to measure with; none: one is drawn.
        size: Height and width of the drawn photo, which is brought to the model's scale as in `predict`.
        batch: Images in a batch and in an update of the training.
        only: One image, a batch of them, a photo in windows, a photo at many scales, an update of the training; none:
            all of them.
        device: Where the model runs, or cuda:1 and so on; auto: the best there is.
        precision: In which predictions multiply; auto: bf16 where the device computes it natively, else fp32. An update
            of the training has its recipe's.
        seconds: How long each is repeated, at least three times.
        json: Print JSON instead of tables.
    """
    from segmenter.cost.benchmark import WORKLOADS, benchmark
    from segmenter.cost.step_cost import training_step
    from segmenter.published.loading import load

    workloads = WORKLOADS | {"training": training_step}
    chosen = {name: workloads[name] for name in only or workloads}
    report = benchmark(load(model, device, precision), chosen, image, size, batch, seconds)
    tell(as_json(report.to_dict()) if json else report.table())


def prepare(
    dataset: Annotated[Positional[DataSetName], arg(metavar="DATASET")],
    root: Annotated[Positional[Path], arg(metavar="ROOT")],
) -> None:
    """Fetch a published data set, check and unpack it: ade20k, pascal_context, voc, camvid; cityscapes from your zips.

    Args:
        dataset: Name of the data set.
        root: Folder for it; what is there already is kept, and a broken download goes on.
    """
    from segmenter.data.sets.prepare import SOURCES, prepare

    source = SOURCES[dataset]
    print(f"{source.title}: {source.terms}", file=sys.stderr)
    tell(cleaned(prepare(dataset, root, source)))


def demo(out: Path = Path("demo"), device: Device = "auto") -> None:
    """Train a small Segmenter on generated scenes from nothing, score it on scenes it never saw, draw the result.

    Args:
        out: New folder for the run and the pictures.
        device: Where to train and predict, or cuda:1 and so on; auto: the best there is.
    """
    from segmenter.demo import demo

    demo(out, device)


def convert(
    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")],
    out: Path,
    layout: str = "segmenter",
) -> None:
    """Write a model in another layout, and say what of the checkpoint was used, left out and assumed.

    Args:
        checkpoint: Published checkpoint or its folder, folder of a model or a run, or a name that `models` lists.
        out: New folder for the files.
        layout: segmenter (our own folder), original (the authors' files), openmmlab, or huggingface (DPT).
    """
    from segmenter.published.converting import convert

    tell("\n".join(cleaned(line, LONGEST_LINE) for line in convert(checkpoint, out, layout)))


def models(pattern: Annotated[Positional[str], arg(metavar="PATTERN")] = "*", json: bool = False) -> None:
    """List decoders, recipes, published models that can be named, and encoders (timm's plain vision transformers).

    Args:
        pattern: Only what has a name of this form, for example 'vit_small*' or 'seg-*'.
        json: Print JSON instead of tables.
    """
    from segmenter.published.zoo import find, listing

    found = find(pattern)
    tell(as_json(found) if json else listing(found))


def as_json(content: object) -> str:
    """JSON for people and programs, which know no numbers that are not finite."""
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def print_once(text: str) -> None:
    """Prints a result; of several processes that have it, the first one does."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        tell(text)


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; 0 done, 1 failed, 2 wrong use."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers send it: as Ctrl-C
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it as it is imported
    debug = "--debug" in arguments
    try:
        with streams.usable() as out:
            status = _run([argument for argument in arguments if argument != "--debug"], debug)
            return streams.finished(out, status)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        verbs = {
            "train": train_with(_recipe(arguments)),
            "check": check,
            "resume": resume,
            "evaluate": evaluate,
            "predict": predict,
            "benchmark": benchmark,
            "prepare": prepare,
            "demo": demo,
            "convert": convert,
            "models": models,
        }
        tyro.extras.subcommand_cli_from_dict(
            verbs,
            args=arguments,
            prog="segmenter",
            description="Semantic segmentation with plain vision transformers. --debug shows tracebacks.",
        )
    except SystemExit as end:  # tyro's, of --help and of wrong use
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        if debug:
            traceback.print_exc()
        if not isinstance(error, Said):
            streams.complain(error)
        return 2 if isinstance(error, WrongUse) else 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename is not None else ""
        streams.complain(cleaned(f"{where}{error.strerror or error}"))
        return 1
    except KeyboardInterrupt:
        streams.complain("interrupted")
        return 1
    return 0


def _recipe(arguments: list[str]) -> Recipe:
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


if __name__ == "__main__":
    sys.exit(main())
