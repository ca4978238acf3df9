"""Proves that every decoder does what a decoder must, and that each one computes its published formula."""

import math

import pytest
import torch
from tiny_models import classes, noise, of_width, recipe, small_encoder, small_model, stir
from torch import Tensor, nn

import segmenter
from segmenter import config
from segmenter.errors import UserError
from segmenter.model.decoders.linear import Linear
from segmenter.model.decoders.mask_transformer import MaskTransformer
from segmenter.model.encoder import Tokens
from segmenter.model.segmenter import DECODERS, Segmenter, create

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=sorted(DECODERS))
def decoder(request) -> str:
    return request.param


def channels(decoder: str, count: int) -> int:
    """Logits of a cell: one a class, or the depth."""
    return 1 if decoder == "dpt_depth" else count


def without_auxiliary(model: nn.Module) -> dict[str, tuple]:
    """Sizes of what a saved model keeps."""
    return {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.startswith("decoder.auxiliary.")}


# ---- every decoder


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (16, 200)])
def test_any_size(decoder, size):
    model = small_model(decoder)
    with torch.inference_mode():
        logits = model(noise(2, 3, *size))
        grid = tuple(math.ceil(side / 16) * model.decoder.upscale for side in size)
        assert logits.shape == (2, channels(decoder, 5), *grid)
        assert logits.isfinite().all()
        geometry = model.geometry(*size)
        assert geometry.grid == grid
        assert geometry.size == size
        assert model.pixel_logits(noise(2, 3, *size)).shape == (2, channels(decoder, 5), *size)


def test_images_of_a_batch_do_not_meet(decoder):
    model, images = small_model(decoder), noise(3, 3, 64, 80)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_parameter(decoder):
    model = small_model(decoder).train()
    stir(model)
    outputs = model.forward_auxiliary(noise(2, 3, 64, 80))
    assert len(outputs) == 1 + len(model.decoder.auxiliary)
    sum((logits * noise(*logits.shape, seed=2)).sum() for logits in outputs).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_auxiliary_outputs_lie_on_the_same_pixels_and_change_nothing_else(decoder):
    model, images = small_model(decoder), noise(2, 3, 37, 50)
    with torch.inference_mode():
        logits = model.forward_auxiliary(images)
        main, *others = model.outputs(logits, 37, 50)
        assert torch.equal(main.logits, model(images))
    assert (main.name, main.weight, main.geometry) == ("main", 1.0, model.geometry(37, 50))
    assert [other.weight for other in others] == [0.4] * len(model.decoder.auxiliary)
    for other in others:
        assert other.geometry.grid == tuple(other.logits.shape[-2:])
        assert other.geometry.extent == main.geometry.extent
        assert other.geometry.size == (37, 50)
        assert other.logits.isfinite().all()


def test_evaluation_is_deterministic_and_training_with_dropout_is_not(decoder):
    settings = recipe(decoder, dropout=0.3)
    settings.decoder.dropout = 0.3
    model, images = Segmenter(settings, classes()).eval(), noise(1, 3, 64, 80)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_saved_and_loaded_it_is_equal_bit_for_bit(decoder, tmp_path):
    model, images = small_model(decoder), noise(1, 3, 97, 131)
    stir(model)
    model.save(tmp_path)
    loaded = segmenter.load(tmp_path)
    assert not loaded.training
    assert len(loaded.decoder.auxiliary) == 0
    assert {n: tuple(t.shape) for n, t in loaded.state_dict().items()} == without_auxiliary(model)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))


def test_compiled_it_is_equal_and_so_are_its_gradients(decoder):
    model, images = small_model(decoder, depth=1), noise(2, 3, 97, 131)  # one block, as tracing takes its time
    torch._dynamo.reset()
    outputs, gradients = [], []
    compiled = torch.compile(model.forward_auxiliary, backend="aot_eager", fullgraph=True)
    for network in (model.forward_auxiliary, compiled):
        model.zero_grad()
        outputs.append(network(images))
        sum(logits.square().mean() for logits in outputs[-1]).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_exported_it_is_equal(decoder):
    model, images = small_model(decoder), noise(1, 3, 97, 131)
    program = torch.export.export(model, (images,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), model(images), atol=1e-5, rtol=1e-5)


def test_bf16_is_finite_and_close(decoder):
    model, images = small_model(decoder), noise(1, 3, 97, 131)
    stir(model)
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(images)
    assert rounded.isfinite().all()
    assert (rounded.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("count", [1, 2, 300])
def test_any_number_of_classes(decoder, count):
    model = small_model(decoder, count)
    with torch.inference_mode():
        logits = model(noise(1, 3, 40, 50))
    assert logits.shape == (1, channels(decoder, count), 3 * model.decoder.upscale, 4 * model.decoder.upscale)
    assert logits.isfinite().all()


def test_what_depends_on_the_classes_is_named(decoder):
    few, many = (small_model(decoder, count).decoder for count in (5, 7))
    sizes = {name: tensor.shape for name, tensor in few.state_dict().items()}
    differ = {name for name, tensor in many.state_dict().items() if tensor.shape != sizes[name]}
    assert differ == set(few.class_dependent)


def test_an_unknown_decoder():
    with pytest.raises(UserError, match=r"decoder.name is 'mask'; choose linear or mask_transformer"):
        create("test_vit", decoder="mask")


# ---- the formulas


def test_linear_formula():
    decoder, tokens = Linear(config.Linear(), of_width(6), 4), noise(2, 15, 6)
    stir(decoder)
    logits = decoder([Tokens(tokens, tokens[:, :0], (3, 5))])
    weight, bias = decoder.head.weight, decoder.head.bias
    assert logits.shape == (2, 4, 3, 5)
    for image in range(2):
        for label in range(4):
            for y in range(3):
                for x in range(5):
                    expected = weight[label] @ tokens[image, 5 * y + x] + bias[label]
                    torch.testing.assert_close(logits[image, label, y, x], expected)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def block(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """A pre-norm block on the tokens (N D) of one image; w are its tensors."""
    width = x.shape[1]
    normed = layer_norm(x, w["norm1.weight"], w["norm1.bias"])
    qkv = normed @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]  # N 3D: queries, keys, values; heads within each
    queries, keys, values = qkv.split(width, 1)
    size = width // heads
    found = []
    for head in range(heads):
        here = slice(head * size, (head + 1) * size)
        scores = queries[:, here] @ keys[:, here].T / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)  # a softmax over the keys
        found.append(weights @ values[:, here])
    x = x + torch.cat(found, 1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    hidden = layer_norm(x, w["norm2.weight"], w["norm2.bias"]) @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2  # the exact GELU
    return x + hidden @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (48, 1), (200, 2)])
