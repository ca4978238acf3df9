"""Proves that files of DPT's layouts are recognised, read to the last key or refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import save_file
from test_recorded_openmmlab import as_source

import segmenter
from segmenter import config
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published import dpt_keys, dpt_openmmlab, dpt_original, dpt_smp, openmmlab_file
from segmenter.published.loading import load_published, load_with_report

pytestmark = pytest.mark.usefixtures("one_thread")

# One key of each kind, as the files have them.
KEYS = {
    "original": [
        "pretrained.model.blocks.3.attn.qkv.weight", "pretrained.act_postprocess1.0.project.0.weight",
        "pretrained.act_postprocess4.3.bias", "pretrained.act_postprocess2.4.weight", "scratch.layer4_rn.weight",
        "scratch.refinenet3.resConfUnit1.bn2.running_var", "scratch.refinenet4.resConfUnit2.conv1.weight",
        "scratch.refinenet1.out_conv.bias", "scratch.output_conv.4.weight", "auxlayer.0.weight",
    ],
    "smp": [
        "encoder.model.blocks.3.mlp.fc2.bias", "decoder.projection_blocks.0.project.0.weight",
        "decoder.reassemble_blocks.3.project_to_out_channel.bias", "decoder.reassemble_blocks.1.upsample.weight",
        "decoder.reassemble_blocks.3.project_to_feature_dim.weight", "decoder.fusion_blocks.3.project.weight",
        "decoder.fusion_blocks.0.residual_conv_block1.batch_norm_2.running_mean",
        "decoder.fusion_blocks.0.residual_conv_block2.conv_1.weight", "segmentation_head.head.1.weight",
    ],
    "openmmlab": [
        "backbone.layers.3.ffn.layers.0.0.weight", "decode_head.reassemble_blocks.readout_projects.0.0.weight",
        "decode_head.reassemble_blocks.projects.3.conv.bias", "decode_head.reassemble_blocks.resize_layers.3.weight",
        "decode_head.convs.3.conv.weight", "decode_head.fusion_blocks.1.res_conv_unit1.conv2.bn.weight",
        "decode_head.fusion_blocks.0.res_conv_unit2.conv1.conv.weight", "decode_head.fusion_blocks.3.project.conv.bias",
        "decode_head.project.bn.running_var", "decode_head.conv_seg.bias",
    ],
}  # fmt: skip
layouts = pytest.mark.parametrize("layout", KEYS)


def small(layout: str, depth: int = 4, **settings) -> Segmenter:
    recipe = config.Recipe(
        augment=config.Augment(crop=(64, 64)),
        encoder=config.Encoder(
            "vit_tiny_patch16_384", depth=depth, width=48, heads=3, mlp_ratio=None if layout == "openmmlab" else 3.0
        ),
        decoder=config.Dpt(variant=layout, width=12, widths=(5, 6, 7, 8), **settings),
    )
    torch.manual_seed(0)
    model = Segmenter(recipe, Classes(tuple("abc"), default_colors(3))).eval()
    with torch.no_grad():
        for tensor in model.decoder.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape)
    return model


def names_of(model: Segmenter, layout: str) -> dict[str, str]:
    """Our names of a model's tensors to a layout's."""
    if layout == "openmmlab":
        sources = openmmlab_file.backbone(4) | dpt_openmmlab._decoder(model.recipe.decoder)
    else:
        sources = dpt_keys.sources(model, {"original": dpt_original, "smp": dpt_smp}[layout].LAYOUT)
    return {ours: source.key for ours, source in sources.items()}


def published(model: Segmenter, layout: str, folder, **changes) -> dict:
    """Writes a model as a file of a layout; `changes` are keys, None to leave one out."""
    names = names_of(model, layout)
    weights = {names[ours]: tensor for ours, tensor in model.state_dict().items()} | changes
    weights = {key: tensor for key, tensor in weights.items() if tensor is not None}
    backbone = {"num_heads": 3, "img_size": 64, "out_indices": [0, 1, 2, 3], "norm_cfg": {"eps": 1e-6}}
    head = {"in_index": [0, 1, 2, 3], "readout_type": model.recipe.decoder.readout}
    meta = {"cfg": f"model = {as_source({'backbone': backbone, 'decode_head': head})}"}
    torch.save({"state_dict": weights, "meta": meta, "num_heads": 3}, folder / "published.pth")
    if layout == "smp":
        names = {"project": "cat", "add": "add", "ignore": "ignore"}
        about = {"encoder_name": "tu-mine", "decoder_readout": names[model.recipe.decoder.readout]}
        (folder / "config.json").write_text(json.dumps(about))
    return weights


@layouts
@pytest.mark.parametrize("readout", ["project", "ignore"])
@torch.inference_mode()
def test_a_file(layout, readout, tmp_path):
    model = small(layout, readout=readout, auxiliary=0.4 if layout == "original" else 0.0)
    weights = published(model, layout, tmp_path)
    if readout == "project":
        assert set(KEYS[layout]) <= weights.keys()
    found, report = load_published(tmp_path / "published.pth")
    assert report.layout == {"original": dpt_original, "smp": dpt_smp, "openmmlab": dpt_openmmlab}[layout].TITLE
    assert not found.training
    assert found.recipe.decoder.variant == layout
    assert (found.encoder.depth, found.encoder.table_grid) == (4, (4, 4))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.pixel_logits(images), model.pixel_logits(images))
    assert report.unused == [key for key in sorted(weights) if key.startswith("auxlayer.")]
    found.save(tmp_path / "ours")  # and as a folder of our own, which keeps the layout's details
    odd = torch.randn(1, 3, 100, 80, generator=torch.Generator().manual_seed(0))
    assert torch.equal(segmenter.load(tmp_path / "ours").pixel_logits(odd), found.pixel_logits(odd))


@torch.inference_mode()
def test_the_sum_with_the_class_token_is_stated_beside_the_weights(tmp_path):
    for layout in ("smp", "openmmlab"):
        model = small(layout, readout="add", auxiliary=0.0)
        published(model, layout, tmp_path)
        found, _ = load_published(tmp_path / "published.pth")
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(found(images), model(images))


def test_heads_that_the_file_does_not_say(tmp_path):
    model = small("original")
    weights = {key: tensor.clone() for key, tensor in published(model, "original", tmp_path).items()}
    save_file(weights, tmp_path / "weights.safetensors")
    found, report = load_published(tmp_path / "weights.safetensors")
    assert found.encoder.vit.blocks[0].attn.num_heads == 1
    assert "1 attention heads in the encoder, one for every 64 features" in report.assumed
    save_file(weights, tmp_path / "weights.safetensors", {"num_heads": "5"})
    with pytest.raises(UserError, match="5 attention heads do not divide the encoder's 48 features"):
        load_published(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@torch.inference_mode()
def test_what_lies_beside_the_original_s_weights(kind, tmp_path):
    model = small("original", depth=6, readout="add", taps=(0, 1, 3, 5), auxiliary=0.0)
    weights = {key: tensor.clone() for key, tensor in published(model, "original", tmp_path).items()}
    path, images = tmp_path / "weights", torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))

    def found(**beside):
        if kind == "torch":
            torch.save({"state_dict": weights} | beside, path)
        else:
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in beside.items()}
            save_file(weights, path, texts)
        return load_published(path)

    loaded, report = found(num_heads=3, hooks=[0, 1, 3, 5], readout="add")
    assert torch.equal(loaded(images), model(images))
    assert not [text for text in report.assumed if "blocks" in text or "class token" in text or "heads" in text]
    loaded, report = found(num_heads=3)
    assert (loaded.decoder.taps, loaded.recipe.decoder.readout) == ((1, 2, 4, 5), "ignore")
    assert "the class token is not read: the file has no projections for it and no `add`" in report.assumed
    assert "the published blocks are read: the last of each quarter of the depth" in report.assumed
    for beside, text in (
        ({"readout": "sum"}, "readout beside the weights is 'sum'; write project or add or ignore"),
        ({"hooks": [0, -1]}, r"hooks beside the weights is \[0, -1\]; write the blocks"),
        ({"hooks": [0, 1, 2, 6]}, "the encoder has the blocks 0 to 5"),
        ({"num_heads": 0}, "num_heads beside the weights is 0; write the attention heads"),
        ({"readout": "project"}, r"8 of \d+ tensors are missing \(pretrained.act_postprocess1.0.project"),
    ):
        with pytest.raises(UserError, match=text):
            found(**{"num_heads": 3} | beside)


@layouts
def test_every_key_is_accounted_for(layout, tmp_path):
    model = small(layout, auxiliary=0.0)
    gone, third = KEYS[layout][0], KEYS[layout][2]
    patches = names_of(model, layout)["encoder.vit.patch_embed.proj.weight"]
    published(model, layout, tmp_path, **{patches: None})
    with pytest.raises(UserError, match=r"1 of \d+ tensors are missing"):
        load_published(tmp_path / "published.pth")
    published(model, layout, tmp_path, **{gone: None, "decode_head.extra": torch.zeros(1)})
    with pytest.raises(UserError) as error:
        load_published(tmp_path / "published.pth")
    assert f"1 of {len(model.state_dict())} tensors are missing ({gone})" in str(error.value)
    assert "1 are unknown (decode_head.extra)" in str(error.value)
    published(model, layout, tmp_path, **{third: torch.zeros(3, 3)})
    with pytest.raises(UserError, match=r"do not fit the shapes|axes are expected"):
        load_published(tmp_path / "published.pth")
    published(model, layout, tmp_path, **{third: torch.full((8,), torch.nan)})
    with pytest.raises(UserError, match="values that are not finite in"):
        load_published(tmp_path / "published.pth")


def test_openmmlab_s_missing_bias_of_the_patches_is_zero_and_said(tmp_path):
    key = "backbone.patch_embed.projection.bias"
    published(small("openmmlab", auxiliary=0.0), "openmmlab", tmp_path, **{key: None})
    found, report = load_published(tmp_path / "published.pth")
    assert not found.encoder.vit.patch_embed.proj.bias.any()
    assert any(key in text for text in report.assumed)
    content = torch.load(tmp_path / "published.pth", weights_only=True)
    content["meta"]["cfg"] = content["meta"]["cfg"].replace("num_heads=3", "num_heads=3, patch_bias=False")
    torch.save(content, tmp_path / "published.pth")
    assert not any(key in text for text in load_published(tmp_path / "published.pth")[1].assumed)


def test_openmmlab_s_blocks_that_cannot_be(tmp_path):
    model = small("openmmlab", auxiliary=0.0)
    published(model, "openmmlab", tmp_path)
    content = torch.load(tmp_path / "published.pth", weights_only=True)
    content["meta"]["cfg"] = content["meta"]["cfg"].replace("out_indices=[0, 1, 2, 3]", "out_indices=[0, 1, 2, 4]")
    torch.save(content, tmp_path / "published.pth")
    with pytest.raises(UserError, match=r"states that blocks \(0, 1, 2, 4\) are read; there are 4"):
        load_published(tmp_path / "published.pth")


def test_smp_s_encoder_is_timm_s(tmp_path):
    model = small("smp", auxiliary=0.0)
    published(model, "smp", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"encoder_name": "tu-vit_small_patch16_384"}))  # 6 heads, its own normalisation
    found, report = load_published(tmp_path / "published.pth")
    assert found.encoder.vit.blocks[0].attn.num_heads == 6
    assert found.recipe.encoder.name == "vit_small_patch16_384"
    assert not any("normalisation" in text or "heads" in text for text in report.assumed)
    path.write_text(json.dumps({"encoder_name": "tu-beit_base_patch16_224"}))
    with pytest.raises(UserError, match="beit_base_patch16_224 cannot be loaded: it has no absolute positions"):
        load_published(tmp_path / "published.pth")
    path.write_text(json.dumps({"encoder_name": "tu-vit_base_patch16_384", "decoder_readout": "sum"}))
    with pytest.raises(UserError, match="decoder_readout is 'sum'; what can be loaded has 'cat' or 'add' or 'ignore'"):
        load_published(tmp_path / "published.pth")


def test_whose_folder_it_is(tmp_path):
    # Both have model.safetensors and config.json: ours says its format, others the kind of model.
    model = small("smp", auxiliary=0.0)
    weights = {key: tensor.clone() for key, tensor in published(model, "smp", tmp_path).items()}
    save_file(weights, tmp_path / "model.safetensors", {"num_heads": "3"})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert load_with_report(path)[1].layout == dpt_smp.TITLE
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json is damaged \(it has no format\)"):
        segmenter.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "dpt"}')
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        segmenter.load(tmp_path)


def test_convert_writes_hugging_face_s_folder(tmp_path, command):
    small("huggingface").save(tmp_path / "ours")
    told = command("convert", tmp_path / "ours", "--out", tmp_path / "theirs", "--layout", "huggingface")
    assert told.status == 0, told.err
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == names
    assert "images become squares" in told.out
    images = torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    assert torch.equal(segmenter.load(tmp_path / "theirs")(images), segmenter.load(tmp_path / "ours")(images))
