"""Proves that DPT computes its formula on any grid and with every readout, for labels and depth, and on hybrids."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from tiny_models import classes, made_for, noise, small_model, stir
from torch import Tensor

from segmenter import config
from segmenter.errors import UserError
from segmenter.model.decoders.dpt import DETAILS, Dpt, DptDepth
from segmenter.model.encoder import Encoder, Tokens
from segmenter.model.segmenter import Segmenter, create

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = (5, 6, 7, 8)
NAMES = {Dpt: "dpt", DptDepth: "dpt_depth"}


@cache
def encoder(
    name: str = "vit_tiny_patch16_224", depth: int = 4, width: int = 48, heads: int = 3, patch_size: int | None = None
) -> Encoder:
    with torch.device("meta"):
        return Encoder(config.Encoder(name, patch_size=patch_size, depth=depth, width=width, heads=heads), (64, 64))


def decoder(kind: type = Dpt, name: str = "vit_tiny_patch16_224", **settings) -> Dpt | DptDepth:
    """A small decoder of double precision in evaluation mode, every number random."""
    settings = config.decoder(NAMES[kind], **({"width": 4, "widths": WIDTHS} | settings))
    made = made_for(encoder(name), kind, settings, 3).eval().double()
    stir(made)
    for name, buffer in made.named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + noise(*buffer.shape).abs())
    return made


def tokens(grid: tuple[int, int], prefix: int = 1, levels: int = 4) -> list[Tokens]:
    """Random tokens of some blocks for two images."""
    return [
        Tokens(noise(2, grid[0] * grid[1], 48, seed=i).double(), noise(2, prefix, 48, seed=9 + i).double(), grid)
        for i in range(levels)
    ]


# ---- the formula, written once more from the paper and the published differences


def reassembled(w: dict[str, Tensor], level: int, tokens: Tokens, readout: str) -> Tensor:
    patches, prefix, (h, w_) = tokens
    part = f"reassemble.{level}."
    if readout == "project":  # of the class token, whatever tokens follow it
        both = torch.cat([patches, prefix[:, :1].expand_as(patches)], 2)
        mixed = both @ w[part + "readout.weight"].T + w[part + "readout.bias"]
        patches = mixed * (1 + torch.erf(mixed / 2**0.5)) / 2
    elif readout == "add":
        patches = patches + sum(prefix[:, i : i + 1] for i in range(prefix.shape[1])) / prefix.shape[1]
    grid = patches.reshape(len(patches), h, w_, -1)
    grid = grid @ w[part + "project.weight"][:, :, 0, 0].T + w[part + "project.bias"]  # B h w C
    if level < 2:  # every token becomes a square of 4 or 2 cells
        kernel, side = w[part + "resample.weight"], 4 - 2 * level
        cells = torch.einsum("byxc,cdij->bdyixj", grid, kernel).reshape(len(grid), -1, h * side, w_ * side)
        return cells + w[part + "resample.bias"][:, None, None]
    grid = grid.permute(0, 3, 1, 2)
    if level == 2:
        return grid
    return F.conv2d(grid, w[part + "resample.weight"], w[part + "resample.bias"], stride=2, padding=1)


def unit(w: dict[str, Tensor], part: str, x: Tensor) -> Tensor:
    y = x
    for n in (1, 2):
        y = F.conv2d(y.clamp(min=0), w[f"{part}.conv{n}.weight"], w.get(f"{part}.conv{n}.bias"), padding=1)
        y = batch_norm(w, f"{part}.norm{n}", y)
    return x + y


def batch_norm(w: dict[str, Tensor], part: str, x: Tensor) -> Tensor:
    if f"{part}.weight" not in w:
        return x
    mean, var, gain, bias = (w[f"{part}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * gain + bias


def fused(w: dict[str, Tensor], levels: list[Tokens], readout: str, aligned: bool, odd: str, deepest: bool) -> Tensor:
    """The last fusion's output, in the order of the paper: enlargement, then the convolution of 1 x 1."""
    above = None
    for level in (3, 2, 1, 0):
        x = F.conv2d(reassembled(w, level, levels[level], readout), w[f"narrow.{level}.weight"], padding=1)
        if above is not None and odd == "stretch":
            x = F.interpolate(x, above.shape[2:], mode="bilinear", align_corners=False)
        if above is not None or deepest:
            x = unit(w, f"fusion.{level}.level_unit", x)
        if above is not None:
            x = above[..., : x.shape[2], : x.shape[3]] + x
        x = unit(w, f"fusion.{level}.unit", x)
        size = [2 * side for side in x.shape[2:]]
        x = F.interpolate(x, size, mode="bilinear", align_corners=aligned)
        above = F.conv2d(x, w[f"fusion.{level}.project.weight"], w[f"fusion.{level}.project.bias"])
    return above


