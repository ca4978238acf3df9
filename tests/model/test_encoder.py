"""Proves that the encoder computes what timm does, on images of any size, and says plainly what it cannot."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import SMALL, noise, small_encoder, small_model, stir
from torch import nn

from segmenter import config, predict
from segmenter.errors import UserError
from segmenter.model.encoder import Encoder
from segmenter.model.segmenter import create
from segmenter.model.timm_models import resample_patch_embed, timm

pytestmark = pytest.mark.usefixtures("one_thread")

# Prefix tokens: class, class and distillation, registers (DINOv2: no positions; DINOv3: rotary), none; then
# relative positions, rotary and absolute positions, no position for the class token.
FAMILIES = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "vit_base_patch16_siglip_224": 0,
    "beit_base_patch16_224": 1,
    "eva02_tiny_patch14_224": 1,
    "deit3_small_patch16_224": 1,
    "vit_base_patch16_clip_224": 1,  # a norm before the blocks
    "vit_small_patch16_rope_mixed_224": 1,  # learnt frequencies in every block
    "vit_base_patch16_xp_224": 1,  # attention and MLP in parallel
    "vit_small_r26_s32_224": 1,  # a ResNet in place of the patch embedding
    "vit_small_resnet26d_224": 1,  # another ResNet, with batch norms
    "vit_tiny_r_s16_p8_224": 1,  # only the stem of a ResNet
}


def of_timm(name: str) -> nn.Module:
    """timm's own small model, every parameter random."""
    shape = {"depth": SMALL["depth"], "embed_dim": SMALL["width"], "num_heads": SMALL["heads"]}
    model = timm.create_model(name, num_classes=0, **shape).eval()
    stir(model)
    return model


