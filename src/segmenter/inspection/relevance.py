"""Which patches decided what a pixel, or all pixels of a class, became.

The gradient of the class's logit runs back through decoder, attention and MLPs, for blends between one colour, the mean
of the normalisation, and the photo; it is taken at the pixels and at every attention. Two maps come of it: gradient x
photo, integrated over the blends (Sundararajan et al., arXiv 1703.01365), summed over each patch: what removing the
patch, by giving it that colour, would cost; and gradient x attention (Chefer et al., arXiv 2103.15679, equations 5 and
6). Relevance is a sum of both, as neither alone is faithful for all models: benchmarks/results/inside.md.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmenter import config
from segmenter.data.tasks import TASKS
from segmenter.errors import UserError
from segmenter.inference.mode import evaluating
from segmenter.inference.predict import Photo, as_pixels, predict
from segmenter.inspection.captured import Call, Part, capturing
from segmenter.inspection.places import (
    Point,
    Window,
    class_id,
    likeliest_place,
    refuse_outside_photo,
    window_at,
    windows_on,
)
from segmenter.model.segmenter import Segmenter

STEPS = 16  # blends
ATTENTION = 0.3  # weight of gradient x attention against gradient x photo, each first made to sum to 1
TINY = 1e-12


@dataclass(frozen=True)
class Relevance:
    """How much each patch of a window of a photo spoke for an answer of the network."""

    values: np.ndarray
    """h w float32, without unit, absolute values summing to at most 1: positive where the patch spoke for the class (or
    for a larger inverse depth), negative where against it."""
    class_name: str
    """The class that was decided; empty for depth."""
    window: Window
    """The part of the photo that `values` covers; `window.patch_box(row, column)` is a patch's place on the photo."""


def relevance(
    model: Segmenter,
    image: Photo,
    at: Point | None = None,
    class_name: str | int = "",
    native: bool = False,
    inference: config.Inference | None = None,
) -> Relevance:
    """Which patches decided the class of a pixel, or all pixels of a class; or the depth of a pixel.

    >>> model = segmenter.load("runs/first")
    >>> found = segmenter.relevance(model, "photos/test/images/test0.png", at=(20, 30))
    >>> found.values.shape  # 8 x 8 patches
    (8, 8)

    It takes 16 passes through the network and back. Any encoder and decoder will do; the model is left as it was.

    Args:
        model: in any mode.
        image: path, picture, or array (H W 3 uint8).
        at: y and x in pixels of the photo.
        class_name: a class, or its id: with `at` what spoke for it there; without, what spoke for it where it was
            found, in the window where it is widest, or likeliest. None: the class that the network gives the pixel.
        native: keep the photo's scale, as in `predict`.
        inference: windows and scale, as in `predict`.

    Raises:
        UserError: neither a point nor a class is given, the point lies outside the photo, or the model has no such
            class.
    """
    photo = as_pixels(image)
    if at is None and class_name == "":
        raise UserError("relevance is for a pixel or a class; give at=(y, x) in pixels of the photo, or class_name")
    if at is not None:
        refuse_outside_photo(at, photo.shape[:2])
    label = None if class_name == "" else _label(model, class_name)
    place = at or likeliest_place(predict(model, photo, native=native, inference=inference), label)
    window = window_at(windows_on(model, photo, native, inference), place)
    images = model.normalize(window.pixels[None])
    with evaluating(model), torch.inference_mode():
        logits = model(images)[0].float()  # K h w
    cells = cells_of_class(logits, label) if at is None else cells_at(model, window, at)
    if label is None:
        label = int((logits * cells.to(logits.device)).sum((1, 2)).argmax())
    found = relevance_of_patches(model, images, cells, label)
    return Relevance(found.cpu().numpy(), model.classes.names[label] if _has_classes(model) else "", window)


def _has_classes(model: Segmenter) -> bool:
    return TASKS[model.recipe.task].classes is None


def _label(model: Segmenter, class_name: str | int) -> int:
    """The id of a class given by name or id.

    Raises:
        UserError: the model has no such class.
    """
    if not _has_classes(model):
        raise UserError(f"a model of {model.recipe.task} has no classes; give at=(y, x) in pixels of the photo")
    if isinstance(class_name, str):
        return class_id(model.classes, class_name)
    if not 0 <= class_name < len(model.classes):
        raise UserError(f"the model has no class {class_name}; its classes are 0 to {len(model.classes) - 1}")
    return class_name


def cells_at(model: Segmenter, window: Window, at: Point) -> Tensor:
    """The shares (h w, summing to 1) of the logits' cells in the pixel of a window that a point of the photo is in."""
    geometry = model.geometry(*window.pixels.shape[1:])
    cells = torch.zeros(geometry.grid)
    (rows, vertical), (columns, horizontal) = (
        axis.matrix(slice(pixel, pixel + 1)) for axis, pixel in zip(geometry.axes, window.pixel(at), strict=True)
    )
    cells[rows, columns] = torch.from_numpy(vertical.T @ horizontal)
    return cells


