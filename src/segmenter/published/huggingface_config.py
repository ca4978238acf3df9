"""config.json and preprocessor_config.json of Hugging Face's DPT, read and written.

What is not stated has transformers' default, or is left to the loader to assume.
"""

from pathlib import Path

from segmenter.checkpoints.json_settings import CONFIG, JsonSettings, is_number
from segmenter.errors import UserError
from segmenter.model.decoders.dpt import SCALES
from segmenter.model.segmenter import Segmenter
from segmenter.published.dpt_keys import Settings, Weights

PROCESSOR = "preprocessor_config.json"
OURS = "vit_segmenter"  # our own section of config.json, which transformers ignores


def read(path: Path, weights: Weights) -> Settings:
    """What the files beside the weights at `path` say of the network.

    Raises:
        UserError: a file is damaged, contradicts the weights, or describes a network with unknown parts.
    """
    about, processor = JsonSettings(path.parent / CONFIG), JsonSettings(path.parent / PROCESSOR)
    _refuse_other_networks(about, weights.hybrid)
    _refuse_contradictions(about, path, weights)
    taps = about.naturals("backbone_out_indices")
    return Settings(
        heads=about.get("num_attention_heads", int),
        taps=taps[-2:] if weights.hybrid and taps else taps,  # the ResNet gives the first two levels
        readout=about.get("readout_type", str),
        image_size=_size(about),
        short_side=_short_side(processor),
        norm_eps=about.get("layer_norm_eps", float),
        names=_names(about),
        normalization=_normalization(processor),
        auxiliary=about.get("auxiliary_loss_weight", float, 0.4),
        ours=about.get(OURS, dict),
    )


def _refuse_other_networks(about: JsonSettings, hybrid: bool) -> None:
    about.refuse_unless("model_type", "dpt")
    if not hybrid:
        about.refuse_unless("backbone_config")
    about.refuse_unless("hidden_act", "gelu")
    about.refuse_unless("readout_type", "project", "add", "ignore")
    about.refuse_unless("head_in_index", -1)
    about.refuse_unless("add_projection", False)
    first = 2 if hybrid else 0  # of a hybrid, the ResNet gives the first two levels as they are
    if (about.get("reassemble_factors", list) or [*SCALES])[first:] != [*SCALES[first:]]:
        raise about.wrong("reassemble_factors", f"what can be loaded has {[*SCALES]}")


def _refuse_contradictions(about: JsonSettings, path: Path, weights: Weights) -> None:
    """Checks that the keys have the norms and biases that are stated; where nothing is stated, the keys decide."""
    known = {
        "qkv_bias": weights.qkv_bias,
        "use_batch_norm_in_fusion_residual": weights.norm,
        "use_bias_in_fusion_residual": weights.bias,
    }
    for setting, there in known.items():
        if about.get(setting, bool, there) is not there:
            raise about.wrong(
                setting, f"{path.name} has {'' if there else 'no '}such tensors: both files must be of one model"
            )


def _names(about: JsonSettings) -> tuple[str, ...] | None:
    """Names of the classes by their numbers; None where some have none."""
    names = about.get("id2label", dict, {})  # keys of JSON are texts, which transformers sorts as such: 0, 1, 10, 2
    numbers = [str(number) for number in range(len(names))]
    return tuple(str(names[number]) for number in numbers) if numbers and set(numbers) == names.keys() else None


def _size(about: JsonSettings) -> tuple[int, int] | None:
    """Height and width that the positions were trained at; one number stands for both."""
    value = about.get("image_size", int | list)
    value = [value, value] if isinstance(value, int) else value
    if value is not None and (len(value) != 2 or not all(type(side) is int and side > 0 for side in value)):
        raise about.wrong("image_size", "write height and width")
    return None if value is None else tuple(value)


def _short_side(processor: JsonSettings) -> int | None:
    """Pixels of the short side of a test image: `size` itself, as in early files, or what it holds."""
    size = processor.get("size", int | dict)
    sizes = size if isinstance(size, dict) else {"shortest_edge": size}
    sides = [sizes.get(name) for name in ("shortest_edge", "height", "width")]
    sides = [side for side in sides if side is not None]
    if not all(type(side) is int and side > 0 for side in sides):
        raise processor.wrong("size", "write the pixels of the short side")
    return min(sides, default=None)


def _normalization(processor: JsonSettings) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    found = [processor.get(key, list) for key in ("image_mean", "image_std")]
    if any(value is None for value in found):
        return None
    if any(len(value) != 3 or not all(is_number(part) and part > 0 for part in value) for value in found):
        raise UserError(f"{processor.path}: image_mean and image_std must hold 3 numbers each; restore the file")
    return tuple(map(tuple, found))


def config(network: Segmenter) -> dict[str, object]:
    """config.json as transformers writes it, without its defaults."""
    encoder, decoder, recipe = network.encoder, network.decoder, network.recipe
    block, labels = encoder.vit.blocks[0], recipe.task == "labels"
    names = network.classes.names
    found: dict[str, object] = {
        "architectures": ["DPTForSemanticSegmentation" if labels else "DPTForDepthEstimation"],
        "model_type": "dpt",
        "hidden_size": encoder.width,
        "num_hidden_layers": len(encoder.vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "qkv_bias": block.attn.qkv.bias is not None,
        "layer_norm_eps": block.norm1.eps,
        "image_size": encoder.table_grid[0] * encoder.patch_size,
        "patch_size": encoder.patch_size,
        "backbone_out_indices": [*range(len(decoder.stages)), *decoder.taps],
        "readout_type": recipe.decoder.readout,
        "neck_hidden_sizes": [layer.in_channels for layer in decoder.narrow],
        "fusion_hidden_size": decoder.narrow[0].out_channels,
        "use_batch_norm_in_fusion_residual": recipe.decoder.norm,
        "use_bias_in_fusion_residual": recipe.decoder.bias,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "is_hybrid": bool(decoder.stages),
        OURS: network.describe().to_dict(),
    }
    if labels:
        found |= {
            "use_auxiliary_head": len(decoder.auxiliary) > 0,
            "auxiliary_loss_weight": recipe.decoder.auxiliary,
            "semantic_loss_ignore_index": network.classes.ignore,
            "semantic_classifier_dropout": recipe.decoder.dropout,
        }
    if decoder.stages:
        found |= {
            "neck_ignore_stages": list(decoder.stages),
            "backbone_featmap_shape": [1, encoder.stages[-1].width, *encoder.table_grid],
        }
    return found


def processor(network: Segmenter) -> dict[str, object]:
    """preprocessor_config.json."""
    side = network.recipe.augment.short_side
    return {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": side, "width": side},
        "image_mean": list(network.mean),
        "image_std": list(network.std),
    }
