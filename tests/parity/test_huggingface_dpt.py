"""Proves that transformers and we give the same for DPT, its files read here and ours there, on even and odd grids."""

import json
import logging
from functools import cache

import pytest
import recorded
import torch
from torch import Tensor, nn

import segmenter
from segmenter.checkpoints.reading import Checkpoint, read
from segmenter.errors import UserError
from segmenter.model import timm_models  # noqa: F401  (the torchvision guard must come before transformers)
from segmenter.published import dpt_original, huggingface
from segmenter.published.loading import load_with_report

# isort: split
import transformers
from transformers import DPTConfig, DPTForDepthEstimation, DPTForSemanticSegmentation

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96, "image_size": 64,
    "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3], "fusion_hidden_size": 12,
    "neck_hidden_sizes": [6, 10, 14, 20], "label2id": {"sky": 0, "sea": 1, "sand": 2},
    "id2label": {0: "sky", 1: "sea", 2: "sand"},
}  # fmt: skip
LABELS = {"use_batch_norm_in_fusion_residual": True}
HYBRID = {"is_hybrid": True, "neck_hidden_sizes": [256, 512, 48, 48], "backbone_featmap_shape": [1, 1024, 4, 4]}
KINDS = {
    "labels": (DPTForSemanticSegmentation, LABELS),
    "labels, sum": (DPTForSemanticSegmentation, LABELS | {"readout_type": "add"}),
    "depth": (DPTForDepthEstimation, {"layer_norm_eps": 1e-3}),
    "depth, no class token": (DPTForDepthEstimation, {"readout_type": "ignore", "num_hidden_layers": 5}),
    "depth, hybrid": (DPTForDepthEstimation, HYBRID),
}
SIDES = (64, 16, 112, 144)  # the trained one; grids of 1, 7 and 9
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def quiet(caplog):
    transformers.logging.disable_progress_bar()
    caplog.set_level(logging.ERROR)


