"""What a model costs on this machine, stage by stage: an image, a batch, a photo in windows, a photo at many scales."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from segmenter.config import Inference
from segmenter.cost.benchmark_report import CostReport
from segmenter.cost.measuring import matmul_peak
from segmenter.cost.stages import Stages, Workload, mark_stages, measure
from segmenter.data.files import image_size, read_image
from segmenter.data.scenes.scene import render
from segmenter.errors import UserError
from segmenter.inference.depth import inverse_depth
from segmenter.inference.labels import Result
from segmenter.inference.passes import many_passes, one_pass, scaled
from segmenter.inference.tasks import TASKS
from segmenter.inference.windows import logits_of_many
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.ranges import Drawn, Images, Seconds, checked

DRAWN = 1024  # pixels of a drawn photo's long side; larger ones are enlarged


def single(model: Segmenter, photo: Path, _: int) -> Workload:
    """One image in one pass, at the size that models of this task take."""
    return SINGLE[model.recipe.task](model, photo, 1)


def whole(model: Segmenter, photo: Path, _: int) -> Workload:
    """The photo in one pass, as a depth model takes it."""
    return Workload(_sizes(image_size(photo)), 1, lambda stages: _depth(model, photo, stages), model.precision)


def batched(model: Segmenter, photo: Path, batch: int) -> Workload:
    """Images of the window's size in one pass."""
    inference = replace(model.recipe.inference, batch=batch)
    crop = photo.with_name("window.jpg")
    Image.fromarray(read_image(photo)).resize(inference.window[::-1], Image.Resampling.BILINEAR).save(crop, quality=90)
    about = f"{batch} x {_sizes(inference.window)}"
    return Workload(about, batch, lambda stages: _batch(model, crop, inference, stages), model.precision)


def in_windows(model: Segmenter, photo: Path, _: int) -> Workload:
    """The photo in windows, as in `predict`."""
    return Workload(_sizes(image_size(photo)), 1, lambda stages: _predict(model, photo, False, stages), model.precision)


def multiscale(model: Segmenter, photo: Path, _: int) -> Workload:
    """The photo at six scales, straight and mirrored."""
    about = f"{_sizes(image_size(photo))}, mirrored too"
    return Workload(about, 1, lambda stages: _predict(model, photo, True, stages), model.precision)


def _sizes(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


@torch.inference_mode()
def _batch(model: Segmenter, file: Path, inference: Inference, stages: Stages) -> None:
    """A batch of images, as in an evaluation."""
    stages.enter("decode")
    images = [read_image(file) for _ in range(inference.batch)]
    stages.enter("preprocess")
    stream = ((scaled(image, model.recipe.augment, native=True), None) for image in images)
    with mark_stages(model, stages, then="preprocess"):
        for logits, geometry, _ in logits_of_many(model, stream, inference):
            stages.enter("pixels")
            Result([(logits, geometry)], model.classes)
            stages.enter("preprocess")
    stages.enter(None)


@torch.inference_mode()
def _predict(model: Segmenter, file: Path, multiscale: bool, stages: Stages) -> None:
    """A photo, as in `predict`."""
    settings, augment = model.recipe.inference, model.recipe.augment
    stages.enter("decode")
    image = read_image(file)
    stages.enter("preprocess")
    with mark_stages(model, stages, then="preprocess"):
        if multiscale:
            passes = many_passes(model, image, settings)
        else:
            passes = [one_pass(model, scaled(image, augment, settings.native), image.shape[:2], settings)]
    stages.enter("pixels")
    Result(passes, model.classes)
    stages.enter(None)


@torch.inference_mode()
def _depth(model: Segmenter, file: Path, stages: Stages) -> None:
    """A photo's depth, as in `predict`."""
    stages.enter("decode")
    image = read_image(file)
    stages.enter("preprocess")
    with mark_stages(model, stages, then="pixels"):
        inverse_depth(model, scaled(image, model.recipe.augment, model.recipe.inference.native), image.shape[:2]).cpu()
    stages.enter(None)


Maker = Callable[[Segmenter, Path, int], Workload]
WORKLOADS: dict[str, Maker] = {"single": single, "batch": batched, "windows": in_windows, "multiscale": multiscale}
SINGLE: dict[str, Maker] = {"labels": batched, "depth": whole}  # by the recipe's task
WITHOUT_WINDOWS = ("single", "training")  # workloads for models that take images whole


@checked
def benchmark(
    model: Segmenter,
    workloads: dict[str, Maker],
    image: str = "",
    size: tuple[Drawn, Drawn] = (960, 1280),
    batch: Images = 4,
    seconds: Seconds = 3.0,
) -> CostReport:
    """Measures a model in evaluation mode, on the device where it is.

    Args:
        workloads: what to do with it, by name.
        image: path of a photo; empty: one is drawn.
        size: of the drawn photo, (height, width).
        batch: images in a batch.
        seconds: how long each workload is repeated.

    Raises:
        UserError: a number is outside its range, the photo cannot be read, or none of the ways is for the model.
    """
    device = next(model.parameters()).device
    if TASKS[model.recipe.task].whole:
        workloads = {name: make for name, make in workloads.items() if name in WITHOUT_WINDOWS}
        if not workloads:
            task, others = model.recipe.task, " or ".join(WITHOUT_WINDOWS)
            raise UserError(f"a model of {task} takes photos whole and at one scale; choose {others}")
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UserError(f"{error.strerror}; set TMPDIR to one") from None
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / f"photo{Path(image).suffix or '.jpg'}"
        if image:
            read_image(image)  # says what is wrong with it
            shutil.copyfile(image, photo)
        else:
            draw(size, photo)
        measured = []
        for name, make in (bar := Progress(workloads.items(), "benchmark", leave=False)):
            bar.set_postfix_str(name)
            measured.append(measure(name, make(model, photo, batch), device, seconds))
    dtypes = dict.fromkeys([torch.float32, *(one.workload.dtype for one in measured)])
    return CostReport(model, device, {dtype: matmul_peak(device, dtype) for dtype in dtypes}, measured)


@checked
def draw(size: tuple[Drawn, Drawn], path: Path) -> None:
    """Writes a drawn photo of a size (height, width).

    Raises:
        UserError: it is too small or too large to draw.
    """
    scale = min(1, DRAWN / max(size))
    drawn = Image.fromarray(render(0, 0, tuple(max(32, round(side * scale)) for side in size)).image)
    drawn.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