@pytest.mark.parametrize("layers", [2, 1])
def test_mask_transformer_formula(width, heads, layers):
    decoder = MaskTransformer(config.MaskTransformer(layers=layers), of_width(width), 7).eval().double()
    stir(decoder)
    tokens = noise(2, 12, width).double()
    with torch.no_grad():
        logits = decoder([Tokens(tokens, tokens[:, :0], (3, 4))])
    w = decoder.state_dict()
    for image in range(2):
        x = tokens[image] @ w["project.weight"].T + w["project.bias"]
        x = torch.cat([x, w["class_embeddings"][0]])  # the classes come after the patches
        for index in range(layers):
            start = f"blocks.{index}."
            x = block(x, {k.removeprefix(start): v for k, v in w.items() if k.startswith(start)}, heads)
        x = layer_norm(x, w["norm.weight"], w["norm.bias"])
        patches, labels = x[:12] @ w["project_patches"], x[12:] @ w["project_classes"]  # y = x M
        patches = patches / patches.square().sum(1, keepdim=True).sqrt()
        labels = labels / labels.square().sum(1, keepdim=True).sqrt()
        masks = layer_norm(patches @ labels.T, w["mask_norm.weight"], w["mask_norm.bias"])  # N K
        torch.testing.assert_close(logits[image], masks.T.reshape(7, 3, 4))


def test_mask_transformer_settings():
    settings = config.MaskTransformer(layers=3, dropout=0.1, drop_path=0.2)
    decoder = MaskTransformer(settings, of_width(128), 7)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in decoder.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert {m.p for m in decoder.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert {m.eps for m in decoder.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    plain = MaskTransformer(config.MaskTransformer(), of_width(128), 7)
    assert {m.p for m in plain.modules() if isinstance(m, nn.Dropout)} == {0.0}


# ---- sizes and first values of the published models

# Parameters at 150 classes of the published implementation: encoder at a crop of 512 (large: 640) without its
# classifiers, which ours has not, mask transformer, linear decoder.
PUBLISHED = {
    "vit_tiny_patch16_384": (5_876_392 - 193_000, 1_029_996, 28_950),
    "deit_tiny_distilled_patch16_224": (6_069_776 - 386_000, 1_029_996, 28_950),
    "vit_small_patch16_384": (22_368_616 - 385_000, 4_050_348, 57_750),
    "vit_small_patch32_384": (22_958_440 - 385_000, 4_050_348, 57_750),
    "deit_small_distilled_patch16_224": (22_754_384 - 770_000, 4_050_348, 57_750),
    "vit_base_patch16_384": (87_203_560 - 769_000, 16_063_020, 115_350),
    "vit_base_patch32_384": (88_383_208 - 769_000, 16_063_020, 115_350),
    "vit_base_patch8_224": (89_120_488 - 769_000, 16_063_020, 115_350),
    "deit_base_distilled_patch16_384": (87_974_096 - 1_538_000, 16_063_020, 115_350),
    "vit_large_patch16_384": (305_764_328 - 1_025_000, 28_495_148, 153_750),
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameters_are_as_many_as_published(name, parameters):
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        model = create(name, image_size=640 if "large" in name else 512)
        linear = Linear(config.Linear(), model.encoder, 150)
    assert (count(model.encoder), count(model.decoder), count(linear)) == parameters


def assert_normal(tensor: Tensor, std: float) -> None:
    """Looks like samples of a normal distribution that is not cut within five standard deviations."""
    error = 5 / math.sqrt(tensor.numel())
    assert abs(tensor.mean().item()) < error * std
    assert tensor.std().item() == pytest.approx(std, rel=error)
    beyond = (tensor.abs() > 2 * std).float().mean().item()
    assert beyond == pytest.approx(0.0455, abs=2 * error)


def test_first_values_of_the_decoders_are_as_published():
    torch.manual_seed(0)
    decoder = MaskTransformer(config.MaskTransformer(), of_width(192), 150)
    linear = Linear(config.Linear(), of_width(192), 150)
    for module in (*decoder.modules(), *linear.modules()):
        if isinstance(module, nn.Linear):
            assert_normal(module.weight.detach(), 0.02)
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert_normal(decoder.class_embeddings.detach(), 0.02)
    assert_normal(decoder.project_patches.detach(), 192**-0.5)
    assert_normal(decoder.project_classes.detach(), 192**-0.5)


def test_first_values_of_the_encoder_are_as_published():
    # But for the class token, which timm starts at nearly zero, and the positions (tests/model/test_encoder.py).
    encoder = small_encoder(width=192)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            assert_normal(module.weight.detach(), 0.02)
            assert not module.bias.any(), name
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