@cache
@torch.no_grad()
def theirs(kind: str, **more) -> nn.Module:
    """A small network of transformers', every number random, in evaluation mode."""
    made, settings = KINDS[kind]
    torch.manual_seed(0)
    network = made(DPTConfig(**(SMALL | settings | more))).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
            centre = 1.0 if tensor.ndim == 1 and name.endswith(("weight", "running_var")) else 0.0
            noise = torch.randn(tensor.shape, generator=generator) * scale + centre
            tensor.copy_(noise.abs() if name.endswith("running_var") else noise)
    if kind.startswith("depth"):
        network.head.head[4].bias.fill_(2.0)  # the last ReLU hides little
    return network


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (B K H W) or depth (B 1 H W), at the size that transformers gives them."""
    found = network(images)
    return found.logits if "logits" in found else found.predicted_depth[:, None]


def noise(side: int) -> Tensor:
    return torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(side))


@kinds
@torch.inference_mode()
def test_their_folder_read_here(kind, tmp_path):
    network = theirs(kind)
    network.save_pretrained(tmp_path)
    model, report = load_with_report(tmp_path)
    for side in SIDES if "hybrid" not in kind else SIDES[:1]:  # theirs takes hybrids at the trained size only
        expected = answer(network, noise(side))
        expected = nn.functional.interpolate(expected, (side, side), mode="bilinear")  # they end beyond odd grids
        error = recorded.largest(model.pixel_logits(noise(side)), expected)
        recorded.note(f"transformers, {kind}", f"{side} pixels", error, 1e-4)
    unused = (*huggingface.LAYOUT.unused, "auxiliary_head.", "dpt.encoder.layer.4.")
    assert all(key.startswith(unused) for key in report.unused)
    assert not model.training
    assert model.recipe.task == ("labels" if kind.startswith("labels") else "depth")
    if kind.startswith("labels"):
        assert model.classes.names == ("sky", "sea", "sand")


@pytest.mark.parametrize("side", [64, 112])
@torch.inference_mode()
def test_their_loss(side, tmp_path):
    network = theirs("labels")
    network.save_pretrained(tmp_path)
    model, _ = huggingface.read(read(tmp_path / "model.safetensors"), auxiliary=True)
    labels = torch.randint(0, 4, (1, side, side), generator=torch.Generator().manual_seed(0))
    labels[labels == 3] = 255
    outputs = model.outputs(model.forward_auxiliary(noise(side)), side, side)
    assert [output.weight for output in outputs] == [1.0, 0.4]
    total = 0.0
    for output in outputs:
        total += output.weight * segmenter.upsample.cross_entropy(output.logits, labels, output.geometry)
    expected = network(noise(side), labels=labels).loss
    recorded.note("transformers, labels", f"loss at {side} pixels", abs(total - expected).item(), 1e-5)


@kinds
@torch.inference_mode()
def test_our_folder_read_there(kind, tmp_path):
    theirs(kind).save_pretrained(tmp_path / "theirs")
    model, _ = huggingface.read(read(tmp_path / "theirs" / "model.safetensors"), auxiliary=True)
    (tmp_path / "ours").mkdir()
    differences = huggingface.write(model, tmp_path / "ours")
    assert len(differences) == (1 if kind.startswith("labels") else 2)
    network, told = KINDS[kind][0].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(told.values())
    error = recorded.largest(model.pixel_logits(noise(64)), answer(network.eval(), noise(64)))
    recorded.note(f"transformers, {kind}", "saved here, 64 pixels", error, 1e-5)
    back, _ = huggingface.read(read(tmp_path / "ours" / "model.safetensors"), auxiliary=True)
    assert torch.equal(back(noise(80)), model(noise(80)))
    assert back.recipe == model.recipe


# Norms and biases of the residual units, biases of queries, keys and values, auxiliary head.
PARTS = (
    (False, None, True, True),  # as DPTConfig() has them
    (False, None, False, False),
    (False, True, True, False),
    (False, False, True, True),
    (False, False, False, True),
    (True, None, True, False),
    (True, False, False, True),
    (True, True, True, True),
    (True, True, False, False),
)


@pytest.mark.parametrize(("norm", "bias", "qkv_bias", "auxiliary"), PARTS)
@torch.inference_mode()
def test_parts_that_a_network_has_or_has_not(norm, bias, qkv_bias, auxiliary, tmp_path):
    flags = {"use_batch_norm_in_fusion_residual": norm, "use_bias_in_fusion_residual": bias, "qkv_bias": qkv_bias}
    network = theirs("labels", **flags, use_auxiliary_head=auxiliary)
    network.save_pretrained(tmp_path / "theirs")
    model, _ = huggingface.read(read(tmp_path / "theirs" / "model.safetensors"), auxiliary=True)
    error = recorded.largest(model.pixel_logits(noise(64)), answer(network, noise(64)))
    recorded.note(f"transformers, {', '.join(map(str, flags.values()))}", "64 pixels", error, 1e-5)
    assert (model.recipe.decoder.norm, model.recipe.decoder.bias) == (norm, not norm if bias is None else bias)

    (tmp_path / "ours").mkdir()
    huggingface.write(model, tmp_path / "ours")
    there = (DPTConfig.from_pretrained(tmp_path / name) for name in ("theirs", "ours"))
    stated, written = ({name: getattr(config, name) for name in (*flags, "use_auxiliary_head")} for config in there)
    assert written == stated | {"use_bias_in_fusion_residual": model.recipe.decoder.bias}
    before, after = (read(tmp_path / name / "model.safetensors").state for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for key in before.keys() - {key for key in before if key.startswith(huggingface.LAYOUT.unused)}:
        assert torch.equal(before[key], after[key]), key
    model.save(tmp_path / "folder")
    found, ours = segmenter.load(tmp_path / "folder"), model.state_dict()
    assert found.recipe == model.recipe
    assert all(torch.equal(tensor, ours[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("setting", ["qkv_bias", "use_batch_norm_in_fusion_residual", "use_bias_in_fusion_residual"])
def test_a_configuration_that_contradicts_the_weights(setting, tmp_path):
    theirs("depth").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    wrong = setting == "use_batch_norm_in_fusion_residual"
    path.write_text(json.dumps(content | {setting: wrong}))
    there = f"model.safetensors has {'no ' if wrong else ''}such tensors"
    with pytest.raises(UserError, match=f"{setting} is {wrong}; {there}: both files must be of one model"):
        segmenter.load(tmp_path)


def test_classes_in_the_order_of_their_numbers(tmp_path):
    names = {number: f"class number {number}" for number in range(12)}
    settings = KINDS["labels"][1] | SMALL | {"id2label": names, "label2id": {v: k for k, v in names.items()}}
    DPTForSemanticSegmentation(DPTConfig(**settings)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content["id2label"] = dict(sorted(content["id2label"].items()))  # "0", "1", "10", "11", "2" ...
    path.write_text(json.dumps(content))
    assert segmenter.load(tmp_path).classes.names == tuple(names.values())
    del content["id2label"]["3"]
    path.write_text(json.dumps(content))
    assert "12 classes without names" in load_with_report(tmp_path)[1].assumed


@pytest.mark.parametrize(
    ("size", "side"),
    [(400, 400), ({"shortest_edge": 400}, 400), ({"height": 400, "width": 480}, 400),
     ({"shortest_edge": 400, "longest_edge": 1333}, 400)],
)  # fmt: skip
def test_the_size_of_a_test_image(size, side, tmp_path):
    theirs("depth").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    assert segmenter.load(tmp_path).recipe.augment.short_side == side


@pytest.mark.parametrize("size", [0, "384", {"height": 0, "width": 400}])
def test_a_size_that_cannot_be(size, tmp_path):
    theirs("depth").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    with pytest.raises(UserError, match=r"preprocessor_config\.json: size is .*; (write the pixels|restore the file)"):
        segmenter.load(tmp_path)


def test_the_first_factors_of_a_hybrid_mean_nothing(tmp_path):
    theirs("depth, hybrid").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reassemble_factors": [1, 1, 1, 0.5]}))  # as published
    assert segmenter.load(tmp_path).decoder.stages == (0, 1)


@torch.inference_mode()
def test_a_model_made_here_read_there(tmp_path):
    # With the layout's details the same; without them it is said that they differ, and here it comes back as it was.
    recipe = segmenter.config.Recipe(
        augment=segmenter.config.Augment(crop=(64, 64), short_side=70),
        encoder=segmenter.config.Encoder("vit_tiny_patch16_384", depth=4, width=48, heads=3),
        decoder=segmenter.config.Dpt(width=12),
    )
    classes = segmenter.data.classes.Classes(("a", "b"), ((0, 0, 0), (9, 9, 9)))
    for layout, same in (("huggingface", True), ("own", False)):
        recipe.decoder.variant = layout
        torch.manual_seed(0)
        model = segmenter.model.segmenter.Segmenter(recipe, classes).eval()
        model.mean, model.std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
        folder = tmp_path / f"made-{layout}"
        folder.mkdir()
        differences = huggingface.write(model, folder)
        assert any("so results differ" in text for text in differences) is not same
        network = DPTForSemanticSegmentation.from_pretrained(folder).eval()
        assert network.config.id2label == {0: "a", 1: "b"}
        error = recorded.largest(model.pixel_logits(noise(64)), answer(network, noise(64)))
        assert (error < 1e-5) is same
        back = segmenter.load(folder)
        assert torch.equal(back(noise(80)), model(noise(80)))
        assert (back.recipe, back.classes, back.mean, back.std) == (recipe, classes, model.mean, model.std)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 70, "width": 70}
    assert processor["image_mean"] == [0.4, 0.5, 0.6]


# ---- the original's names, through theirs

ORIGINAL = (
    ("neck.reassemble_stage.readout_projects.{level}.0.", "pretrained.act_postprocess{stage}.0.project.0."),
    ("neck.reassemble_stage.layers.{level}.projection.", "pretrained.act_postprocess{stage}.3."),
    ("neck.reassemble_stage.layers.{level}.resize.", "pretrained.act_postprocess{stage}.4."),
    ("neck.convs.{level}.", "scratch.layer{stage}_rn."),
    ("neck.fusion_stage.layers.{order}.projection.", "scratch.refinenet{stage}.out_conv."),
    ("neck.fusion_stage.layers.{order}.residual_layer", "scratch.refinenet{stage}.resConfUnit"),
    ("dpt.encoder.layer.{level}.layernorm_before.", "pretrained.model.blocks.{level}.norm1."),
    ("dpt.encoder.layer.{level}.layernorm_after.", "pretrained.model.blocks.{level}.norm2."),
    ("dpt.encoder.layer.{level}.attention.output.dense.", "pretrained.model.blocks.{level}.attn.proj."),
    ("dpt.encoder.layer.{level}.intermediate.dense.", "pretrained.model.blocks.{level}.mlp.fc1."),
    ("dpt.encoder.layer.{level}.output.dense.", "pretrained.model.blocks.{level}.mlp.fc2."),
    ("dpt.embeddings.cls_token", "pretrained.model.cls_token"),
    ("dpt.embeddings.position_embeddings", "pretrained.model.pos_embed"),
    ("dpt.embeddings.patch_embeddings.projection.", "pretrained.model.patch_embed.proj."),
    ("dpt.embeddings.projection.", "pretrained.model.patch_embed.proj."),
    ("dpt.embeddings.backbone.bit.embedder.convolution.", "pretrained.model.patch_embed.backbone.stem.conv."),
    ("dpt.embeddings.backbone.bit.embedder.norm.", "pretrained.model.patch_embed.backbone.stem.norm."),
    ("dpt.embeddings.backbone.bit.encoder.stages.", "pretrained.model.patch_embed.backbone.stages."),
    ("dpt.layernorm.", "pretrained.model.norm."),
    ("head.head.", "scratch.output_conv."),
    ("auxiliary_head.head.", "auxlayer."),
)


def as_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' under the original's names, as the two were compared when these were recorded."""
    found = {}
    for key, tensor in state.items():
        for level in range(4):
            numbers = {"level": level, "stage": level + 1, "order": 3 - level}
            for start, ours in ORIGINAL:
                if key.startswith(start.format(**numbers)):
                    rest = key.removeprefix(start.format(**numbers))
                    if ours.endswith("resConfUnit"):
                        rest = rest.replace("convolution", "conv").replace("batch_norm", "bn")
                    if ".backbone." in ours:
                        rest = rest.replace(".layers.", ".blocks.")
                    found[ours.format(**numbers) + rest] = tensor
            part = f"dpt.encoder.layer.{level}.attention.attention."
            if key.startswith(f"{part}query."):
                kind = key.rpartition(".")[2]
                parts = [state[f"{part}{name}.{kind}"] for name in ("query", "key", "value")]
                found[f"pretrained.model.blocks.{level}.attn.qkv.{kind}"] = torch.cat(parts)
    return found


