"""The cost of a training update, as a workload of `segmenter benchmark`: the recipe's own loss and optimiser."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from segmenter.cost.stages import Stages, Workload, mark_stages
from segmenter.data import transforms
from segmenter.data.files import read_image
from segmenter.data.samples import DataSet
from segmenter.model.devices import multiplying_in, precision_of
from segmenter.model.segmenter import Segmenter
from segmenter.training import optim
from segmenter.training.objective import OBJECTIVES, Objective
from segmenter.training.run import Trained


def training_step(model: Segmenter, photo: Path, batch: int) -> Workload:
    """An update on crops of the photo with random targets; it is made on a copy of the model."""
    step = Step(copy.deepcopy(model), photo, batch)
    height, width = model.recipe.augment.crop
    return Workload(f"{batch} crops of {height} x {width}", batch, step.run, step.dtype)


class Step:
    """An update that can be repeated."""

    def __init__(self, model: Segmenter, photo: Path, batch: int):
        self.model, self.photo, self.batch = model, photo, batch
        recipe = model.recipe
        self.objective = OBJECTIVES[recipe.task](recipe, DataSet(model.classes, {}, "benchmark"))
        self.optimizers = optim.optimizers(model, recipe.train)
        self.device = next(model.parameters()).device
        self.dtype = precision_of(recipe.train.precision, self.device)
        self.targets = _targets(self.objective, model, batch)

    def run(self, stages: Stages) -> None:
        """What one process of a training does; there, workers decode and distort in parallel."""
        model = self.model.train()
        stages.enter("decode")
        photos = [torch.from_numpy(read_image(self.photo)).permute(2, 0, 1) for _ in range(self.batch)]
        stages.enter("preprocess")
        images = torch.stack([self._crop(photo) for photo in photos]).to(self.device)
        images, targets = model.normalize(images), self.targets.to(self.device)
        stages.enter("encoder")
        with mark_stages(model, stages, then="pixels"), multiplying_in(self.dtype, self.device):
            logits = Trained(model)(images)
        stages.enter("pixels")
        loss = self.objective.loss(model.outputs(logits, *images.shape[-2:]), targets) / self.objective.weight(targets)
        stages.enter("backward")
        loss.backward()
        stages.enter("optimizer")
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        stages.enter(None)

    def _crop(self, photo: Tensor) -> Tensor:
        augment, generator = self.model.recipe.augment, torch.Generator().manual_seed(0)
        labels = torch.randint(2, photo.shape[1:], dtype=torch.uint8, generator=generator)  # no class dominates
        image, labels = transforms.augment(photo, labels, augment, 255, generator)
        return transforms.pad(image, labels, augment.crop, 255)[0]


def _targets(objective: Objective, model: Segmenter, batch: int) -> Tensor:
    """Random targets (B H W) in areas of 16 pixels, so that they cost as much as those of photos."""
    crop, generator = model.recipe.augment.crop, torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, *(max(1, side // 16) for side in crop), generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, crop)[:, 0]
    return objective.random_targets(pixels)
