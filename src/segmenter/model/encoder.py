"""Any plain vision transformer of timm as an encoder: images of any size in, tokens of chosen blocks out.

Source: Segmenter (arXiv 2105.05633), section 3.1. We walk timm's blocks ourselves, because padding to whole
patches, the bilinear position resize of the paper and relative positions on any grid are not in timm's own forward.
Where timm normalises only the pooled token (BEiT, EVA-02), that norm is applied to every token instead.
Hybrids have convolutions in place of the patch embedding; where those are a ResNet in stages (as DPT's), the maps of
its stages can be read too.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from segmenter import config
from segmenter.errors import UserError
from segmenter.model.positions import resample, waves
from segmenter.model.timm_models import Beit, PatchEmbed, ResNetV2, gen_relative_position_index
from segmenter.model.timm_vit import create_vit
from segmenter.model.weight_cache import WeightCache

PREFIX = ("cls_token", "dist_token", "reg_token")  # the order in which timm puts them


class Tokens(NamedTuple):
    """The output of a block for a batch of images."""

    patches: Tensor  # B N D, row by row
    prefix: Tensor  # B P D: class, distillation and register tokens; P may be 0
    grid: tuple[int, int]  # h, w with N = h w


class Stage(NamedTuple):
    """A stage of the ResNet in front of a hybrid encoder's blocks."""

    width: int
    stride: int  # pixels from one cell of its map to the next