def entering(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """The tokens (B P+N D) that enter the first block."""
    found = []
    handle = encoder.vit.blocks[0].register_forward_pre_hook(lambda _, arguments: found.append(arguments[0]))
    encoder(images)
    handle.remove()
    return found[0]


def take_over(encoder: Encoder, model: nn.Module) -> None:
    """Gives the encoder the weights of timm's model; every one but a pooling layer's is used."""
    found = {key: value for key, value in model.state_dict().items() if not key.startswith("attn_pool.")}
    state = {}
    for key, value in found.items():
        parts = key.split(".")
        if parts[0] in ("norm", "fc_norm"):
            key = f"norm.{parts[1]}"
        elif parts[-1] == "relative_position_bias_table":
            key = f"relative_tables.{parts[1]}"
        else:
            key = f"vit.{key}"
        state[key] = value
    encoder.load_state_dict(state)


@pytest.mark.parametrize(("name", "prefix"), FAMILIES.items())
def test_features_are_those_of_timm_at_the_native_size(name, prefix):
    model = of_timm(name)
    size = model.patch_embed.img_size
    encoder = small_encoder(name, size)
    take_over(encoder, model)
    images = noise(1, 3, *size)
    with torch.inference_mode():
        # Where timm norms only the pooled token (BEiT, EVA-02), it is applied to all; elsewhere it is none.
        expected = model.fc_norm(model.forward_features(images))
        found = encoder(images)
    assert found.grid == model.patch_embed.grid_size
    assert found.prefix.shape == (1, prefix, 48)
    assert found.patches.shape == (1, math.prod(found.grid), 48)
    torch.testing.assert_close(found.prefix, expected[:, :prefix], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.patches, expected[:, prefix:], atol=1e-5, rtol=1e-5)


def test_convolutions_without_a_projection_give_the_features_of_timm():
    """MobileCLIP's; its width is that of its last convolution, so that no small model can be made of it."""
    model = timm.create_model("vit_base_mci_224", num_classes=0, depth=1, img_size=64).eval()
    stir(model)
    encoder = small_encoder("vit_base_mci_224", (64, 64), depth=1, width=None, heads=None)
    take_over(encoder, model)
    images = noise(1, 3, 64, 64)
    with torch.inference_mode():
        expected, found = model.forward_features(images), encoder(images)
    torch.testing.assert_close(found.patches, expected[:, 1:], atol=1e-4, rtol=1e-4)


def test_a_frozen_stem_keeps_its_statistics():
    encoder = small_encoder("vit_small_resnet26d_224", (64, 64), freeze=1).train()
    before = {name: tensor.clone() for name, tensor in encoder.vit.patch_embed.state_dict().items()}
    encoder(noise(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.vit.patch_embed.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_reaches_every_parameter_and_a_step_lowers_the_loss(name):
    model = small_model(name=name, crop=(56, 80)).train()
    stir(model)
    images, labels = noise(2, 3, 56, 80), torch.arange(2 * 56 * 80).reshape(2, 56, 80) % 7 // 2

    def loss():
        return nn.functional.cross_entropy(model.pixel_logits(images), labels)

    before = loss()
    before.backward()
    # What has no gradient by design is a buffer (the periods of rotary positions, BEiT's zero key bias).
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    with torch.no_grad():
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad / norm
    assert loss() < before


@pytest.mark.parametrize("name", FAMILIES)
def test_any_size_of_image(name):
    model = small_model(name=name, crop=(64, 80))
    model.recipe.inference.stride = (40, 50)
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    result = predict(model, image, native=True)
    assert result.labels.shape == (97, 131)
    assert result.labels.dtype == np.uint8
    with torch.inference_mode():
        for height, width in ((97, 131), (1, 1), (3, 200)):
            tokens = model.encoder(noise(2, 3, height, width))
            p = model.encoder.patch_size
            assert tokens.grid == (-(-height // p), -(-width // p))
            assert tokens.patches.shape == (2, math.prod(tokens.grid), 48)
            assert tokens.patches.isfinite().all()


def test_padding_is_zero_to_the_right_and_below():
    encoder = small_encoder()
    images = noise(1, 3, 40, 50)
    padded = torch.zeros(1, 3, 48, 64)
    padded[..., :40, :50] = images
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), encoder(padded))


# ---- positions


def resized(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """Positions (h*w D) resized bilinearly, pixel by pixel: half-pixel centres, edges clamped."""
    result = []
    for y in range(new[0]):
        for x in range(new[1]):
            row = max((y + 0.5) * old[0] / new[0] - 0.5, 0)
            column = max((x + 0.5) * old[1] / new[1] - 0.5, 0)
            mix = 0
            for i, weight in ((int(row), 1 - row % 1), (int(row) + 1, row % 1)):
                for j, factor in ((int(column), 1 - column % 1), (int(column) + 1, column % 1)):
                    mix = mix + weight * factor * table[min(i, old[0] - 1) * old[1] + min(j, old[1] - 1)]
            result.append(mix)
    return torch.stack(result)


@pytest.mark.parametrize("size", [(64, 96), (97, 131), (400, 240)])
def test_positions_are_resized_bilinearly_and_prefix_rows_stay(size):
    encoder = small_encoder("deit_tiny_distilled_patch16_224")
    stir(encoder)
    table = encoder.vit.pos_embed.detach().clone()
    grid = encoder.grid(*size)
    with torch.no_grad():
        for parameter in (
            *encoder.vit.patch_embed.parameters(),
            encoder.vit.cls_token,
            encoder.vit.dist_token,
        ):
            parameter.zero_()  # what enters the first block is then the positions alone
        tokens = entering(encoder, noise(1, 3, *size))
        assert encoder(noise(1, 3, *size)).grid == grid
    assert torch.equal(tokens[0, :2], table[0, :2])
    torch.testing.assert_close(tokens[0, 2:], resized(table[0, 2:], (14, 14), grid))


def test_random_positions_start_as_waves_of_row_and_column():
    table = small_encoder(image_size=(64, 96)).vit.pos_embed[0, 1:].detach().unflatten(0, (4, 6))  # h w D
    sin_row, sin_column, cos_row, cos_column = table.split(12, -1)
    assert (sin_row == sin_row[:, :1]).all()
    assert (cos_column == cos_column[:1]).all()
    torch.testing.assert_close(sin_row[:, 0, 0], 0.5 * torch.arange(4).sin())
    torch.testing.assert_close(cos_column[0, :, 0], 0.5 * torch.arange(6).cos())
    torch.testing.assert_close(sin_column[0, :, 6], 0.5 * (torch.arange(6) / 10).sin())  # 100 ** (6 / 12) = 10
    torch.testing.assert_close(cos_row**2 + sin_row**2, torch.full_like(cos_row, 0.25))


def test_trained_positions_live_on_the_grid_of_the_crop(tmp_path):
    native = small_encoder(image_size=(224, 224))
    stir(native)
    state = dict(native.vit.state_dict())
    state |= {f"norm.{name}": tensor for name, tensor in native.norm.state_dict().items()}
    save_file(state, tmp_path / "vit.safetensors")
    crop = small_encoder(image_size=(64, 90), pretrained=str(tmp_path / "vit.safetensors"))
    assert crop.vit.pos_embed.shape == (1, 1 + 4 * 6, 48)
    torch.testing.assert_close(crop.vit.pos_embed[0, 1:], resized(native.vit.pos_embed[0, 1:], (14, 14), (4, 6)))
    with torch.no_grad():
        tokens = entering(crop, torch.zeros(1, 3, 64, 96))
    bare = crop.vit.patch_embed.proj.bias + crop.vit.pos_embed[:, 1:]
    torch.testing.assert_close(tokens[:, 1:], bare)  # at the crop's size as trained, not resampled


def test_bicubic_positions_are_torch_s():
    encoder = small_encoder(position_resize="bicubic")
    image = encoder.vit.pos_embed[:, 1:].mT.unflatten(2, (14, 14))
    expected = nn.functional.interpolate(image, (5, 9), mode="bicubic").flatten(2).mT
    found = encoder.resize_table(encoder.vit.pos_embed, (14, 14), (5, 9))
    torch.testing.assert_close(found[:, 1:], expected)


def test_antialias_is_timm_s_way_with_positions():
    model = of_timm("vit_tiny_patch16_224")
    encoder = small_encoder(position_resize="antialias")
    for grid in ((5, 9), (20, 30)):  # fewer and more than the native 14 x 14
        expected = timm.layers.resample_abs_pos_embed(model.pos_embed, list(grid), num_prefix_tokens=1)
        torch.testing.assert_close(encoder.resize_table(model.pos_embed, (14, 14), grid), expected)


def test_relative_positions_follow_the_grid():
    # A bias that depends on the vertical distance alone depends on it alone on another grid too.
    encoder = small_encoder("beit_base_patch16_224")
    height, width = 2 * 14 - 1, 2 * 14 - 1
    table = torch.zeros(height * width + 3, 3)
    table[: height * width] = torch.arange(height).repeat_interleave(width)[:, None].float()
    table[-3:] = torch.tensor([100.0, 200.0, 300.0])[:, None]
    bias = encoder._relative_bias(table, (3, 5), encoder._shared_positions((3, 5)))
    assert bias.shape == (1, 3, 16, 16)
    assert bias[0, :, 0, 0].tolist() == [300] * 3
    assert bias[0, 0, 1:, 0].unique().tolist() + bias[0, 0, 0, 1:].unique().tolist() == [200, 100]
    patches = bias[0, 0, 1:, 1:].reshape(3, 5, 3, 5)
    distances = [patches[a, :, b].unique() for a in range(3) for b in range(3)]
    assert all(len(values) == 1 for values in distances)
    assert patches[2, 0, 0, 0] > patches[1, 0, 0, 0] > patches[0, 0, 0, 0] > patches[0, 0, 2, 0]


# ---- nothing is computed twice


@pytest.fixture
def resampled(monkeypatch) -> list[tuple[int, int]]:
    """The grids that positions were resampled to."""
    grids, resize = [], Encoder.resize_table
    monkeypatch.setattr(Encoder, "resize_table", lambda self, *given: grids.append(given[-1]) or resize(self, *given))
    return grids


def test_positions_are_resampled_once_for_each_size(resampled):
    encoder = small_encoder()
    resampled.clear()
    with torch.inference_mode():
        first = [encoder(noise(1, 3, *size)).patches for size in [(64, 96), (48, 48), (224, 224)]]
        again = [encoder(noise(1, 3, *size)).patches for size in [(64, 96), (48, 48), (224, 224)]]
    assert resampled == [(4, 6), (3, 3)]
    assert all(map(torch.equal, first, again))
    encoder(noise(1, 3, 64, 96)).patches.sum().backward()  # what inference mode made cannot be learnt through
    assert encoder.vit.pos_embed.grad.abs().sum() > 0


def _loaded(encoder):
    encoder.load_state_dict({name: value + 1 for name, value in encoder.state_dict().items()})


def _exchanged(encoder):
    encoder.vit.pos_embed = nn.Parameter(encoder.vit.pos_embed.detach() + 1)


def _trained(encoder):
    encoder(noise(1, 3, 48, 48)).patches.sum().backward()
    torch.optim.SGD(encoder.parameters(), 1.0).step()


def _overwritten(encoder):
    encoder.train()
    encoder.vit.pos_embed.data += 1
    encoder.eval()


@pytest.mark.parametrize("change", [_loaded, _exchanged, _trained, _overwritten, lambda encoder: encoder.double()])
@pytest.mark.parametrize("copied", [False, True])
@torch.no_grad()
def test_positions_are_resampled_anew_after_every_change(change, copied):
    encoder = small_encoder()
    encoder(noise(1, 3, 64, 96))
    encoder = copy.deepcopy(encoder) if copied else encoder
    with torch.enable_grad():
        change(encoder)
    dtype = encoder.vit.pos_embed.dtype
    expected = Encoder(encoder.settings, (224, 224)).eval().to(dtype)
    expected.load_state_dict(encoder.state_dict())
    images = noise(1, 3, 64, 96).to(dtype)
    assert torch.equal(encoder(images).patches, expected(images).patches)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_is_fused(name):
    model = small_model("mask_transformer", name=name)
    layers = [module for module in model.modules() if hasattr(module, "fused_attn")]
    assert len(layers) == 4
    assert all(layer.fused_attn for layer in layers)


# ---- training


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_frozen_blocks_have_no_gradient_and_stay_in_evaluation_mode(name):
    encoder = small_encoder(name, (64, 64), freeze=1, drop_path=0.5, dropout=0.5).train()
    first, second = encoder.vit.blocks
    assert not first.training
    assert not first.attn.proj_drop.training
    assert not encoder.vit.pos_drop.training
    assert second.training
    assert encoder.norm.training
    encoder(noise(1, 3, 64, 64)).patches.square().sum().backward()
    free = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert free == {n for n, p in encoder.named_parameters() if p.requires_grad}
    open_parts = ("vit.blocks.1.", "norm.", "relative_tables.1")
    assert free == {n for n, _ in encoder.named_parameters() if n.startswith(open_parts)}


def test_a_wholly_frozen_encoder_gives_the_same_tokens_in_training():
    model = small_model("mask_transformer", freeze=-1, drop_path=0.5, dropout=0.5)
    images = noise(2, 3, 64, 96)
    expected = model.encoder(images)
    model.train()
    assert model.decoder.training
    assert not model.encoder.vit.training
    torch.testing.assert_close(model.encoder(images), expected, atol=0, rtol=0)
    model(images).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert any(p.grad is not None for p in model.decoder.parameters())
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("freeze", [-2, 3])
def test_freeze_out_of_range(freeze):
    with pytest.raises(UserError, match=rf"encoder.freeze is {freeze}; vit_tiny_patch16_224 has 2 blocks \(-1: all"):
        small_encoder(freeze=freeze)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "vit_small_patch16_dinov3"])
def test_checkpointing_changes_no_gradient(name):
    gradients = []
    for checkpointing in (False, True):
        encoder = small_encoder(name, (64, 64), checkpointing=checkpointing, dropout=0.2, drop_path=0.4).train()
        torch.manual_seed(3)
        encoder(noise(4, 3, 64, 64)).patches.square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def rates(encoder: Encoder) -> list[float]:
    return [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.vit.blocks]


def test_dropout_is_off_and_stochastic_depth_grows_linearly_to_a_tenth():
    encoder = Encoder(config.Encoder("vit_tiny_patch16_224", depth=5, width=48, heads=3), (64, 64))
    assert {m.p for m in encoder.modules() if isinstance(m, nn.Dropout)} == {0.0}
    assert {block.attn.attn_drop.p for block in encoder.vit.blocks} == {0.0}
    assert rates(encoder) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_dropout_and_stochastic_depth_as_set():
    encoder = small_encoder(dropout=0.3, drop_path=0.4)
    assert rates(encoder) == pytest.approx([0, 0.4])
    assert encoder.vit.pos_drop.p == 0.3
    for block in encoder.vit.blocks:
        assert {block.attn.attn_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p, block.mlp.drop2.p} == {0.3}
    assert encoder(noise(1, 3, 64, 64)).patches.equal(encoder(noise(1, 3, 64, 64)).patches)  # not in evaluation


# ---- intermediate blocks


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_small_patch16_dinov3"])
def test_intermediate_blocks_are_those_of_timm(name):
    model = of_timm(name)
    encoder = small_encoder(name, model.patch_embed.img_size)
    take_over(encoder, model)
    images = noise(1, 3, *model.patch_embed.img_size)
    with torch.inference_mode():
        expected = model.forward_intermediates(
            images, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        found = encoder.intermediate(images, [0, 1])
        backwards = encoder.intermediate(images, [1, 0])
    for tokens, (patches, prefix) in zip(found, expected, strict=True):
        assert tokens.grid == model.patch_embed.grid_size
        torch.testing.assert_close(tokens.patches, patches, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tokens.prefix, prefix, atol=1e-5, rtol=1e-5)
    assert torch.equal(backwards[0].patches, found[1].patches)
    assert torch.equal(backwards[1].prefix, found[0].prefix)


@pytest.mark.parametrize("block", [2, -1])
def test_a_block_beyond_the_depth(block):
    with pytest.raises(UserError, match=f"vit_tiny_patch16_224 has the blocks 0 to 1, not {block}"):
        small_encoder().intermediate(noise(1, 3, 32, 32), [0, block])


# ---- names and shapes


def test_an_unknown_encoder_with_what_it_may_have_been():
    with pytest.raises(UserError, match="timm has no model 'vit_tiny_patch16_385'; perhaps vit_tiny_patch16_384 or"):
        create("vit_tiny_patch16_385")
    with pytest.raises(UserError, match=r"timm has no model '\$'$"):
        create("$")
    with pytest.raises(UserError, match="Invalid pretrained tag"):
        create("vit_tiny_patch16_224.mine")


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "swin_tiny_patch4_window7_224",
        "convnext_atto",
        "vit_relpos_small_patch16_224",
    ],
)
def test_what_is_no_plain_vision_transformer(name):
    with pytest.raises(UserError, match=f"^encoder.name: {name} is not a plain vision transformer"):
        create(name)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"width": 50}, "dim should be divisible by num_heads"),
        ({"depth": 0}, "every size must be 1 or more"),
        ({"patch_size": -4}, "every size must be 1 or more"),
    ],
)
def test_a_shape_that_cannot_be(shape, text):
    with pytest.raises(UserError, match=text):
        small_encoder(**shape)