@pytest.mark.parametrize("readout", ["project", "add", "ignore"])
@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (1, 2)])
@pytest.mark.parametrize(
    ("layout", "aligned", "odd", "deepest"),
    [("own", False, "cut", False), ("original", True, "cut", False), ("openmmlab", True, "stretch", False),
     ("huggingface", True, "stretch", False), ("smp", True, "cut", True)],
)  # fmt: skip
@torch.no_grad()
def test_formula(layout, aligned, odd, deepest, grid, readout):
    made, levels = decoder(variant=layout, readout=readout), tokens(grid)
    w = made.state_dict()
    features = fused(w, levels, readout, aligned, odd, deepest)
    y = batch_norm(w, "head.1", F.conv2d(features, w["head.0.weight"], padding=1)).clamp(min=0)
    expected = F.conv2d(y, w["head.4.weight"], w["head.4.bias"])
    found = made(levels)
    if layout == "huggingface" and any(side % 2 for side in grid):
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected)
    geometry = made.geometry(grid, 16, tuple(16 * side for side in grid))
    assert geometry.grid == tuple(found.shape[2:])
    assert geometry.align_corners is (layout in ("original", "smp") or (layout == "huggingface" and grid == (4, 6)))


@pytest.mark.parametrize("non_negative", [True, False])
@pytest.mark.parametrize(("layout", "aligned", "odd"), [("own", False, "cut"), ("huggingface", True, "stretch")])
@torch.no_grad()
def test_formula_of_depth(layout, aligned, odd, non_negative):
    made, levels = decoder(DptDepth, variant=layout, non_negative=non_negative), tokens((3, 5))
    w = made.state_dict()
    assert not any("norm" in name for name in w)
    features = fused(w, levels, "project", aligned, odd, False)
    y = F.conv2d(features, w["head.0.weight"], w["head.0.bias"], padding=1)
    y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=aligned)
    y = F.conv2d(y, w["head.2.weight"], w["head.2.bias"], padding=1).clamp(min=0)
    expected = F.conv2d(y, w["head.4.weight"], w["head.4.bias"])
    assert expected.min() < 0 < expected.max()
    found = made(levels)
    torch.testing.assert_close(found, expected.clamp(min=0) if non_negative else expected)
    assert made.geometry((3, 5), 16, (40, 70)).grid == tuple(found.shape[2:])


@pytest.mark.parametrize(("layout", "cells"), [("own", 8), ("huggingface", 16)])
def test_depth_is_not_made_finer_than_the_pixels(layout, cells):
    settings = config.DptDepth(width=4, widths=WIDTHS, variant=layout)
    made = DptDepth(settings, encoder(patch_size=8), 1)
    found = made(
        [level._replace(patches=level.patches.float(), prefix=level.prefix.float()) for level in tokens((2, 4))]
    )
    assert found.shape == (2, 1, 2 * cells, 4 * cells)
    assert made.geometry((2, 4), 8, (16, 30)).grid == (2 * cells, 4 * cells)


@torch.no_grad()
def test_two_prefix_tokens():
    # `add` takes the mean of class and distillation token, `project` the class token alone.
    for readout in ("add", "project"):
        made = decoder(name="deit_tiny_distilled_patch16_224", readout=readout)
        levels = tokens((4, 4), prefix=2)
        one = [Tokens(t.patches, t.prefix.mean(1, keepdim=True) if readout == "add" else t.prefix[:, :1], t.grid)
               for t in levels]  # fmt: skip
        torch.testing.assert_close(made(levels), made(one))


