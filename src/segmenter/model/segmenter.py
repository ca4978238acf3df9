"""The whole network: images in, class logits on the decoder's grid out; `Geometry` says where they lie on the pixels.

Source: Segmenter, arXiv 2105.05633, section 3. A model carries its classes, its normalisation and its recipe: a saved
model can be used without knowing how it was trained.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segmenter import config, upsample
from segmenter.config import without_auxiliary
from segmenter.data.classes import Classes, default_colors
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.model import folder as folders
from segmenter.model.decoders.dpt import Dpt, DptDepth
from segmenter.model.decoders.linear import Linear
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.decoders.setr import SetrMla, SetrNaive, SetrPup
from segmenter.model.encoder import Encoder, Tokens
from segmenter.model.folder import Description
from segmenter.ranges import ClassCount, Pixels, checked, refuse_outside

DECODERS = {
    "linear": Linear,
    "mask_transformer": MaskTransformer,
    "setr_naive": SetrNaive,
    "setr_pup": SetrPup,
    "setr_mla": SetrMla,
    "dpt": Dpt,
    "dpt_depth": DptDepth,
}


class Output(NamedTuple):
    """Logits that training compares with the labels."""

    name: str
    weight: float  # of its loss
    logits: Tensor  # B K h w
    geometry: upsample.Geometry


class Segmenter(nn.Module):
    """An encoder, a decoder, and what is known about the classes and the images they were trained on."""

    def __init__(self, recipe: config.Recipe, classes: Classes):
        super().__init__()
        self.recipe = recipe
        self.classes = classes
        self.temperature = 1.0  # to which `calibrate` says that probabilities are to be brought
        self.precision = torch.float32  # of the products in predictions; training uses the recipe's precision
        kind = DECODERS[recipe.decoder.name]
        read = partial(kind.blocks_read, recipe.decoder)
        self.encoder = Encoder(recipe.encoder, recipe.augment.crop, read, kind.prefix)
        self.decoder = kind(recipe.decoder, self.encoder, len(classes))
        self.mean: tuple[float, ...] = self.encoder.mean  # of red, green and blue, on the scale 0 to 1
        self.std: tuple[float, ...] = self.encoder.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B 3 H W, any H and W from 1 pixel up) to logits (B K h w)."""
        return self.decoder(self._levels(images, self.decoder.taps))

    def forward_auxiliary(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B 3 H W) to the logits and those of each auxiliary decoder, for training."""
        return self.decoder.forward_auxiliary(self._levels(images, self.decoder.taps + self.decoder.auxiliary_taps))

    def _levels(self, images: Tensor, taps: tuple[int, ...]) -> list[Tokens]:
        return self.encoder.intermediate(images, taps, self.decoder.stages) if taps else [self.encoder(images)]

    def geometry(self, height: int, width: int) -> upsample.Geometry:
        """How the logits of images of this size lie on their pixels."""
        return self.decoder.geometry(self.encoder.grid(height, width), self.encoder.patch_size, (height, width))

    def outputs(self, logits: list[Tensor], height: int, width: int) -> list[Output]:
        """The results of `forward_auxiliary` for images of this size, with names, weights and geometries."""
        main, *others = logits
        extent = tuple(side * self.encoder.patch_size for side in self.encoder.grid(height, width))
        return [Output("main", 1.0, main, self.geometry(height, width))] + [
            Output(
                f"auxiliary {i}",
                self.recipe.decoder.auxiliary,
                other,
                upsample.Geometry(tuple(other.shape[-2:]), extent, (height, width)),
            )
            for i, other in enumerate(others)
        ]

    def pixel_logits(self, images: Tensor) -> Tensor:
        """Normalised images (B 3 H W) to the full logits (B K H W), for tests and small work."""
        return upsample.logits(self(images), self.geometry(*images.shape[-2:]))

    def normalize(self, images: Tensor, content: Tensor | None = None) -> Tensor:
        """Images (B 3 H W, 0 to 255) to the network's input; outside `content` (B 2: h, w) they become 0.

        The published training pads after normalising, so that padding is the mean colour.
        """
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) * 255 for v in (self.mean, self.std))
        images = (images.float() - mean) / std
        if content is None:
            return images
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) < content[:, :1]  # B H
        columns = torch.arange(width, device=images.device) < content[:, 1:]  # B W
        return images * (rows[:, None, :, None] & columns[:, None, None, :])

    def describe(self) -> Description:
        """All that is known of the model besides its weights."""
        return Description(self.classes, tuple(self.mean), tuple(self.std), self.recipe, self.temperature)

    @classmethod
    def from_description(cls, about: Description, auxiliary: bool = False) -> "Segmenter":
        """A model without its weights; auxiliary decoders, which only training needs, are left out by default."""
        recipe = about.recipe
        # The weights come from a file, not from where the encoder's first ones came from.
        built = replace(recipe, encoder=replace(recipe.encoder, pretrained=""))
        model = cls(built if auxiliary else without_auxiliary(built), about.classes)
        model.recipe, model.mean, model.std, model.temperature = recipe, about.mean, about.std, about.temperature
        return model

    def save(self, folder: str | Path) -> None:
        """Writes model.safetensors and config.json; an older model in the folder survives a failure."""
        folders.write(Path(folder), self.state_dict(), self.describe())


@checked
def create(
    encoder: str,
    decoder: str = "mask_transformer",
    classes: int | list[str] | Classes = 150,
    image_size: Pixels | tuple[Pixels, Pixels] = 512,
    pretrained: bool | str = False,
) -> Segmenter:
    """Makes a model for images whose short side is about `image_size` pixels.

    Args:
        encoder: name of a plain vision transformer in timm.
        decoder: `linear`, `mask_transformer`, `setr_naive`, `setr_pup`, `setr_mla`, `dpt` or `dpt_depth`.
        classes: their number, their names, or a `Classes` object; `dpt_depth` ignores it.
        image_size: side of the training crop, or (height, width).
        pretrained: True for timm's weights from the hub, or the path of a .safetensors or .pth file.

    Raises:
        UserError: the encoder or decoder is unknown, a number is outside its range, or the weights cannot be
            downloaded or read.
    """
    if isinstance(classes, int):
        refuse_outside(classes, ClassCount, "classes")
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    source = pretrained if isinstance(pretrained, str) else "hub" if pretrained else ""
    recipe = config.Recipe(
        augment=config.Augment(short_side=min(size), crop=size),
        encoder=config.Encoder(name=encoder, pretrained=source),
        decoder=config.decoder(decoder),
        inference=config.Inference(window=size, stride=size),
    )
    if recipe.task == "depth":
        classes = DEPTH_CLASSES
    if not isinstance(classes, Classes):
        names = tuple(classes) if not isinstance(classes, int) else tuple(f"class {i}" for i in range(classes))
        classes = Classes(names, default_colors(len(names)))
    return Segmenter(recipe, classes)