@pytest.mark.parametrize("kind", ["labels", "depth", "depth, hybrid"])
@torch.inference_mode()
def test_the_original_s_file(kind, tmp_path):
    network = theirs(kind, layer_norm_eps=1e-6)
    checkpoint = Checkpoint(tmp_path / "dpt.pt", as_original(network.state_dict()), {"num_heads": 3})
    assert dpt_original.recognize(checkpoint.state)
    model, report = dpt_original.read(checkpoint)
    error = recorded.largest(model.pixel_logits(noise(64)), answer(network, noise(64)))
    recorded.note(f"transformers, {kind}", "under the original's names", error, 1e-4)
    assert "scratch.refinenet4.resConfUnit1.conv1.weight" in report.unused
    assert model.decoder.stages == ((0, 1) if "hybrid" in kind else ())
    assert model.recipe.encoder.name == ("vit_base_r50_s16_384" if "hybrid" in kind else "vit_tiny_patch16_384")


# ---- what cannot be


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"readout_type": "mean"}, "readout_type is 'mean'; what can be loaded has 'project' or 'add' or 'ignore'"),
        ({"add_projection": True}, "add_projection is True; what can be loaded has False"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"reassemble_factors": [4, 2, 1, 1]}, "reassemble_factors is"),
        ({"backbone_config": {"model_type": "swin"}}, "backbone_config is .* has none"),
        ({"num_attention_heads": 5}, "5 attention heads do not divide the encoder's 48 features"),
        ({"num_attention_heads": "3"}, "num_attention_heads is '3'; restore the file"),
        ({"backbone_out_indices": [0, 1, 2, 7]}, "the encoder has the blocks 0 to 3"),
        ({"image_size": [64, 0]}, "image_size is .* write height and width"),
        ({"image_size": 96}, r"position_embeddings is \(1, 17, 48\) and not \(1, 37, 48\)"),
    ],
)
def test_a_configuration_that_does_not_fit(change, text, tmp_path):
    theirs("depth").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=text) as error:
        segmenter.load(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_settings(tmp_path):
    theirs("depth").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json cannot be read .*; restore it"):
        segmenter.load(tmp_path)


def test_every_key_is_accounted_for(tmp_path):
    network = theirs("depth")
    network.save_pretrained(tmp_path)
    checkpoint = read(tmp_path / "model.safetensors")
    del checkpoint.state["dpt.encoder.layer.1.attention.attention.key.bias"]
    checkpoint.state["head.head.9.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"1 of \d+ tensors are missing .*,value\}\.bias\), and 3 are unknown"):
        huggingface.read(checkpoint)


