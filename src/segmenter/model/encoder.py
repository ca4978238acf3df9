"""Any plain vision transformer of timm as an encoder: images of any size in, tokens of chosen blocks out.

Source: Segmenter (arXiv 2105.05633), section 3.1. We walk timm's blocks ourselves, because padding to whole
patches, the bilinear position resize of the paper and relative positions on any grid are not in timm's own forward.
Where timm normalises only the pooled token (BEiT, EVA-02), that norm is applied to every token instead.
"""

import difflib
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segmenter import config
from segmenter.errors import UserError
from segmenter.model.published.backbones import EncoderFile, position_grid, read_encoder
from segmenter.model.published.reading import Unreadable
from segmenter.model.timm_models import (
    Beit,
    Eva,
    PatchEmbed,
    VisionTransformer,
    gen_relative_position_index,
    timm,
)


class Tokens(NamedTuple):
    """What a block puts out for a batch of images."""

    patches: Tensor  # B N D, row by row
    prefix: Tensor  # B P D: class, distillation and register tokens; P may be 0
    grid: tuple[int, int]  # h, w with N = h w


class Encoder(nn.Module):
    """A timm vision transformer without its classifier, for images of any height and width.

    Raises:
        UserError: the name is unknown or no plain vision transformer, or the weights cannot be had.
    """

    def __init__(self, settings: config.Encoder, image_size: tuple[int, int]):
        super().__init__()
        self.settings = settings
        self.vit = _create(settings)
        self.patch_size = self.vit.patch_embed.patch_size[0]
        self.width = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.mean: tuple[float, ...] = self.vit.pretrained_cfg["mean"]
        self.std: tuple[float, ...] = self.vit.pretrained_cfg["std"]
        if settings.norm_eps is not None:
            self._set_norm_eps(settings.norm_eps)
        self.norm = self.vit.norm if not isinstance(self.vit.norm, nn.Identity) else self.vit.fc_norm
        self.vit.norm = self.vit.fc_norm = nn.Identity()
        self.relative_tables = self._take_relative_tables()

        # The trained positions live on the grid of the training crop, so that training sees them unresampled.
        native = self.vit.patch_embed.grid_size
        self.table_grid = self.grid(*image_size)
        if self.vit.pos_embed is not None:
            self.vit.pos_embed = nn.Parameter(self.resize_table(self.vit.pos_embed.data, native, self.table_grid))
            if not settings.pretrained and self.width % 4 == 0:
                count = math.prod(self.table_grid)
                self.vit.pos_embed.data[:, -count:] = 0.5 * _waves(self.table_grid, self.width)
        self._freeze(settings.freeze)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that an image of this size in pixels is padded to."""
        return math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)

    def forward(self, images: Tensor) -> Tokens:
        """Normalised images (B 3 H W) to the tokens of the last block after the final norm."""
        last = self.intermediate(images, [self.depth - 1])[0]
        prefix = last.prefix.shape[1]
        tokens = self.norm(torch.cat([last.prefix, last.patches], 1))
        return Tokens(tokens[:, prefix:], tokens[:, :prefix], last.grid)

    def intermediate(self, images: Tensor, blocks: Sequence[int]) -> list[Tokens]:
        """Normalised images (B 3 H W) to the tokens after each of the chosen blocks (0-based), without norm.

        Raises:
            UserError: a block beyond the encoder's depth.
        """
        if wrong := [b for b in blocks if not 0 <= b < self.depth]:
            raise UserError(f"{self.settings.name} has the blocks 0 to {self.depth - 1}, not {wrong[0]}")
        tokens, grid = self.embed(images)
        prefix = tokens.shape[1] - math.prod(grid)
        found = {}
        for index in range(max(blocks) + 1):
            tokens = self.block(index, tokens, grid)
            if index in blocks:
                found[index] = Tokens(tokens[:, prefix:], tokens[:, :prefix], grid)
        return [found[index] for index in blocks]

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised images (B 3 H W) to the tokens (B P+N D) that enter block 0, and their grid."""
        height, width = images.shape[-2:]
        grid = self.grid(height, width)
        p = self.patch_size
        images = F.pad(images, (0, grid[1] * p - width, 0, grid[0] * p - height))
        vit = self.vit
        patches = vit.patch_embed.norm(vit.patch_embed.proj(images).flatten(2).mT)  # B N D
        prefix = [token.expand(len(images), -1, -1) for token in _prefix_parameters(vit)]
        tokens = torch.cat([*prefix, patches], 1)  # B P+N D
        if vit.pos_embed is not None:
            table = self.resize_table(vit.pos_embed, self.table_grid, grid)
            # DeiT-3 and DINOv2 with registers have no positions for the prefix tokens.
            tokens = tokens + F.pad(table, (0, 0, tokens.shape[1] - table.shape[1], 0))
        tokens = vit.pos_drop(tokens)
        pre_norm = getattr(vit, "norm_pre", None)  # CLIP's; BEiT has no such attribute
        return (pre_norm(tokens) if pre_norm is not None else tokens), grid

    def block(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B P+N D) on a grid through one block, with the relations between positions it uses."""
        block, vit = self.vit.blocks[index], self.vit
        relations = {}
        if getattr(vit, "rope", None) is not None:
            rope = vit.rope.get_embed(shape=list(grid))
            relations["rope"] = rope[index] if vit.rope_mixed else rope
        elif len(self.relative_tables):
            relations["shared_rel_pos_bias"] = self._relative_bias(self.relative_tables[index], grid)
        if self.settings.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False, **relations)
        return block(tokens, **relations)

    def train(self, mode: bool = True) -> "Encoder":
        """As nn.Module's; frozen parts stay in evaluation mode, without dropout and stochastic depth."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def _set_norm_eps(self, eps: float) -> None:
        if not 0 < eps < 1:
            raise UserError(f"encoder.norm_eps is {eps}; write a small value above 0, such as 1e-5")
        for module in self.vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    def _freeze(self, count: int) -> None:
        blocks = list(self.vit.blocks)
        if not -1 <= count <= len(blocks):
            raise UserError(f"encoder.freeze is {count}; {self.settings.name} has {len(blocks)} blocks (-1: all)")
        self.frozen = [self.vit, self.norm] if count == -1 else blocks[:count]
        if count == -1:
            self.requires_grad_(False)
        elif count:
            self.frozen.append(self.vit.pos_drop)  # before the first block, so part of what is kept
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
        image = F.interpolate(image, new, mode=self.settings.position_resize, align_corners=False)  # 1 D h w
        return torch.cat([prefix, image.flatten(2).mT], 1)

    def _take_relative_tables(self) -> nn.ParameterList:
        """Moves BEiT's tables of relative positions here: timm's attention can use them on one grid only."""
        tables = nn.ParameterList()
        for block in self.vit.blocks if isinstance(self.vit, Beit) else []:
            if block.attn.relative_position_bias_table is not None:
                tables.append(block.attn.relative_position_bias_table)
                block.attn.relative_position_bias_table = None
        return tables

    def _relative_bias(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """Table ((2h-1)(2w-1)+3 heads) of the native grid to the attention bias (1 heads 1+N 1+N) of another."""
        table = self.resize_relative_table(table, self.vit.patch_embed.grid_size, grid)
        index = gen_relative_position_index(grid, device=table.device)
        return table[index].permute(2, 0, 1)[None]

    def resize_relative_table(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """BEiT's table ((2h-1)(2w-1)+3 heads) from one grid to another; the last three rows, of the prefix, stay."""
        old, new = ([2 * side - 1 for side in grid] for grid in (old, new))
        if old == new:
            return table
        offsets, special = table.split([math.prod(old), 3])
        image = offsets.mT.reshape(1, -1, *old)  # 1 heads 2h-1 2w-1
        image = F.interpolate(image, new, mode=self.settings.position_resize, align_corners=False)
        return torch.cat([image.flatten(2)[0].mT, special])


def _waves(grid: tuple[int, int], width: int) -> Tensor:
    """Sines and cosines of row and column (h w, width): first positions of a model that is trained from nothing.

    Source: Better plain ViT baselines, arXiv 2205.01580. Random positions leave attention blind to place until
    they are learnt.
    """
    speeds = 100 ** -(torch.arange(width // 4) / (width // 4))  # the slowest turns once in about 600 patches
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).T  # 2 N
    angles = places[..., None] * speeds  # 2 N width/4
    return torch.cat([*angles.sin(), *angles.cos()], -1)


def _prefix_parameters(vit: nn.Module) -> list[Tensor]:
    names = ("cls_token", "dist_token", "reg_token")  # the order in which timm puts them
    tokens = [getattr(vit, name, None) for name in names]  # no `:=` here: torch.compile would break the graph
    return [token for token in tokens if token is not None]


def _create(settings: config.Encoder) -> nn.Module:
    """timm's model for the settings, with its weights, without classifier and pooling."""
    name = settings.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        raise UserError(f"encoder.name: timm has no model {name!r}{hint}")
    shape = {"patch_size": settings.patch_size, "depth": settings.depth, "embed_dim": settings.width}
    shape = {key: value for key, value in (shape | {"num_heads": settings.heads}).items() if value is not None}
    if any(value < 1 for value in shape.values()):
        raise UserError(f"encoder: {shape} cannot be; every size must be 1 or more")
    if settings.pretrained == "hub" and shape.keys() - {"patch_size"}:
        raise UserError(
            "encoder.depth, width and heads go with random weights only, or with a file's that has them; leave "
            "encoder.pretrained empty"
        )
    options = {"num_classes": 0, "drop_path_rate": settings.drop_path, "pos_drop_rate": settings.dropout}
    options |= {"proj_drop_rate": settings.dropout, "attn_drop_rate": settings.dropout}
    if not timm.models.is_model_in_modules(name, ["beit"]):
        options["dynamic_img_size"] = True  # rotary positions are then made for the grid at hand, not for one grid
    file = None if settings.pretrained in ("", "hub") else _read(settings.pretrained)
    if file is not None:
        # Strict, as timm is only where the file has as many classes as the model: every key must find its place.
        options["pretrained_cfg_overlay"] = {"state_dict": file.state, "num_classes": 0}
    try:
        if file is not None:
            options |= _trained_size(name, shape, file.state)
        vit = timm.create_model(name, pretrained=bool(settings.pretrained), **options, **shape)
    except TypeError as error:
        raise UserError(_no_vit(name)) from error
    except Exception as error:  # timm checks sizes by assertion, and foreign files break its conversion in many ways
        reason = _reason(error)
        if file is not None:
            raise UserError(
                f"encoder.pretrained: {settings.pretrained} does not fit {name} ({reason}); give the encoder.name "
                "that the file was saved from"
            ) from error
        if settings.pretrained:
            raise UserError(f"encoder.pretrained: no weights for {name} from 'hub': {reason}") from error
        raise UserError(f"encoder: timm cannot make {name} with {shape or 'its own sizes'}: {reason}") from error
    if not isinstance(vit, (VisionTransformer, Eva, Beit)) or not isinstance(vit.patch_embed, PatchEmbed):
        raise UserError(_no_vit(name))
    if file is not None and file.heads not in (None, vit.blocks[0].attn.num_heads):
        raise UserError(
            f"encoder.pretrained: {settings.pretrained} has {file.heads} heads, {name} has "
            f"{vit.blocks[0].attn.num_heads}; set encoder.heads, or give the encoder.name that the file belongs to"
        )
    vit.pretrained_cfg.pop("state_dict", None)  # the weights are in the model now
    vit.attn_pool = None
    return vit


def _trained_size(name: str, shape: dict[str, int], state: dict[str, Tensor]) -> dict[str, tuple[int, int]]:
    """The image size at which the file's positions fit as they are: timm would resample them in its own way."""
    grid = position_grid(state)
    if grid is None or not timm.models.is_model_in_modules(name, ["vision_transformer", "deit"]):
        return {}
    with torch.device("meta"):
        patch = timm.create_model(name, num_classes=0, **shape).patch_embed.patch_size
    return {"img_size": (grid[0] * patch[0], grid[1] * patch[1])}


def _read(path: str) -> EncoderFile:
    """Weights of a local .safetensors, .pth or .npz file without the classifier's, nothing being executed."""
    if not Path(path).is_file():
        raise UserError(f"encoder.pretrained: there is no file {path}; give a path or `hub`")
    try:
        found = read_encoder(path)
    except Unreadable as error:
        raise UserError(f"encoder.pretrained: {path} is damaged or holds no weights ({error.reason})") from error
    if not found.state:
        raise UserError(f"encoder.pretrained: {path} is empty; give a .safetensors or .pth file with weights")
    return found


def _no_vit(name: str) -> str:
    return f"encoder.name: {name} is no plain vision transformer; choose one of those that `segmenter models` lists"


def _reason(error: Exception) -> str:
    """An error's text on one short line; of torch's lists of keys, the first after the heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return textwrap.shorten(lines[1] if lines[0].startswith("Error(s) in loading") and lines[1:] else lines[0], 160)
