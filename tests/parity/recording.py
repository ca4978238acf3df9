"""Records cases of the published layouts with our own networks: other heads, classes, windows, grids and depths.

What they prove is that the comparisons read a case's metadata; the numbers of the original implementations are in the
cases that these recorded.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from recorded import windows
from safetensors.torch import load_file, save_file
from torch import Tensor

from segmenter import config, upsample
from segmenter.checkpoints import keys
from segmenter.data.classes import Classes, default_colors
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.inference.windows import window_logits
from segmenter.inspection.captured import Call, capturing
from segmenter.model.segmenter import Segmenter
from segmenter.published import (
    dpt_keys,
    dpt_openmmlab,
    dpt_original,
    dpt_smp,
    huggingface,
    openmmlab,
    openmmlab_file,
    original,
    setr_openmmlab,
    setr_original,
)
from segmenter.published.openmmlab_config import Configuration
from segmenter.published.setr_heads import Head

OURS = "vit_segmenter"  # what is said of our models in a part of their own must not help the comparison


def model_of(decoder: config.Decoder, classes: int, crop: tuple[int, int], **encoder) -> Segmenter:
    """A small model, every number random."""
    torch.manual_seed(3)
    recipe = config.Recipe(
        augment=config.Augment(short_side=min(crop), crop=crop),
        encoder=config.Encoder("vit_tiny_patch16_384", **encoder),
        decoder=decoder,
        inference=config.Inference(crop, crop),
    )
    names = Classes(tuple(f"class {index}" for index in range(classes)), default_colors(classes))
    model = Segmenter(recipe, names if recipe.task == "labels" else DEPTH_CLASSES).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape) * 0.1
                tensor += noise.abs() if name.endswith("running_var") else noise
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def labels_of(classes: int, images: Tensor) -> Tensor:
    """Labels of images, some ignored."""
    draw = torch.Generator().manual_seed(5)
    found = torch.randint(0, classes + 1, (len(images), *images.shape[-2:]), generator=draw)
    return found.where(found < classes, 255).to(torch.uint8)


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear")


def save(folder: Path, facts: Mapping, forward: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None) -> None:
    """Writes a case; `weights` are None where they lie there already."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(facts))
    save_file({key: tensor.clone().contiguous() for key, tensor in forward.items()}, folder / "forward.safetensors")
    if weights is not None:
        save_file({key: tensor.clone().contiguous() for key, tensor in weights.items()}, folder / "weights.safetensors")


@torch.inference_mode()
def original_segmenter(folder: Path, decoder: config.Decoder) -> None:
    """Patches of 8 pixels, a crop and windows that are not square, 4 heads, 3 blocks, 7 classes."""
    model = model_of(decoder, 7, (40, 64), patch_size=8, width=128, heads=4, depth=3, norm_eps=1e-5)
    original.write(model, folder)
    net = yaml.load((folder / "variant.yml").read_text(), Loader=yaml.FullLoader)["net_kwargs"]
    weights = torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
    for name in ("variant.yml", "checkpoint.pth"):
        (folder / name).unlink()
    forward = {}
    for tag, images in {"main": noise(1, 3, 75, 61), "native": noise(2, 3, 40, 64)}.items():
        tokens = model.encoder(images)
        forward |= {f"{tag}.input": images, f"{tag}.logits": model.pixel_logits(images)}
        forward |= {f"{tag}.encoder": torch.cat([tokens.prefix, tokens.patches], 1)}
        calls: list[Call] = []
        with capturing(model, calls.append):
            model(images)
        forward |= {f"{tag}.attn_enc.2": calls[2].rows(slice(None))}
    settings = {"window": [40, 64], "stride": [24, 40], "bs": 3, "ori_shape": [70, 90]}
    image = noise(1, 3, 84, 100)
    model.normalize = lambda images: images
    logits, geometry = window_logits(model, image[0], windows(settings["window"], settings["stride"], 3))
    geometry = replace(geometry, final=tuple(settings["ori_shape"]))
    probabilities = torch.cat([part for _, part in upsample.mean_probabilities([(logits, geometry)])], 1)
    corners = [[row, column] for row in geometry.windows[0] for column in geometry.windows[1]]
    sliding = {"wide.input": image, "wide.anchors_yx": torch.tensor(corners), "wide.probs": probabilities}
    save_file(sliding, folder / "sliding.safetensors")
    save(folder, {"net_kwargs": net, "inference": {"wide": settings}}, forward, weights)


