"""What a model costs on this machine, stage by stage: an image, a batch, a photo in windows, a photo at many scales."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from segmenter.config import Inference
from segmenter.cost.benchmark_report import Report
from segmenter.cost.measuring import matmul_peak
from segmenter.cost.stages import Stages, Way, measure, noted
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


def single(model: Segmenter, photo: Path, _: int) -> Way:
    """One image, as a model of its task takes it in one pass."""
    return SINGLE[model.recipe.task](model, photo, 1)


def whole(model: Segmenter, photo: Path, _: int) -> Way:
    """The photo in one pass, as a model of depth takes it."""
    return Way(_sizes(image_size(photo)), 1, lambda stages: _depth(model, photo, stages), model.precision)


def batched(model: Segmenter, photo: Path, batch: int) -> Way:
    """Images of the window's size in one pass."""
    inference = replace(model.recipe.inference, batch=batch)
    crop = photo.with_name("window.jpg")
    Image.fromarray(read_image(photo)).resize(inference.window[::-1], Image.Resampling.BILINEAR).save(crop, quality=90)
    about = f"{batch} x {_sizes(inference.window)}"
    return Way(about, batch, lambda stages: _batch(model, crop, inference, stages), model.precision)


def in_windows(model: Segmenter, photo: Path, _: int) -> Way:
    """The photo, as `predict` takes it."""
    return Way(_sizes(image_size(photo)), 1, lambda stages: _predict(model, photo, False, stages), model.precision)


def multiscale(model: Segmenter, photo: Path, _: int) -> Way:
    """The photo at six scales, straight and mirrored."""
    about = f"{_sizes(image_size(photo))}, mirrored too"
    return Way(about, 1, lambda stages: _predict(model, photo, True, stages), model.precision)


def _sizes(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


@torch.inference_mode()
def _batch(model: Segmenter, file: Path, inference: Inference, stages: Stages) -> None:
    """As an evaluation takes images."""
    stages.enter("decode")
    images = [read_image(file) for _ in range(inference.batch)]
    stages.enter("preprocess")
    stream = ((scaled(image, model.recipe.augment, native=True), None) for image in images)
    with noted(model, stages, then="preprocess"):
        for logits, geometry, _ in logits_of_many(model, stream, inference):
            stages.enter("pixels")
            Result([(logits, geometry)], model.classes)
            stages.enter("preprocess")
    stages.enter(None)


@torch.inference_mode()
def _predict(model: Segmenter, file: Path, multiscale: bool, stages: Stages) -> None:
    """A photo as `predict` takes it."""
    settings, augment = model.recipe.inference, model.recipe.augment
    stages.enter("decode")
    image = read_image(file)
    stages.enter("preprocess")
    with noted(model, stages, then="preprocess"):
        if multiscale:
            passes = many_passes(model, image, settings)
        else:
            passes = [one_pass(model, scaled(image, augment, settings.native), image.shape[:2], settings)]
    stages.enter("pixels")
    Result(passes, model.classes)
    stages.enter(None)


@torch.inference_mode()
def _depth(model: Segmenter, file: Path, stages: Stages) -> None:
    """A photo's depth as `predict` takes it."""
    stages.enter("decode")
    image = read_image(file)
    stages.enter("preprocess")
    with noted(model, stages, then="pixels"):
        inverse_depth(model, scaled(image, model.recipe.augment, model.recipe.inference.native), image.shape[:2]).cpu()
    stages.enter(None)


Maker = Callable[[Segmenter, Path, int], Way]
WAYS: dict[str, Maker] = {"single": single, "batch": batched, "windows": in_windows, "multiscale": multiscale}
SINGLE: dict[str, Maker] = {"labels": batched, "depth": whole}  # by the recipe's task
OF_WHOLE = ("single", "training")  # ways for models that take no windows


@checked
def benchmark(
    model: Segmenter,
    ways: dict[str, Maker],
    image: str = "",
    size: tuple[Drawn, Drawn] = (960, 1280),
    batch: Images = 4,
    seconds: Seconds = 3.0,
) -> Report:
    """Measures a model in evaluation mode, on the device where it is.

    Args:
        ways: what to do with it, by name.
        image: photo; none: one is drawn.
        size: of the drawn photo, (height, width).
        batch: images in a batch.
        seconds: that each way is repeated.

    Raises:
        UserError: a number is outside its range, the photo cannot be read, or none of the ways is for the model.
    """
    device = next(model.parameters()).device
    if TASKS[model.recipe.task].whole:
        ways = {name: ways[name] for name in ways if name in OF_WHOLE}
        if not ways:
            task, others = model.recipe.task, " or ".join(OF_WHOLE)
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
        found = []
        for name, make in (bar := Progress(ways.items(), "benchmark", leave=False)):
            bar.set_postfix_str(name)
            found.append(measure(name, make(model, photo, batch), device, seconds))
    dtypes = dict.fromkeys([torch.float32, *(one.way.dtype for one in found)])
    return Report(model, device, {dtype: matmul_peak(device, dtype) for dtype in dtypes}, found)


@checked
def draw(size: tuple[Drawn, Drawn], path: Path) -> None:
    """Writes a drawn photo of a size (height, width).

    Raises:
        UserError: it is too small or too large to draw.
    """
    scale = min(1, DRAWN / max(size))
    drawn = Image.fromarray(render(0, 0, tuple(max(32, round(side * scale)) for side in size)).image)
    drawn.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