class Encoder(nn.Module):
    """A timm vision transformer without its classifier, for images of any height and width.

    Args:
        image_size: height and width of the training crop in pixels, on whose grid the positions lie.
        taps: gives the blocks (0-based) that a decoder reads; the encoder then ends with the last of them, without the
            final norm. Empty: all blocks and the norm.
        prefix: whether the class token and other prefix tokens take part.

    Raises:
        UserError: the name is unknown or not a plain vision transformer, the weights cannot be loaded, or the encoder
            cannot work without its prefix tokens.
    """

    def __init__(
        self,
        settings: config.Encoder,
        image_size: tuple[int, int],
        taps: Callable[["Encoder"], tuple[int, ...]] = lambda _: (),
        prefix: bool = True,
    ):
        super().__init__()
        self.settings = settings
        self.vit = create_vit(settings)
        self.patch_size: int = self.vit.patch_embed.feat_ratio()
        stem = getattr(self.vit.patch_embed, "backbone", None)  # of a hybrid
        features = stem.feature_info[1:] if isinstance(stem, ResNetV2) else []
        self.stages = [Stage(feature["num_chs"], feature["reduction"]) for feature in features]
        self.width = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.mean: tuple[float, ...] = self.vit.pretrained_cfg["mean"]
        self.std: tuple[float, ...] = self.vit.pretrained_cfg["std"]
        if settings.norm_eps is not None:
            self._set_norm_eps(settings.norm_eps)
        self.norm: nn.Module = self.vit.norm if not isinstance(self.vit.norm, nn.Identity) else self.vit.fc_norm
        self.vit.norm = self.vit.fc_norm = nn.Identity()
        self._refuse_freezing(settings.freeze)
        self.taps = taps(self)
        if self.taps:
            self.vit.blocks = self.vit.blocks[: max(self.taps) + 1]
            self.depth = len(self.vit.blocks)
            self.norm = nn.Identity()
        self.relative_tables = self._take_relative_tables()
        if not prefix:
            self._leave_out_prefix()

        # The trained positions lie on the grid of the training crop, so that training uses them without resampling.
        native = self.vit.patch_embed.grid_size
        self.table_grid = self.grid(*image_size)
        if self.vit.pos_embed is not None:
            self.vit.pos_embed = nn.Parameter(self.resize_table(self.vit.pos_embed.data, native, self.table_grid))
            if not settings.pretrained and self.width % 4 == 0:
                count = math.prod(self.table_grid)
                self.vit.pos_embed.data[:, -count:] = 0.5 * waves(self.table_grid, self.width)
        self._resized = WeightCache()  # position embeddings on recent grids
        # Contexts of a first and a second run of a block, as torch's checkpoint takes them; given, what is inside the
        # blocks is computed again for the gradient, in any mode.
        self.recompute: Callable[[], tuple[AbstractContextManager, AbstractContextManager]] | None = None
        self._freeze(settings.freeze if settings.freeze < self.depth or not self.taps else -1)

    @property
    def prefix(self) -> int:
        """Tokens before the patches: class, distillation and register tokens."""
        return sum(token.shape[1] for token in _prefix_parameters(self.vit))

    @property
    def has_class_token(self) -> bool:
        """Whether the first of the tokens before the patches is a class token."""
        return getattr(self.vit, "cls_token", None) is not None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that an image of this size in pixels is padded to."""
        return math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)

    def forward(self, images: Tensor) -> Tokens:
        """Normalised images (B 3 H W) to the tokens of the last block after the final norm.

        >>> model = segmenter.load("runs/first")
        >>> tokens = model.encoder(model.normalize(torch.zeros(1, 3, 64, 90)))  # patches of 8 x 8 pixels
        >>> tokens.grid, tokens.patches.shape, tokens.prefix.shape
        ((8, 12), torch.Size([1, 96, 48]), torch.Size([1, 1, 48]))
        """
        maps, grid = self._stem(images)
        tokens = self.norm(self._run_blocks(maps[-1], grid, [self.depth - 1])[0])
        return self._split(tokens, grid)

    def intermediate(self, images: Tensor, blocks: Sequence[int], stages: Sequence[int] = ()) -> list[Tokens]:
        """Normalised images (B 3 H W) to the tokens after each of the chosen blocks (0-based), without norm.

        Before them come the maps of a hybrid's `stages`, as tokens on finer grids.

        Raises:
            UserError: a block beyond the encoder's depth.
        """
        self._refuse_blocks(blocks)
        maps, grid = self._stem(images)
        outputs = self._run_blocks(maps[-1], grid, blocks)
        finer = [Tokens(m.flatten(2).mT, outputs[0][:, :0], tuple(m.shape[-2:])) for m in (maps[i] for i in stages)]
        return finer + [self._split(tokens, grid) for tokens in outputs]

    def _split(self, tokens: Tensor, grid: tuple[int, int]) -> Tokens:
        """Tokens (B P+N D) to patches and prefix."""
        prefix = tokens.shape[1] - math.prod(grid)
        return Tokens(tokens[:, prefix:], tokens[:, :prefix], grid)

    def _run_blocks(self, images: Tensor, grid: tuple[int, int], blocks: Sequence[int]) -> list[Tensor]:
        """Whole patches (B C h w) to the tokens (B P+N D) after each of the chosen blocks."""
        tokens = self._embed(images)
        positions = self._shared_positions(grid)
        outputs = {}
        for index in range(max(blocks) + 1):
            tokens = self._block(index, tokens, grid, positions)
            if index in blocks:
                outputs[index] = tokens
        return [outputs[index] for index in blocks]

    def _stem(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Padded images, or the maps of a hybrid's stages (at least the last), and the grid of their patches."""
        height, width = images.shape[-2:]
        grid = self.grid(height, width)
        missing = (0, grid[1] * self.patch_size - width, 0, grid[0] * self.patch_size - height)
        if any(missing):  # padding by zero pixels would copy
            images = F.pad(images, missing)
        stem = getattr(self.vit.patch_embed, "backbone", None)
        if stem is None:
            return [images], grid
        if not self.stages:
            maps = stem(images)
            return [maps[-1] if isinstance(maps, list) else maps], grid
        maps = [stem.stem(images)]
        for stage in stem.stages:
            maps.append(stage(maps[-1]))
        return maps[1:], grid

    def _embed(self, images: Tensor) -> Tensor:
        """Whole patches (B C h w) to the tokens (B P+N D) that enter block 0."""
        vit = self.vit
        patches = vit.patch_embed.proj(images)  # B D h w
        grid = tuple(patches.shape[-2:])
        patches = patches.flatten(2).mT  # B N D
        if isinstance(vit.patch_embed, PatchEmbed):
            patches = vit.patch_embed.norm(patches)
        prefix = [token.expand(len(images), -1, -1) for token in _prefix_parameters(vit)]
        tokens = torch.cat([*prefix, patches], 1)  # B P+N D
        if vit.pos_embed is not None:
            table = self._positions(grid)
            # DeiT-3 and DINOv2 with registers have no positions for the prefix tokens; SETR-MLA has no such tokens.
            if missing := tokens.shape[1] - table.shape[1]:
                table = F.pad(table, (0, 0, missing, 0))
            tokens = tokens + table
        tokens = vit.pos_drop(tokens)
        pre_norm = getattr(vit, "norm_pre", None)  # CLIP's; BEiT has no such attribute
        return pre_norm(tokens) if pre_norm is not None else tokens

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embedding (1 P+N D) on a grid; outside training it is resampled once for each grid."""
        table = self.vit.pos_embed
        if grid == self.table_grid:
            return table
        return self._resized.get(table, grid, lambda: self.resize_table(table, self.table_grid, grid))

    def _shared_positions(self, grid: tuple[int, int]) -> Tensor | None:
        """What all blocks use of the positions in a grid: the rotary embedding, or an index into relative tables."""
        if getattr(self.vit, "rope", None) is not None:
            return self.vit.rope.get_embed(shape=list(grid))
        if len(self.relative_tables):
            return gen_relative_position_index(grid, device=self.relative_tables[0].device)  # 1+N 1+N
        return None

    def _block(self, index: int, tokens: Tensor, grid: tuple[int, int], positions: Tensor | None) -> Tensor:
        """Tokens (B P+N D) through one block; where they are recomputed, only they are kept for the gradient."""
        recomputed = self.recompute is not None or (self.settings.checkpointing and self.training)
        if recomputed and torch.is_grad_enabled():
            contexts = self.recompute or noop_context_fn
            return checkpoint(self._through, index, tokens, grid, positions, use_reentrant=False, context_fn=contexts)
        return self._through(index, tokens, grid, positions)

    def _through(self, index: int, tokens: Tensor, grid: tuple[int, int], positions: Tensor | None) -> Tensor:
        """Tokens (B P+N D) through one block, with the relative or rotary positions it uses."""
        relations = {}
        if len(self.relative_tables):
            relations["shared_rel_pos_bias"] = self._relative_bias(self.relative_tables[index], grid, positions)
        elif positions is not None:
            relations["rope"] = positions[index] if self.vit.rope_mixed else positions
        return self.vit.blocks[index](tokens, **relations)

    def train(self, mode: bool = True) -> "Encoder":
        """As nn.Module's, but frozen parts stay in evaluation mode, without dropout and stochastic depth."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        self._resized.clear()
        return self

    def _apply(self, *arguments, **options) -> "Encoder":
        """As nn.Module's; `to` and the like replace the weights without changing their versions."""
        self._resized.clear()
        return super()._apply(*arguments, **options)

    def _refuse_blocks(self, blocks: Sequence[int]) -> None:
        if wrong := [b for b in blocks if not 0 <= b < self.depth]:
            raise UserError(f"{self.settings.name} has the blocks 0 to {self.depth - 1}, not {wrong[0]}")

    def _set_norm_eps(self, eps: float) -> None:
        if not 0 < eps < 1:
            raise UserError(f"encoder.norm_eps is {eps}; write a small value above 0, such as 1e-5")
        for module in self.vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    def _leave_out_prefix(self) -> None:
        if not self.prefix:
            return
        if len(self.relative_tables) or getattr(self.vit, "rope", None) is not None:
            raise UserError(
                f"{self.settings.name} has relative positions, which need its class token; choose another decoder "
                "than setr_mla, or an encoder with absolute positions"
            )
        for name in PREFIX:
            setattr(self.vit, name, None)

    def _refuse_freezing(self, count: int) -> None:
        if not -1 <= count <= self.depth:
            raise UserError(f"encoder.freeze is {count}; {self.settings.name} has {self.depth} blocks (-1: all)")

    def _freeze(self, count: int) -> None:
        blocks = list(self.vit.blocks)
        self.frozen = [self.vit, self.norm] if count == -1 else blocks[:count]
        if count == -1:
            self.requires_grad_(False)
        elif count:
            self.frozen += [self.vit.patch_embed, self.vit.pos_drop]  # before the first block, so frozen with it
            for parameter in [p for n, p in self.vit.named_parameters() if not n.startswith("blocks.")]:
                parameter.requires_grad_(False)
            for part in [*blocks[:count], *self.relative_tables[:count]]:
                part.requires_grad_(False)

    def resize_table(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Position embedding (1 P+N D, P may be 0) from one grid to another; the prefix rows stay."""
        if old == new:
            return table
        prefix, grid = table.split([table.shape[1] - math.prod(old), math.prod(old)], 1)
        image = grid.reshape(1, *old, -1).permute(0, 3, 1, 2)
        image = resample(image, new, self.settings.position_resize)  # 1 D h w
        return torch.cat([prefix, image.flatten(2).mT], 1)

    def _take_relative_tables(self) -> nn.ParameterList:
        """Moves BEiT's tables of relative positions here: timm's attention can use them on one grid only."""
        tables = nn.ParameterList()
        for block in self.vit.blocks if isinstance(self.vit, Beit) else []:
            if block.attn.relative_position_bias_table is not None:
                tables.append(block.attn.relative_position_bias_table)
                block.attn.relative_position_bias_table = None
        return tables

    def _relative_bias(self, table: Tensor, grid: tuple[int, int], index: Tensor) -> Tensor:
        """Table ((2h-1)(2w-1)+3 heads) of the native grid to the attention bias (1 heads 1+N 1+N) of another."""
        table = self.resize_relative_table(table, self.vit.patch_embed.grid_size, grid)
        # Heads first: attention would otherwise copy the bias into that order.
        return table.mT.contiguous().index_select(1, index.flatten()).unflatten(1, index.shape)[None]

    def resize_relative_table(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """BEiT's table ((2h-1)(2w-1)+3 heads) from one grid to another; the last three rows, of the prefix, stay."""
        old, new = ([2 * side - 1 for side in grid] for grid in (old, new))
        if old == new:
            return table
        offsets, special = table.split([math.prod(old), 3])
        image = offsets.mT.reshape(1, -1, *old)  # 1 heads 2h-1 2w-1
        image = resample(image, new, self.settings.position_resize)
        return torch.cat([image.flatten(2)[0].mT, special])


def _prefix_parameters(vit: nn.Module) -> list[Tensor]:
    tokens = [getattr(vit, name, None) for name in PREFIX]  # no `:=` here: torch.compile would break the graph
    return [token for token in tokens if token is not None]