def written_by(write: Callable, model: Segmenter, folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the weights of a file in OpenMMLab's layout."""
    write(model, folder)
    content = torch.load(folder / "model.pth", weights_only=True)
    (folder / "model.pth").unlink()
    return Configuration(content["meta"]).find("model"), content["state_dict"]


@torch.inference_mode()
def openmmlab_segmenter(folder: Path, decoder: config.Decoder, size: tuple[int, int]) -> None:
    """A grid of positions that is not square, 5 heads, 2 blocks, 11 classes; images on another grid or between."""
    encoder = {"width": 40, "heads": 5, "depth": 2, "norm_eps": 1e-4, "position_resize": "bicubic"}
    model = model_of(decoder, 11, (48, 80), **encoder)
    about, weights = written_by(openmmlab.write, model, folder)
    images = noise(2, 3, *size)
    logits = model(images)
    forward = {"input": images, "decode_logits": logits, "whole_logits": enlarged(logits, size)}
    forward["feat_0"] = model.encoder(images).patches.mT.unflatten(2, logits.shape[-2:])
    slide = None
    if all(side % 16 == 0 for side in size):
        about["decode_head"]["loss_decode"] = {"type": "CrossEntropyLoss", "loss_weight": 0.5}
        labels = labels_of(11, images)
        loss, _ = upsample.cross_entropy(logits, labels.long(), model.geometry(*size), reduction="sum")
        forward |= {"labels": labels, "loss/decode.loss_ce": (0.5 * loss / labels.numel()).reshape(1)}
        slide = [[48, 80], [32, 48], [96, 130]]
        forward |= in_windows(model, slide)
    save(folder, {"layout": "mmseg", "model": about, "slide": slide}, forward, weights)


def in_windows(model: Segmenter, slide: list[list[int]]) -> dict[str, Tensor]:
    window, stride, size = slide
    image = noise(1, 3, *size)
    model.normalize = lambda images: images
    logits, geometry = window_logits(model, image[0], windows(window, stride, enlarge=False))
    pixels = upsample.logits(logits, geometry)
    labels = upsample.labels(logits, geometry).to(torch.uint8)
    return {"slide_input": image, "slide_logits_sub4": pixels[..., ::4, ::4], "slide_argmax": labels}


@torch.inference_mode()
def setr(folder: Path, decoder: config.SetrUp | config.SetrMla, classes: int = 6, **encoder) -> None:
    """Blocks of choice of 5, 2 heads, a grid that is not square; of either implementation."""
    crop, size = (32, 64), (48, 80)
    model = model_of(decoder, classes, crop, width=24, heads=2, depth=5, norm_eps=1e-6, **encoder)
    images, theirs = noise(2, 3, *size), decoder.variant == "openmmlab"
    levels = model.encoder.intermediate(images, range(model.encoder.depth))
    main, *others = model.outputs(model.forward_auxiliary(images), *size)
    if decoder.name == "setr_mla":
        forward = recorded_maps(model, levels, theirs)
    elif theirs:
        blocks = [levels[tap].patches.mT.unflatten(2, levels[tap].grid) for tap in decoder.taps]
        forward = {f"feat_{index}": block for index, block in enumerate(blocks)}
    else:
        forward = {f"block_{i}": torch.cat([level.prefix, level.patches], 1) for i, level in enumerate(levels)}
    forward["input"] = images
    if not theirs:
        forward["logits"] = model.pixel_logits(images)
        forward |= {f"aux_logits_{index}": enlarged(other.logits, size) for index, other in enumerate(others)}
        facts = {"layout": "fudan", "kind": decoder.name.removeprefix("setr_"), "img_size": crop, "heads": 2}
        save(folder, facts | {"classes": classes, "index": decoder.taps}, forward, original_setr(model))
        return
    about, weights = written_by(setr_openmmlab.write, model, folder)
    ordered = others[::-1] if decoder.name == "setr_mla" else others
    forward |= {"decode_logits": main.logits, "whole_logits": enlarged(main.logits, size)}
    forward |= {f"aux_logits_{index}": other.logits for index, other in enumerate(ordered)}
    forward["labels"] = labels_of(classes, images)
    for name, output in {"decode": main, **{f"aux_{i}": other for i, other in enumerate(ordered)}}.items():
        labels = forward["labels"].long()
        loss, _ = upsample.cross_entropy(output.logits, labels, output.geometry, reduction="sum")
        forward[f"loss/{name}.loss_ce"] = (output.weight * loss / labels.numel()).reshape(1)
    save(folder, {"layout": "mmseg", "model": about, "slide": None}, forward, weights)


def recorded_maps(model: Segmenter, levels: list, theirs: bool) -> dict[str, Tensor]:
    """The neck's maps as either implementation names them."""
    chosen = [levels[tap] for tap in model.decoder.taps]
    maps = model.decoder._maps(chosen)
    if not theirs:
        return {f"mla_p{index + 2}": map_ for index, map_ in enumerate(maps)}
    found = {f"feat_{index}": map_ for index, map_ in enumerate(reversed(maps))}
    return found | {f"backbone_{i}": level.patches.mT.unflatten(2, level.grid) for i, level in enumerate(chosen)}


def original_setr(model: Segmenter) -> dict[str, Tensor]:
    """Weights under the authors' names, with biases before the batch norms."""
    decoder, name = model.decoder, model.recipe.decoder.name
    layers = 0 if name == "setr_mla" else len(decoder.head.convolutions)
    head = Head(name, "original", (), "", "", layers, len(decoder.auxiliary), 1)
    weights = keys.to_published(model.state_dict(), setr_original.sources(head, model.encoder.depth))
    for bias, mean in setr_original._biases(head).items():
        weights[bias] = noise(*weights[mean].shape)
        weights[mean] = weights[mean] + weights[bias]
    return weights | {"backbone.cls_token": weights.get("backbone.cls_token", noise(1, 1, model.encoder.width))}


DPT_FACTS = {
    "isl-org": lambda d: {"hooks": d.taps, "readout": d.readout},
    "smp": lambda d: {
        "encoder_name": "tu-other",
        "decoder_readout": {"project": "cat"}.get(d.readout, d.readout),
        "encoder_output_indices": d.taps,
    },
    "huggingface": lambda d: {},
}


@torch.inference_mode()
def dpt(folder: Path, layout: str, decoder: config.Dpt | config.DptDepth, classes: int = 9) -> None:
    """Five blocks of width 32 with 4 heads; square positions, images that are not."""
    eps = {"huggingface": 1e-4, "mmseg": 1e-5}.get(layout, 1e-6)
    resize = {"mmseg": "bicubic", "smp": "antialias"}.get(layout, "bilinear")
    crop, size = ((48, 80) if layout == "mmseg" else (64, 64)), (64, 96)
    model = model_of(decoder, classes, crop, width=32, heads=4, depth=5, norm_eps=eps, position_resize=resize)
    images = noise(1, 3, *size)
    levels = model.encoder.intermediate(images, decoder.taps)
    whole = [torch.cat([level.prefix, level.patches], 1) for level in levels]
    maps = [level.patches.mT.unflatten(2, level.grid) for level in levels]
    main, *others = model.forward_auxiliary(images)
    pixels, facts = model.pixel_logits(images), {"layout": layout, "heads": 4}
    answer = {"predicted_depth": pixels[:, 0]} if model.recipe.task == "depth" else {"logits": pixels}
    if layout == "mmseg":
        backbone = {"img_size": crop, "num_heads": 4, "out_indices": decoder.taps, "type": "VisionTransformer"}
        head = {"type": "DPTHead", "num_classes": classes, "in_index": [0, 1, 2, 3], "readout_type": decoder.readout}
        facts["model"] = {"backbone": backbone, "decode_head": head, "test_cfg": {"mode": "whole"}}
        names = openmmlab_file.backbone(model.encoder.depth) | dpt_openmmlab._decoder(decoder)
        forward = {f"feat_{i}": map_ for i, map_ in enumerate(maps)} | {"decode_logits": main}
        forward |= {f"cls_{i}": level.prefix[:, 0] for i, level in enumerate(levels)}
        forward |= {"input": images, "whole_logits": pixels}
        save(folder, facts, forward, keys.to_published(model.state_dict(), names))
        return
    facts |= DPT_FACTS[layout](decoder)
    forward = answer | {"pixel_values": images}
    if layout == "huggingface":
        forward |= {f"hidden_state_{tap + 1}": tokens for tap, tokens in zip(decoder.taps, whole, strict=True)}
        forward |= {f"reassembled_{i}": model.decoder.reassemble[i](level) for i, level in enumerate(levels)}
        forward |= {f"neck_{i}": map_ for i, map_ in enumerate(reversed(model.decoder.fuse(levels)))}
        if others:
            labels, outputs = labels_of(classes, images), model.outputs([main, *others], *size)
            losses = [upsample.cross_entropy(output.logits, labels.long(), output.geometry) for output in outputs]
            loss = sum(output.weight * loss for output, loss in zip(outputs, losses, strict=True))
            forward |= {"aux_logits": others[0], "labels": labels, "loss": loss.reshape(1)}
        huggingface.write(model, folder)
        content = json.loads((folder / "config.json").read_text())
        del content[OURS]
        (folder / "config.json").write_text(json.dumps(content))
        save(folder, facts, forward, None)
        return
    if layout == "isl-org":
        forward |= {f"block_out_{index + 1}": tokens for index, tokens in enumerate(whole)}
    else:
        forward |= {f"feature_{i}": map_ for i, map_ in enumerate(maps)}
        forward |= {f"prefix_{i}": level.prefix for i, level in enumerate(levels)}
    names = {"isl-org": dpt_original.LAYOUT, "smp": dpt_smp.LAYOUT}[layout]
    save(folder, facts, forward, keys.to_published(model.state_dict(), dpt_keys.sources(model, names)))


def record(root: Path) -> list[str]:
    """Writes all of them, a folder each; returns their names."""
    mask, taps, wide = config.MaskTransformer(layers=2), (0, 2, 3, 4), {"width": 12, "taps": (0, 1, 3, 4)}
    up = {"width": 10, "taps": taps}
    shapes = {"widths": (5, 6, 7, 8)} | wide
    original_segmenter(root / "original_mask", mask)
    original_segmenter(root / "original_linear", config.Linear())
    openmmlab_segmenter(root / "openmmlab_mask", config.MaskTransformer(layers=1, heads=8), (64, 112))
    openmmlab_segmenter(root / "openmmlab_linear", config.Linear(), (50, 75))
    theirs = {"variant": "openmmlab", "auxiliary": 0.3}
    setr(root / "setr_naive", config.SetrUp("setr_naive", auxiliary_layers=1, **up, **theirs))
    setr(root / "setr_pup", config.SetrUp("setr_pup", **up, **theirs), patch_size=8)
    setr(root / "setr_mla", config.SetrMla(head_width=5, **up, **theirs))
    setr(root / "fudan_naive", config.SetrUp("setr_naive", **up), classes=2)
    setr(root / "fudan_pup", config.SetrUp("setr_pup", **up), patch_size=8)
    setr(root / "fudan_mla", config.SetrMla(head_width=3, **up))
    dpt(root / "isl_labels", "isl-org", config.Dpt(variant="original", readout="add", auxiliary=0.0, **shapes))
    dpt(root / "isl_depth", "isl-org", config.DptDepth(variant="original", **shapes))
    dpt(root / "smp_labels", "smp", config.Dpt(variant="smp", readout="ignore", auxiliary=0.0, **shapes))
    dpt(root / "mmseg_dpt", "mmseg", config.Dpt(variant="openmmlab", auxiliary=0.0, **shapes))
    dpt(root / "hf_labels", "huggingface", config.Dpt(variant="huggingface", norm=False, bias=True, **shapes))
    dpt(root / "hf_depth", "huggingface", config.DptDepth(variant="huggingface", readout="ignore", **shapes))
    return sorted(path.name for path in root.iterdir())


def spoil(case: Path) -> None:
    """Changes one tensor of a block of the encoder."""
    path = next(case / name for name in ("weights.safetensors", "model.safetensors") if (case / name).is_file())
    weights = load_file(path)
    ends = ("blocks.0.mlp.fc2.bias", "layers.0.ffn.layers.1.bias", "layer.0.output.dense.bias")
    key = next(key for key in sorted(weights) if key.endswith(ends))
    weights[key] = weights[key] + 0.1 * noise(*weights[key].shape)
    save_file(weights, path)
