"""How far the heads of each block look: the distance between patches, weighted by the attention between them.

Source: Segmenter, arXiv 2105.05633, appendix (size of the attended area), after ViT, arXiv 2010.11929, figure 7 and
appendix D.7. Distances are between the middles of patches, in pixels of the network's input, which is what a receptive
field is counted in too. Attention from and to tokens that are no patches has no distance and is left out: its share is
given instead.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from segmenter.errors import UserError
from segmenter.inference.predict import Photo
from segmenter.inspection.captured import Call, Part, capturing
from segmenter.inspection.seen import windows_seen
from segmenter.model.devices import multiplying_in
from segmenter.model.segmenter import Segmenter

Place = tuple[Part, int]


@dataclass(frozen=True)
class BlockArea:
    """How far the heads of a block look."""

    part: Part
    block: int
    """Counted from 0 in the encoder, and from 0 in the decoder."""
    distances: np.ndarray
    """images heads: mean attended distance of each head on each image, in pixels of the network's input."""
    elsewhere: np.ndarray
    """images heads: share of the patches' attention that goes to tokens that are no patches."""


@dataclass(frozen=True)
class AttendedArea:
    """How far all heads of a model look, over a set of images."""

    blocks: list[BlockArea]
    """From the first of the encoder to the last of the decoder, where that has attention."""
    sizes: dict[tuple[int, int], int]
    """Height and width of the windows that the network saw, in its pixels, and how many there were of each."""
    patch_size: int
    prefix: int
    """Tokens of the encoder that are no patches."""

    @property
    def images(self) -> int:
        """How many images there were."""
        return len(self.blocks[0].distances)

    def uniform(self, side: float = np.inf) -> float:
        """The mean distance if every pixel looked alike at all pixels of its window in a square of `side` around it."""
        weighted = [mean_distance(size, side) * count for size, count in self.sizes.items()]
        return sum(weighted) / sum(self.sizes.values())


def attended_area(model: Segmenter, images: Iterable[Photo], native: bool = False) -> AttendedArea:
    """How far each head of each block looks, on average over the patches of every image.

    >>> model = segmenter.load("runs/first")
    >>> found = segmenter.attended_area(model, sorted(Path("photos/test/images").iterdir()))
    >>> [block.distances.shape for block in found.blocks]  # 2 images, 3 heads
    [(2, 3), (2, 3)]

    Args:
        model: in any mode, of any task.
        images: paths, pictures or arrays (H W 3 uint8); one is held at a time.
        native: keep the photos' scale instead of bringing them to the training's.

    Raises:
        UserError: there are no images, one cannot be read, or nothing in the model attends.
    """
    found: defaultdict[Place, list[Tensor]] = defaultdict(list)  # of each image: 3 heads
    sizes: defaultdict[tuple[int, int], int] = defaultdict(int)
    for image in images:
        of_image: dict[Place, Tensor] = {}
        for windows in windows_seen(model, image, native):
            size = tuple(windows.shape[-2:])
            sizes[size] += len(windows)
            for place, sums in _of_windows(model, windows).items():
                of_image[place] = of_image.get(place, 0) + sums
        for place, sums in of_image.items():
            found[place].append(sums)
    if not sizes:
        raise UserError("there are no images; give one or more to look at")
    if not found:
        raise UserError(f"nothing attends in {model.recipe.encoder.name}; give a model of blocks with attention")
    blocks = []
    for (part, block), images_of_block in found.items():
        weighted, patches, others = torch.stack(images_of_block).unbind(1)  # images heads each
        blocks.append(BlockArea(part, block, (weighted / patches).numpy(), (others / (patches + others)).numpy()))
    return AttendedArea(blocks, dict(sizes), model.encoder.patch_size, model.encoder.prefix)


@torch.inference_mode()
def _of_windows(model: Segmenter, windows: Tensor) -> dict[Place, Tensor]:
    """For windows (B 3 h w) and every block the sums (3 heads) that `_sums` gives.

    A block of differential attention has the heads of both of its attentions.
    """
    grid = model.encoder.grid(*windows.shape[-2:])
    found: dict[Place, Tensor] = {}

    def see(call: Call) -> None:
        place, sums = (call.part, call.block), _sums(call, grid, model.encoder.patch_size)
        found[place] = torch.cat([found[place], sums], 1) if place in found else sums

    with capturing(model, see), multiplying_in(model.precision, windows.device):
        model(windows)
    return found


def _sums(call: Call, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Sums (3 heads) over the patches' rows: attention x distance, attention to patches, to all other tokens."""
    count = call.query.shape[2]
    first, last, _ = call.patches.indices(count)
    sums = torch.zeros(3, call.query.shape[1], dtype=torch.float64, device="cpu")
    for tokens, rows in call.bands():  # B heads R T
        apart = _apart(grid, patch_size, first, count, tokens.start, tokens.stop, rows.device)  # R T
        weighted = (rows.flatten(2) @ apart.flatten()).sum(0)  # the rows are read once, and no part of them is copied
        of_patches = rows[:, :, max(first - tokens.start, 0) : max(last - tokens.start, 0)]
        elsewhere = of_patches[..., :first].sum((0, 2, 3)) + of_patches[..., last:].sum((0, 2, 3))
        total = of_patches.shape[0] * of_patches.shape[2]  # each row sums to 1
        sums += torch.stack([weighted, total - elsewhere, elsewhere]).cpu()
    return sums


@lru_cache(maxsize=16)
def _apart(
    grid: tuple[int, int], patch_size: int, first: int, count: int, start: int, end: int, device: torch.device
) -> Tensor:
    """Distances (R T, in pixels) of the tokens from `start` to `end` from all tokens; 0 from or to what is no patch.

    The patches of the grid begin at the token `first` of `count`.
    """
    numbers = torch.arange(count, device=device) - first
    is_patch = (numbers >= 0) & (numbers < grid[0] * grid[1])
    rows, columns = (axis.float() * patch_size for axis in (numbers // grid[1], numbers % grid[1]))
    apart = torch.hypot(rows[start:end, None] - rows, columns[start:end, None] - columns)
    return apart * (is_patch[start:end, None] & is_patch)


@lru_cache(maxsize=64)
def mean_distance(size: tuple[int, int], side: float) -> float:
    """The mean distance of two pixels of an image (H, W) that lie in a square of `side` pixels around one of them."""
    offsets = [np.arange(min(length, int(min(side - 1, 2 * length)) // 2 + 1)) for length in size]
    # So many pairs of rows (or columns) are so far apart; to both sides, but 0 counts once.
    pairs = [(length - o) * np.where(o == 0, 1.0, 2.0) for length, o in zip(size, offsets, strict=True)]
    total = pairs[0] @ np.hypot(offsets[0][:, None], offsets[1]) @ pairs[1]
    return float(total / (pairs[0].sum() * pairs[1].sum()))
