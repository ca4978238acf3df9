"""timm's model for the encoder's settings, with weights from the hub or a file, without classifier and pooling."""

import difflib
import textwrap
from pathlib import Path

import torch
from torch import Tensor, nn

from segmenter import config
from segmenter.checkpoints.encoders import EncoderFile, position_grid, read_encoder
from segmenter.checkpoints.reading import Unreadable
from segmenter.errors import UserError
from segmenter.model import hub
from segmenter.model.timm_models import Beit, Eva, HybridEmbed, PatchEmbed, VisionTransformer, timm


def create_vit(settings: config.Encoder) -> nn.Module:
    """timm's vision transformer for the settings.

    Raises:
        UserError: the name is unknown or not a plain vision transformer, or the weights cannot be downloaded or read.
    """
    name = settings.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; perhaps {' or '.join(near)}" if near else ""
        raise UserError(f"encoder.name: timm has no model {name!r}{hint}")
    if settings.patch_size is not None and timm.models.is_model_in_modules(name, ["vision_transformer_hybrid"]):
        raise UserError(f"encoder.patch_size: {name} takes its patches from a convolutional stem; leave it empty")
    shape = {"patch_size": settings.patch_size, "depth": settings.depth, "embed_dim": settings.width}
    shape |= {"num_heads": settings.heads, "mlp_ratio": settings.mlp_ratio}
    shape = {key: value for key, value in shape.items() if value is not None}
    if any(value < 1 for value in shape.values()):
        raise UserError(f"encoder: {shape} is impossible; every size must be 1 or more")
    if settings.qkv_bias is not None:
        shape["qkv_bias"] = settings.qkv_bias
    if settings.pretrained == "hub" and shape.keys() - {"patch_size"}:
        raise UserError(
            "encoder.depth, width, heads, mlp_ratio and qkv_bias need random weights, or a file with weights of these "
            "sizes; leave encoder.pretrained empty, or write the path of such a file"
        )
    options = {"num_classes": 0, "drop_path_rate": settings.drop_path, "pos_drop_rate": settings.dropout}
    options |= {"proj_drop_rate": settings.dropout, "attn_drop_rate": settings.dropout}
    if not timm.models.is_model_in_modules(name, ["beit"]):
        options["dynamic_img_size"] = True  # rotary positions are then computed for each grid, not for one grid
    file = None if settings.pretrained in ("", "hub") else _read(settings.pretrained)
    if file is not None:
        # timm is strict, so that every key must be used, only where file and model have the same number of classes.
        options["pretrained_cfg_overlay"] = {"state_dict": file.state, "num_classes": 0}
    if settings.pretrained == "hub":
        options["pretrained_cfg_overlay"] = hub.settings_of(name)
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
    plain = isinstance(vit, (VisionTransformer, Eva, Beit))
    if not plain or not isinstance(vit.patch_embed, (PatchEmbed, HybridEmbed)):
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
    """The image size at which the file's positions fit unchanged: timm would resample them with another kernel."""
    grid = position_grid(state)
    absolute = ["vision_transformer", "vision_transformer_hybrid", "deit"]
    if grid is None or not timm.models.is_model_in_modules(name, absolute):
        return {}
    with torch.device("meta"):
        patch = timm.create_model(name, num_classes=0, **shape).patch_embed.feat_ratio(as_scalar=False)
    return {"img_size": (grid[0] * patch[0], grid[1] * patch[1])}


def _read(path: str) -> EncoderFile:
    """The weights of a local .safetensors, .pth or .npz file without the classifier; nothing is executed."""
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
    return f"encoder.name: {name} is not a plain vision transformer; choose one that `segmenter models` lists"


def _reason(error: Exception) -> str:
    """An error's text in one short line; of torch's lists of keys, the first entry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return textwrap.shorten(lines[1] if lines[0].startswith("Error(s) in loading") and lines[1:] else lines[0], 160)
