"""How far a ResNet can see at each of its stages, from its kernels and strides: what attended areas are compared with.

Source: the layers are those of ResNet-50 and ResNet-101, arXiv 1512.03385, table 1, where the first convolution of a
stage has the stride (its 1 x 1; ports that give the stride to the 3 x 3 see a little less far). The sum over layers is
that of Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019, equation 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Layer = tuple[int, int]  # kernel, stride


@dataclass(frozen=True)
class ReceptiveField:
    """The square of pixels that can change a feature."""

    stage: str
    side: int
    """In pixels."""
    stride: int
    """Pixels from one feature to the next."""


STEM: tuple[Layer, ...] = ((7, 2), (3, 2))  # conv1 and the pooling before conv2
BLOCKS = {"ResNet-50": (3, 4, 6, 3), "ResNet-101": (3, 4, 23, 3)}  # of conv2 to conv5
STRIDES = (1, 2, 2, 2)  # of their first blocks


def bottlenecks(count: int, stride: int) -> tuple[Layer, ...]:
    """The layers on the longest way through a stage; the shortcuts around the blocks see less."""
    return tuple(layer for block in range(count) for layer in ((1, stride if block == 0 else 1), (3, 1), (1, 1)))


def receptive_field(layers: Iterable[Layer]) -> tuple[int, int]:
    """Layers one after another to the side of the receptive field and the stride of their output, in pixels."""
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side, step


def receptive_fields(network: str) -> tuple[ReceptiveField, ...]:
    """The receptive fields of conv1 and of the ends of the stages conv2 to conv5 of a network of BLOCKS."""
    layers, found = STEM[:1], [ReceptiveField("conv1", *receptive_field(STEM[:1]))]
    layers += STEM[1:]
    for number, (count, stride) in enumerate(zip(BLOCKS[network], STRIDES, strict=True), start=2):
        layers += bottlenecks(count, stride)
        found.append(ReceptiveField(f"conv{number}", *receptive_field(layers)))
    return tuple(found)
