"""Proves that the attention read off the fused product is what timm computes without it, for every kind of encoder."""

import pytest
import torch
from tiny_models import noise, small_model, stir

from segmenter.errors import UserError
from segmenter.inspection import captured
from segmenter.inspection.captured import Call, capturing, refuse_block

pytestmark = pytest.mark.usefixtures("one_thread")

# Class token alone, with a distillation token, with registers, rotary (three kinds), relative positions, no prefix,
# no position for the class token, attention beside the MLP, a ResNet in front.
FAMILIES = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "eva02_tiny_patch14_224": 1,
    "vit_small_patch16_rope_mixed_224": 1,
    "beit_base_patch16_224": 1,
    "vit_base_patch16_siglip_224": 0,
    "deit3_small_patch16_224": 1,
    "vit_base_patch16_xp_224": 1,
    "vit_small_r26_s32_224": 1,
}
SIZE = (75, 96)  # not whole patches


def model_of(name="vit_tiny_patch16_224", decoder="linear"):
    model = small_model(decoder, name=name)
    stir(model)
    return model


def unfused(model, images) -> list[torch.Tensor]:
    """What enters the dropout of timm's attention when it is not fused: the probabilities of each block."""
    found = []
    layers = [m for m in model.modules() if hasattr(m, "fused_attn") and hasattr(m, "attn_drop")]
    hooks = [m.attn_drop.register_forward_pre_hook(lambda _, args: found.append(args[0])) for m in layers]
    was = [layer.fused_attn for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    with torch.inference_mode():
        model(images)
    for layer, hook, fused in zip(layers, hooks, was, strict=True):
        hook.remove()
        layer.fused_attn = fused
    return found


def calls_of(model, images) -> list[Call]:
    found = []
    with capturing(model, found.append), torch.inference_mode():
        model(images)
    return found


@pytest.mark.parametrize("decoder", ["linear", "mask_transformer"])
@pytest.mark.parametrize(("name", "prefix"), FAMILIES.items())
def test_rows_are_those_of_the_unfused_computation(name, prefix, decoder):
    model = model_of(name, decoder)
    images = noise(2, 3, *SIZE)
    calls, expected = calls_of(model, images), unfused(model, images)
    grid = model.encoder.grid(*SIZE)
    assert len(calls) == len(expected) == (2 if decoder == "linear" else 4)
    for call, matrix in zip(calls, expected, strict=True):
        rows = call.rows(slice(None))
        torch.testing.assert_close(rows, matrix, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]), atol=1e-5, rtol=0)
        assert rows.std() > 1e-4  # not all alike
        assert len(range(*call.patches.indices(rows.shape[-1]))) == grid[0] * grid[1]
    assert calls[0].patches.start == prefix


def test_each_call_says_which_block_it_belongs_to():
    calls = calls_of(model_of(decoder="mask_transformer"), noise(1, 3, 64, 96))
    assert [(call.part, call.block) for call in calls] == [
        ("encoder", 0),
        ("encoder", 1),
        ("decoder", 0),
        ("decoder", 1),
    ]
    assert calls[-1].patches == slice(0, 24)  # the classes follow


@pytest.mark.parametrize("decoder", ["setr_pup", "setr_mla", "dpt", "dpt_depth"])
def test_decoders_without_attention_leave_that_of_the_encoder(decoder):
    model = small_model(decoder, depth=4)
    calls = calls_of(model, noise(1, 3, 64, 96))
    assert [(call.part, call.block) for call in calls] == [("encoder", i) for i in range(4)]
    assert calls[0].patches == slice(0 if decoder == "setr_mla" else 1, 24 if decoder == "setr_mla" else 25)


def test_differential_attention_makes_two_calls_a_block():
    calls = calls_of(model_of("vit_dlittle_patch16_reg1_gap_256"), noise(1, 3, 64, 96))
    assert [call.block for call in calls] == [0, 0, 1, 1]


def test_chosen_rows_and_bands_are_parts_of_the_whole(monkeypatch):
    (call, *_) = calls_of(model_of("beit_base_patch16_224"), noise(1, 3, 64, 96))
    whole = call.rows(slice(None))
    torch.testing.assert_close(call.rows([3, 1]), whole[:, :, [3, 1]])
    monkeypatch.setattr(captured, "BAND", 3 * 25 * 4)  # heads, tokens, rows
    bands = list(call.bands())
    assert [which.stop - which.start for which, _ in bands] == [4, 4, 4, 4, 4, 4, 1]
    torch.testing.assert_close(torch.cat([rows for _, rows in bands], 2), whole)


def test_results_are_the_same_and_the_model_is_left_as_it_was():
    model = model_of(decoder="mask_transformer").train()
    model.encoder.vit.blocks[0].attn.fused_attn = False
    images = noise(1, 3, 64, 96)
    modes = [module.training for module in model.modules()]
    found, answers = [], []

    def stopped():
        with torch.inference_mode(), capturing(model, found.append):
            assert not model.training
            answers.append(model(images))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert len(found) == 4  # the unfused one too
    assert [module.training for module in model.modules()] == modes
    assert not model.encoder.vit.blocks[0].attn.fused_attn
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.inference_mode():
        torch.testing.assert_close(answers[0], model.eval()(images), atol=1e-5, rtol=1e-5)
    assert len(found) == 4


def test_half_precision_is_read_in_full():
    model = model_of()
    found = []
    with capturing(model, found.append), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model(noise(1, 3, 64, 96))
        sums = found[0].rows(slice(None)).sum(-1)
    assert found[0].query.dtype == torch.bfloat16
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


def test_a_gradient_reaches_each_output():
    model = model_of(decoder="mask_transformer").requires_grad_(False)
    images = noise(1, 3, 64, 96).requires_grad_()
    found = []
    with capturing(model, found.append):
        score = model(images)[0, 1, 2, 3]
    gradients = torch.autograd.grad(score, [call.output for call in found])
    assert [g.shape for g in gradients] == [call.output.shape for call in found]
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("part", "block", "text"),
    [
        ("encoder", 2, "block is 2, but the encoder has the blocks 0 to 1"),
        ("encoder", -1, "block is -1, but the encoder has the blocks 0 to 1"),
        ("decoder", 0, "block is 0, but the linear decoder has no blocks with attention"),
    ],
)
def test_blocks_that_are_not_there(part, block, text):
    with pytest.raises(UserError, match=text):
        refuse_block(model_of(), part, block)
