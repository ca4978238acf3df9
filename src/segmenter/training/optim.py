"""Optimisers and learning rate: SGD with Nesterov momentum as published, AdamW with layer-wise decay, or Muon.

Source: Segmenter, arXiv 2105.05633, section 4.1 (SGD, polynomial schedule); BEiT, arXiv 2106.08254 (layer-wise decay);
Muon is for scalable LLM training, arXiv 2502.16982 (update scaled as AdamW's). The floor of the schedule is the
published code's; the paper has none.
"""

import re

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from segmenter import config
from segmenter.model.segmenter import Segmenter
from segmenter.training.muon import Muon

# From the start of the name: the ResNet of a hybrid's patch embedding has blocks in stages too.
ENCODER_BLOCK = r"encoder\.(?:vit\.blocks|relative_tables)\.(\d+)\b"


def learning_rate(settings: config.Train, step: int) -> float:
    """Learning rate of the update number `step` (0-based); past the last one it stays at the floor."""
    floor, total, warmup = min(settings.min_lr, settings.lr), settings.steps, settings.warmup_steps
    if step < warmup:
        # Rises to the value that the polynomial has where it takes over, as published.
        return (settings.lr - floor) * step / warmup * (1 - warmup / total) ** settings.power + floor
    return (settings.lr - floor) * max(0.0, 1 - step / total) ** settings.power + floor


def optimizers(model: Segmenter, settings: config.Train) -> list[torch.optim.Optimizer]:
    """What updates the trainable parameters; each group's `scale` multiplies the learning rate.

    Fused: one pass over each parameter, measured two to three times faster than torch's default, on CPUs too.
    """
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay, settings.decoder_scale)
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        fused = not any(isinstance(p, DTensor) for group in groups for p in group["params"])  # torch has none for these
        return [torch.optim.SGD(groups, settings.lr, momentum=momentum, nesterov=momentum > 0, fused=fused)]
    if settings.optimizer == "adamw":
        return [torch.optim.AdamW(groups, settings.lr, fused=True)]
    # Muon orthogonalises the update of a matrix, which has a meaning inside the blocks only.
    inner = {id(p) for name, p in model.named_parameters() if ".blocks." in name and p.ndim == 2}
    blocks, rest = (
        [{**group, "params": params} for group in groups if (params := [p for p in group["params"] if test(p)])]
        for test in (lambda p: id(p) in inner, lambda p: id(p) not in inner)
    )
    adamw = torch.optim.AdamW(rest, settings.lr, fused=True)
    if not blocks:
        return [adamw]
    if blocks[0]["params"][0].device.type == "cpu":
        return [Muon(blocks, settings.lr), adamw]
    return [torch.optim.Muon(blocks, settings.lr, adjust_lr_fn="match_rms_adamw"), adamw]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group the learning rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def parameter_groups(
    model: Segmenter, weight_decay: float, layer_decay: float, decoder_scale: float = 1.0
) -> list[dict]:
    """Trainable parameters by learning-rate scale and weight decay.

    The decoder's heads have `decoder_scale` and its neck 1, the encoder's last block `layer_decay`, each block below it
    once more, its embeddings the least. Vectors, tokens and positions are not decayed.
    """
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_decay ** _level(name, model.encoder.depth)
        if name.startswith("decoder.") and not name.removeprefix("decoder.").startswith(model.decoder.neck):
            scale = decoder_scale
        decayed = parameter.ndim > 1 and not re.search(r"pos_embed|_token$|embeddings$|relative_tables", name)
        group = {"params": [], "scale": scale, "weight_decay": weight_decay if decayed else 0.0}
        groups.setdefault((scale, decayed), group)["params"].append(parameter)
    return list(groups.values())


def _level(name: str, depth: int) -> int:
    """Layers between a parameter and the decoder: 0 in the decoder, depth + 1 in the embeddings."""
    if not name.startswith("encoder."):
        return 0
    if match := re.match(ENCODER_BLOCK, name):
        return depth - int(match[1])
    return 1 if name.startswith("encoder.norm.") else depth + 1


def gradient_norm(parameters: list[nn.Parameter], largest: float) -> torch.Tensor:
    """Norm of the whole gradient, clipped in place to `largest` where that is above 0."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if largest > 0:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