@pytest.mark.parametrize(
    ("decoder", "encoder", "crop", "text"),
    [
        ("dpt", "vit_tiny_patch16_224", (64, 64), r"the decoder reads the blocks \(0, 0, 1, 1\)"),
        ("linear", "vit_tiny_patch16_224", (64, 64), "the decoder is linear; .* is written from dpt and dpt_depth"),
        ("dpt", "vit_tiny_patch16_224", (64, 96), r"positions for \(4, 6\) patches, but transformers takes squares"),
        ("dpt", "deit_tiny_distilled_patch16_224", (64, 64), "differs from .* in encoder.vit.dist_token"),
    ],
)
def test_what_they_have_not_is_not_written(decoder, encoder, crop, text, tmp_path):
    recipe = segmenter.config.Recipe(
        augment=segmenter.config.Augment(crop=crop),
        encoder=segmenter.config.Encoder(encoder, depth=2, width=48, heads=3),
        decoder=segmenter.config.decoder(decoder, **({} if decoder == "linear" else {"width": 12})),
    )
    model = segmenter.model.segmenter.Segmenter(recipe, segmenter.data.classes.Classes(("a",), ((0, 0, 0),)))
    with pytest.raises(UserError, match=text):
        huggingface.write(model, tmp_path)
    assert not list(tmp_path.iterdir())