@torch.no_grad()
def test_a_cell_means_the_same_in_an_image_of_any_size():
    # Shifted by a whole cell of the coarsest level, and with another size below and to the right, cells far from the
    # borders stay as they are, but for the shift. With the published aligned corners they do not.
    side, shift, far = 40, 2, 17  # tokens; further than one sees
    for layout, same in (("own", True), ("original", False)):
        made = decoder(variant=layout, readout="ignore")
        whole = tokens((side, side))
        part = [
            Tokens(t.patches.unflatten(1, (side, side))[:, shift:, : side - 3].flatten(1, 2), t.prefix, (38, 37))
            for t in whole
        ]
        here, there = slice(8 * far, 8 * (far + 3)), slice(8 * (far + shift), 8 * (far + shift + 3))
        difference = (made(part)[..., here, here] - made(whole)[..., there, here]).abs().max().item()
        assert (difference < 1e-9) is same


def test_details_of_every_layout_and_no_other():
    settings = config.Dpt.__annotations__["variant"].__args__
    assert set(DETAILS) == set(settings)


# ---- what is read, and how wide


@pytest.mark.parametrize(
    ("depth", "taps"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (4, (0, 1, 2, 3)), (2, (0, 0, 1, 1))]
)
def test_blocks_are_those_published(depth, taps):
    assert made_for(encoder(depth=depth), Dpt, config.Dpt(width=4), 2).taps == taps


@pytest.mark.parametrize(
    ("width", "widths"),
    [(768, (96, 192, 384, 768)), (1024, (256, 512, 1024, 1024)), (384, (48, 96, 192, 384)), (48, (6, 12, 24, 48))],
)
def test_widths_are_those_published(width, widths):
    made = made_for(encoder(width=width, heads=1), Dpt, config.Dpt(width=4), 2)
    assert tuple(layer.in_channels for layer in made.narrow) == widths


@pytest.mark.parametrize(
    ("name", "labels", "depth"),
    [
        ("vit_tiny_patch16_384", 10_701_830, 10_401_329),
        ("vit_small_patch16_384", 13_675_382, 13_374_881),
        ("vit_base_patch16_384", 23_907_926, 23_607_425),
        ("vit_large_patch16_384", 38_460_054, 38_159_553),
        ("vit_base_r50_s16_384", 23_316_374, 23_015_873),
    ],
)
def test_parameters_are_as_documented(name, labels, depth):
    with torch.device("meta"):
        made = Encoder(config.Encoder(name), (64, 64))
        found = [made_for(made, Dpt, config.Dpt(auxiliary=0.0), 150), made_for(made, DptDepth, config.DptDepth(), 150)]
    assert [sum(p.numel() for p in decoder.parameters()) for decoder in found] == [labels, depth]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"taps": (0, 1, 2)}, "decoder.taps is 0 1 2, .* reads 4 blocks"),
        ({"taps": (0, 1, 2, 4)}, "decoder.taps is 0 1 2 4, but the encoder has the blocks 0 to 3"),
        ({"taps": (-1, 1, 2, 3)}, "the encoder has the blocks 0 to 3"),
        ({"widths": (8, 8, 8)}, r"decoder.widths is \(8, 8, 8\); DPT has 4 levels, finest first"),
        ({"widths": (8, 8, 8, 0)}, "DPT has 4 levels"),
    ],
)
def test_settings_that_cannot_be(settings, text):
    with pytest.raises(UserError, match=text):
        made_for(encoder(), Dpt, config.Dpt(**settings), 2)


@pytest.mark.parametrize("readout", ["project", "add"])
def test_an_encoder_without_a_class_token(readout):
    name = "vit_base_patch16_siglip_224"
    with pytest.raises(
        UserError,
        match=f"decoder.readout is '{readout}', which needs a class token, and {name} has none; write decoder.readout: "
        "ignore",
    ):
        decoder(name=name, readout=readout)
    assert decoder(name=name, readout="ignore")(tokens((2, 2), prefix=0)).shape == (2, 3, 16, 16)


