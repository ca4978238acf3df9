"""What an update of the training costs, as a way for `segmenter benchmark`: the recipe's own loss and optimiser."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from segmenter.cost.stages import Stages, Way, noted
from segmenter.data import transforms
from segmenter.data.files import read_image
from segmenter.data.samples import DataSet
from segmenter.model.devices import multiplying_in, precision_of
from segmenter.model.segmenter import Segmenter
from segmenter.training import optim
from segmenter.training.loop import Trained
from segmenter.training.objective import OBJECTIVES, Objective


def training_step(model: Segmenter, photo: Path, batch: int) -> Way:
    """An update on crops of the photo with targets that mean nothing; the model itself stays as it is."""
    step = Step(copy.deepcopy(model), photo, batch)
    height, width = model.recipe.augment.crop
    return Way(f"{batch} crops of {height} x {width}", batch, step.go, step.dtype)


class Step:
    """An update that can be made again and again."""

    def __init__(self, model: Segmenter, photo: Path, batch: int):
        self.model, self.photo, self.batch = model, photo, batch
        recipe = model.recipe
        self.objective = OBJECTIVES[recipe.task](recipe, DataSet(model.classes, {}, "benchmark"))
        self.optimizers = optim.optimizers(model, recipe.train)
        self.device = next(model.parameters()).device
        self.dtype = precision_of(recipe.train.precision, self.device)
        self.targets = _targets(self.objective, model, batch)

    def go(self, stages: Stages) -> None:
        """What one process of a training does; there, workers read and distort meanwhile."""
        model = self.model.train()
        stages.enter("decode")
        photos = [torch.from_numpy(read_image(self.photo)).permute(2, 0, 1) for _ in range(self.batch)]
        stages.enter("preprocess")
        images = torch.stack([self._crop(photo) for photo in photos]).to(self.device)
        images, targets = model.normalize(images), self.targets.to(self.device)
        stages.enter("encoder")
        with noted(model, stages, then="pixels"), multiplying_in(self.dtype, self.device):
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
        labels = torch.randint(2, photo.shape[1:], dtype=torch.uint8, generator=generator)  # no class prevails
        image, labels = transforms.augment(photo, labels, augment, 255, generator)
        return transforms.pad(image, labels, augment.crop, 255)[0]


def _targets(objective: Objective, model: Segmenter, batch: int) -> Tensor:
    """Targets (B H W) in areas of 16 pixels, so that they cost what those of photos do."""
    crop, generator = model.recipe.augment.crop, torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 1, *(max(1, side // 16) for side in crop), generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, crop)[:, 0]
    return objective.imagined(pixels)