def cells_of_class(logits: Tensor, label: int) -> Tensor:
    """The cells (h w, summing to 1) of logits (K h w) that a class wins, alike; where it wins none, by probability."""
    won = (logits.argmax(0) == label).float()
    cells = won if won.any() else logits.softmax(0)[label]
    return cells / cells.sum()


def relevance_of_patches(model: Segmenter, images: Tensor, cells: Tensor, label: int, steps: int = STEPS) -> Tensor:
    """The relevance (h w) of each patch of a normalised image (1 3 H W) for a class in some cells.

    Args:
        model: in any mode.
        images: one image, a window of a photo.
        cells: h w on the decoder's grid, how much each counts; they should sum to 1.
        label: the class; of a depth model 0.
        steps: blends between the mean colour and the image.
    """
    photo, attention = relevance_parts(model, images, cells, label, steps)
    return (photo + ATTENTION * attention) / (1 + ATTENTION)


def relevance_parts(
    model: Segmenter, images: Tensor, cells: Tensor, label: int, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """What `relevance_of_patches` is made of, with the same arguments: gradient x photo, gradient x attention (h w)."""
    grid, side = model.encoder.grid(*images.shape[-2:]), model.encoder.patch_size
    cells = cells.to(images.device)
    gradients, rows = torch.zeros_like(images), torch.zeros(grid, device=images.device)
    for step in range(steps):
        gradient, row = _gradient_and_row(model, images * ((step + 0.5) / steps), cells, label)
        gradients += gradient / steps
        rows += row / steps
    products = (gradients * images).sum(1)  # 1 H W
    padded = F.pad(products, (0, grid[1] * side - products.shape[2], 0, grid[0] * side - products.shape[1]))
    photo = padded.unflatten(2, (grid[1], side)).unflatten(1, (grid[0], side)).sum((2, 4))[0]
    return photo / photo.abs().sum().clamp(min=TINY), rows / rows.sum().clamp(min=TINY)


def _gradient_and_row(model: Segmenter, images: Tensor, cells: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Of a class's logit in some cells: the gradient at an image (1 3 H W), and gradient x attention (h w)."""
    row = _Row(F.interpolate(cells[None, None], model.encoder.grid(*images.shape[-2:]), mode="area")[0, 0])
    with _gradients_at_input(model), capturing(model, row.see) as watching:
        model.encoder.recompute = lambda: (nullcontext(), watching())
        images, cells = images.clone().requires_grad_(), cells.clone()  # inference mode may have made them
        score = (model(images)[0, label] * cells).sum()
        row.backward = True
        (gradient,) = torch.autograd.grad(score, images)
    return gradient, row.patches()


class _Row:
    """Gradient x attention, rolled out from some patches: a row over the tokens, from the last block to the first.

    Each block adds r (gradient x attention)+, in the mean of the heads, to the row r. The encoder's blocks are computed
    again in the backward pass, so that no more than one's attention is there; of that, a band is formed at a time.
    """

    def __init__(self, start: Tensor):
        self.grid = start.shape  # h w
        self.values, self.part, self.within = start.flatten() / start.sum(), "", slice(0, start.numel())
        self.backward = False
        self.calls: defaultdict[tuple[Part, int], list[Call]] = defaultdict(list)
        self.seen: Counter[tuple[Part, int]] = Counter()

    def see(self, call: Call) -> None:
        """In the forward pass asks for the gradient at the output; keeps the decoder, and what is computed again."""
        place = (call.part, call.block)
        if not self.backward:
            call.output.register_hook(partial(self._reached, place, self.seen[place]))
            self.seen[place] += 1
        calls = self.calls[place]
        wanted = self.backward or call.part == "decoder"
        if wanted and not (calls and calls[-1].output is call.output):  # which a second watch of one thread has seen
            calls.append(call)

    def _reached(self, place: tuple[Part, int], number: int, gradient: Tensor) -> None:
        """Carries the row through an attention whose output has this gradient (1 heads T d)."""
        call = self.calls[place][number]
        if call.part != self.part:  # the tokens beside the patches count nothing yet
            values = self.values.new_zeros(call.query.shape[2])
            values[call.patches] = self.values[self.within]
            self.values, self.part = values, call.part
        self.within = call.patches
        passed = torch.zeros_like(self.values)
        for tokens, band in call.bands():
            products = (gradient[:, :, tokens] @ call.value.mT * band).clamp(min=0)  # 1 heads R T
            passed += self.values[tokens] @ products[0].mean(0)
        self.values = self.values + passed
        self.seen[place] -= 1
        if not self.seen[place]:
            del self.calls[place]

    def patches(self) -> Tensor:
        """What has come from each patch (h w)."""
        return self.values[self.within].unflatten(0, self.grid)


@contextmanager
def _gradients_at_input(model: Segmenter) -> Iterator[None]:
    """Within it, gradients reach the input alone; on exit, also after an error, the model is as it was."""
    learnt, recompute = [p for p in model.parameters() if p.requires_grad], model.encoder.recompute
    try:
        for parameter in learnt:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        model.encoder.recompute = recompute
        for parameter in learnt:
            parameter.requires_grad_(True)