def test_an_encoder_with_registers_alone_has_no_class_token():
    with pytest.raises(UserError, match="needs a class token"):
        decoder(name="vit_betwixt_patch16_reg4_gap_256")


# ---- training


def test_the_auxiliary_decoder_exists_for_training_alone():
    for weight, count in ((0.2, 2), (0.0, 1)):
        model = small_model(config.Dpt(width=8, auxiliary=weight))
        outputs = model.outputs(model.forward_auxiliary(noise(2, 3, 50, 70)), 50, 70)
        assert len(outputs) == count
        assert len(model.decoder.auxiliary) == count - 1
        assert [tuple(output.logits.shape[2:]) for output in outputs] == [(32, 40), (16, 20)][:count]
        assert [output.weight for output in outputs] == [1.0, 0.2][:count]
        assert all(output.geometry.size == (50, 70) for output in outputs)


def test_depth_has_a_gradient_at_the_start():
    # The last ReLU would otherwise hide every pixel, one time in two.
    for seed in range(4):
        torch.manual_seed(seed)
        model = Segmenter(small_model("dpt_depth").recipe, classes(1)).train()
        depth = model(noise(2, 3, 32, 32, seed=seed))
        assert (depth > 0).float().mean() > 0.9


# ---- hybrids


@torch.no_grad()
def test_a_hybrid_gives_its_stem_s_maps():
    model = small_model(config.Dpt(width=8, widths=()), name="vit_base_r50_s16_224", crop=(64, 64))
    assert model.encoder.patch_size == 16
    assert (model.decoder.stages, model.decoder.taps) == ((0, 1), (1, 1))
    assert [layer.in_channels for layer in model.decoder.narrow] == [256, 512, 48, 48]
    images = noise(1, 3, 50, 90)
    levels = model.encoder.intermediate(images, (0, 1), (0, 1))
    assert [level.grid for level in levels] == [(16, 24), (8, 12), (4, 6), (4, 6)]
    assert [level.patches.shape[2] for level in levels] == [256, 512, 48, 48]
    stem = model.encoder.vit.patch_embed.backbone
    padded = F.pad(images, (0, 6, 0, 14))
    first = stem.stages[0](stem.stem(padded))
    assert torch.equal(model.decoder.reassemble[0](levels[0]), first)
    assert torch.equal(model.decoder.reassemble[1](levels[1]), stem.stages[1](first))
    assert model(images).shape == (1, 5, 32, 48)


def test_a_hybrid_of_stride_32_gives_the_stages_of_8_and_16_pixels():
    with torch.device("meta"):
        model = create("vit_small_r26_s32_224", decoder="dpt", classes=3, image_size=96)
    assert model.encoder.patch_size == 32
    assert [model.encoder.stages[stage].stride for stage in model.decoder.stages] == [8, 16]
    assert model.decoder.taps == (8, 11)


@pytest.mark.parametrize("name", ["linear", "mask_transformer", "setr_pup"])
@torch.no_grad()
def test_other_decoders_on_a_hybrid(name):
    torch.manual_seed(0)
    recipe = config.Recipe(
        augment=config.Augment(crop=(64, 64)),
        encoder=config.Encoder("vit_small_r26_s32_224", depth=2, width=48, heads=3),
        decoder=config.decoder(name, **({"width": 8} if name == "setr_pup" else {})),
    )
    model = Segmenter(recipe, classes(4)).eval()
    assert model.pixel_logits(noise(1, 3, 40, 70)).shape == (1, 4, 40, 70)


def test_widths_of_a_hybrid_s_stages_are_given():
    with pytest.raises(UserError, match=r"the encoder's ResNet has \(256, 512\) channels, write those first"):
        small_model(config.Dpt(widths=(8, 8, 8, 8)), name="vit_base_r50_s16_224")


def test_patches_of_a_hybrid_have_one_size():
    with pytest.raises(UserError, match=r"encoder\.patch_size: vit_base_r50_s16_224 takes its patches from"):
        small_model("dpt", name="vit_base_r50_s16_224", patch_size=8)
