"""The verbs `evaluate`, `predict` and `benchmark`: what a model is good for, and what it costs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from segmenter.cli.arguments import DataFolder, Device, Model, Precision, Split, as_json, print_once
from segmenter.cli.data_settings import DataOfModel
from segmenter.config import Alignment
from segmenter.inference.presets import Preset
from segmenter.ranges import Count, Drawn, Factor, Images, Processes, Seconds, checked
from segmenter.streams import tell

LabelFormat = Literal["labels", "ade20k", "cityscapes"]


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
    out: Path | None = None,
    overwrite: bool = False,
    areas: tuple[Count, Count] | None = None,
    boundary: Factor | None = None,
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
        out: Folder for scores.json and images.npz, the counts of every image: IoU by size of objects and at boundaries,
            calibration, and confidence intervals, which are printed too.
        overwrite: Replace an evaluation that is in that folder; files of others are never replaced.
        areas: Pixels from which an object is medium, and above which it is large; without: 1024 9216.
        boundary: Width of the boundary in lengths of the image's diagonal; without: 0.02.
        json: Print JSON instead of tables.
    """
    from segmenter.evaluation.evaluate import evaluate
    from segmenter.evaluation.kept_folder import summary
    from segmenter.evaluation.kept_table import kept_table
    from segmenter.inference.presets import settings as seen_as
    from segmenter.model.processes import device_here
    from segmenter.published.loading import load

    network = load(model, str(device_here(device)), precision)
    inference = seen_as(preset, network.recipe) if preset else None
    settings = options.completed(data, network.recipe.data)
    kept = {"out": out, "overwrite": overwrite, "areas": areas, "boundary": boundary, "source": str(model)}
    common = multiscale, native, split, inference, alignment, workers
    scores = evaluate(network, settings, *common, together=True, **kept)
    if out is None:
        print_once(as_json(scores.to_dict()) if json else scores.table())
        return
    found = summary(out)
    print_once(as_json(found) if json else f"{scores.table()}\n\n{kept_table(found)}")


def predict(
    model: Model,
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES...")],
    out: Path,
    multiscale: bool = False,
    native: bool = False,
    preset: Preset | None = None,
    overlays: bool = True,
    confidence: bool = False,
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
        confidence: Write how sure the model is of every pixel: confidence/NAME.png (16 bits: value / 65535) and
            confidence/NAME.jpg, a picture of it. See `segmenter calibrate`.
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
    written = predict_files(
        network, images, out, multiscale, native, overlays, format, inference, overwrite, confidence
    )
    if text := made_smaller(written):
        print(text, file=sys.stderr)
    tell(as_json(written) if json else summary(written, out))


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
