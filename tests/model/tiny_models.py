"""Small models for the tests: two blocks, 48 features, random weights that all matter."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from segmenter import config
from segmenter.data.classes import Classes, default_colors
from segmenter.model.encoder import Encoder
from segmenter.model.segmenter import Segmenter

SMALL = {"depth": 2, "width": 48, "heads": 3}


def classes(count: int = 5) -> Classes:
    return Classes(tuple(f"c{i}" for i in range(count)), default_colors(count))


def recipe(
    decoder: str | config.Decoder = "linear",
    name: str = "vit_tiny_patch16_224",
    crop: tuple[int, int] = (64, 96),
    **encoder,
) -> config.Recipe:
    """A recipe for a small model; stochastic depth is off unless asked for."""
    if isinstance(decoder, str):
        narrow = {"width": 12} if "width" in config.DECODERS[decoder].__annotations__ else {}
        decoder = config.decoder(decoder, **narrow)
    settings = SMALL | {"drop_path": 0.0} | encoder
    return config.Recipe(
        augment=config.Augment(short_side=min(crop), crop=crop),
        encoder=config.Encoder(name=name, **settings),
        decoder=decoder,
        inference=config.Inference(window=crop, stride=crop),
    )


def small_model(decoder: str | config.Decoder = "linear", count: int = 5, **settings) -> Segmenter:
    """A small model in evaluation mode, the same for the same arguments."""
    torch.manual_seed(0)
    return Segmenter(recipe(decoder, **settings), classes(count)).eval()


def small_encoder(name: str = "vit_tiny_patch16_224", image_size: tuple[int, int] = (224, 224), **settings) -> Encoder:
    """A small encoder in evaluation mode, the same for the same arguments."""
    torch.manual_seed(0)
    return Encoder(config.Encoder(name=name, **(SMALL | {"drop_path": 0.0} | settings)), image_size).eval()


def of_width(width: int, depth: int = 2, patch_size: int = 16) -> SimpleNamespace:
    """All that a decoder asks of an encoder."""
    return SimpleNamespace(width=width, depth=depth, patch_size=patch_size, stages=[], has_class_token=True)


def made_for(encoder, kind: type, settings: config.Decoder, count: int) -> nn.Module:
    """A decoder for an encoder (or what `of_width` gives), which is told the blocks that it reads."""
    encoder.taps = kind.blocks_read(settings, encoder)
    return kind(settings, encoder, count)


@torch.no_grad()
def stir(module: nn.Module, seed: int = 0) -> None:
    """Gives every parameter a random value, so that no layer scale or register is too small to be seen."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and name.endswith("weight") else 0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