@pytest.mark.parametrize("shape", ["depth", "width", "heads"])
def test_a_shape_of_one_s_own_goes_with_random_weights_only(shape):
    with pytest.raises(UserError, match="mlp_ratio and qkv_bias need random weights"):
        Encoder(config.Encoder("vit_tiny_patch16_224", pretrained="hub", **{shape: 6}), (64, 64))


def test_normalisation_is_timm_s():
    assert small_encoder("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    assert small_encoder("deit_tiny_distilled_patch16_224").std == (0.229, 0.224, 0.225)


# ---- local weights


@pytest.fixture
def published(tmp_path):
    """timm's smallest vision transformer and the path of its weights, classifier included."""
    model = timm.create_model("test_vit").eval()
    stir(model)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def from_file(path, name: str = "test_vit", **settings) -> Encoder:
    return Encoder(config.Encoder(name, pretrained=str(path), **settings), (160, 160)).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_file_are_used(published, suffix):
    model, path = published
    if suffix == ".pth":
        path = path.with_suffix(suffix)
        state = {f"module.{key}": value for key, value in model.state_dict().items()}  # from distributed training
        torch.save({"state_dict": state, "epoch": 3}, path)
    encoder = from_file(path)
    images = noise(1, 3, 160, 160)
    with torch.inference_mode():
        expected = model.forward_features(images)
        torch.testing.assert_close(encoder(images).patches, expected[:, 1:], atol=1e-5, rtol=1e-5)
    assert "state_dict" not in encoder.vit.pretrained_cfg  # no second copy of the weights is kept


def test_patches_of_a_file_are_resampled_to_another_size(published):
    model, path = published
    encoder = from_file(path, patch_size=8)
    state = model.state_dict()
    assert encoder.patch_size == 8
    assert encoder.table_grid == (20, 20)
    assert encoder.vit.pos_embed.shape == (1, 1 + 400, 64)
    expected = resample_patch_embed(state["patch_embed.proj.weight"], [8, 8])
    torch.testing.assert_close(encoder.vit.patch_embed.proj.weight.detach(), expected)
    for key, value in encoder.vit.blocks.state_dict().items():
        assert torch.equal(value, state[f"blocks.{key}"])
    assert encoder(noise(1, 3, 97, 131)).grid == (13, 17)


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "none.safetensors"
    with pytest.raises(UserError) as error:
        from_file(path)
    assert one_sentence(error) == f"encoder.pretrained: there is no file {path}; give a path or `hub`"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", ["cut", "text", "empty"])
def test_a_damaged_file(published, suffix, content):
    model, path = published
    path = path.with_suffix(suffix)
    if suffix == ".pth":
        torch.save(model.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"these are no weights", "empty": b""}[content])
    with pytest.raises(UserError) as error:
        from_file(path)
    assert one_sentence(error).startswith(f"encoder.pretrained: {path} is damaged or holds no weights (")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"cls_token": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="damaged or holds no weights"):
        from_file(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def altered(state: dict, change: str) -> dict:
    if change == "other architecture":
        return timm.create_model("test_resnet").state_dict()
    if change == "other vision transformer":
        return timm.create_model("test_vit2").state_dict()
    if change == "wider":
        return timm.create_model("test_vit", embed_dim=96).state_dict()
    if change == "deeper":
        return timm.create_model("test_vit", depth=7).state_dict()
    if change == "a tensor is missing":
        return {key: value for key, value in state.items() if key != "blocks.3.norm1.weight"}
    if change == "a tensor is unknown":
        return state | {"blocks.3.norm3.weight": torch.zeros(64)}
    return {"head.weight": torch.zeros(3, 64)}  # nothing but a classifier


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("other architecture", r"does not fit test_vit \(.*key"),
        ("other vision transformer", r"does not fit test_vit \(.*key"),
        ("wider", "does not fit test_vit .*size mismatch"),
        ("deeper", "does not fit test_vit .*Unexpected key"),
        ("a tensor is missing", r'Missing key\(s\) in state_dict: "blocks.3.norm1.weight"'),
        ("a tensor is unknown", r'Unexpected key\(s\) in state_dict: "blocks.3.norm3.weight"'),
        ("classifier only", "is empty; give a .safetensors or .pth file with weights"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(published, change, text):
    # timm itself would keep random weights for what is missing, in silence, where no classifier is wanted.
    model, path = published
    save_file(altered(model.state_dict(), change), path)
    with pytest.raises(UserError, match=text) as error:
        from_file(path)
    assert one_sentence(error).startswith(f"encoder.pretrained: {path} ")
