"""Proves the learning-rate formula, and which parameters get which learning rate and weight decay."""

import pytest
import torch

from segmenter.config import Train
from segmenter.data.classes import Classes, default_colors
from segmenter.model.segmenter import Segmenter
from segmenter.training import optim

# Segmenter with 2 encoder blocks: layers from the decoder down to the embeddings.
LEVELS = {
    "decoder.": 0,
    "encoder.norm.": 1,
    "encoder.vit.blocks.1.": 1,
    "encoder.vit.blocks.0.": 2,
    "encoder.vit.": 3,
}


@pytest.fixture(scope="module", params=["linear", "mask_transformer"])
def model(request, tiny_recipe) -> Segmenter:
    classes = Classes(("a", "b", "c"), default_colors(3))
    return Segmenter(tiny_recipe("", decoder={"name": request.param}), classes)


def test_learning_rate_is_the_published_polynomial():
    settings = Train(steps=1000, lr=0.01, min_lr=1e-5, power=0.9)
    assert optim.learning_rate(settings, 0) == 0.01
    for step in (1, 10, 500, 999):
        expected = (0.01 - 1e-5) * (1 - step / 1000) ** 0.9 + 1e-5
        assert optim.learning_rate(settings, step) == pytest.approx(expected, rel=1e-12)
    assert optim.learning_rate(settings, 1000) == optim.learning_rate(settings, 1234) == 1e-5


def test_warm_up_rises_from_the_floor_to_the_polynomial():
    settings = Train(steps=1000, lr=0.01, min_lr=1e-5, power=0.9, warmup=100)
    for step in (0, 1, 50, 99):
        expected = (0.01 - 1e-5) * step / 100 * (1 - 100 / 1000) ** 0.9 + 1e-5
        assert optim.learning_rate(settings, step) == pytest.approx(expected, rel=1e-12)
    assert optim.learning_rate(settings, 100) == pytest.approx((0.01 - 1e-5) * 0.9**0.9 + 1e-5, rel=1e-12)
    rates = [optim.learning_rate(settings, step) for step in range(1001)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_a_floor_above_the_peak_does_not_raise_the_rate():
    settings = Train(steps=10, lr=1e-6, min_lr=1e-5)
    assert {optim.learning_rate(settings, step) for step in range(12)} == {1e-6}


def test_every_trainable_parameter_is_in_one_group_with_its_scale_and_decay(model):
    groups = optim.parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(names.values())
    tokens = {"encoder.vit.pos_embed", "encoder.vit.cls_token", "decoder.class_embeddings"}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            level = next(level for prefix, level in LEVELS.items() if name.startswith(prefix))
            assert group["scale"] == 0.5**level, name
            assert group["weight_decay"] == (0.0 if parameter.ndim == 1 or name in tokens else 0.05), name


@pytest.mark.parametrize("name", ["vit_base_r50_s16_224", "beit_base_patch16_224"])
def test_only_the_encoders_own_blocks_are_layers(tiny_recipe, name):
    """The ResNet of a hybrid has blocks in stages; all of it is embedding, whatever the number of a stage's block."""
    size = {"name": name, "patch_size": None if "r50" in name else 16, "depth": 2}
    with torch.device("meta"):
        model = Segmenter(tiny_recipe("", encoder=size), Classes(("a", "b"), default_colors(2)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    levels = LEVELS | {f"encoder.relative_tables.{block}": 2 - block for block in range(2)}
    seen = set()
    for group in optim.parameter_groups(model, weight_decay=0.05, layer_decay=0.5):
        for parameter in group["params"]:
            prefix = max((prefix for prefix in levels if names[id(parameter)].startswith(prefix)), key=len)
            assert group["scale"] == 0.5 ** levels[prefix], names[id(parameter)]
            seen.add(names[id(parameter)])
    assert any("backbone.stages.2.blocks.8." in name or "relative_tables" in name for name in seen)


def test_frozen_parameters_are_in_no_group(tiny_recipe):
    recipe = tiny_recipe("", encoder={"freeze": 1})
    model = Segmenter(recipe, Classes(("a", "b"), default_colors(2)))
    grouped = {id(p) for group in optim.parameter_groups(model, 0.1, 0.5) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
    assert not any(id(p) in grouped for p in model.encoder.vit.blocks[0].parameters())
    assert all(id(p) in grouped for p in model.encoder.vit.blocks[1].parameters())


@pytest.mark.parametrize(
    ("decoder", "heads"),
    [
        ("linear", ("decoder.",)),
        ("setr_pup", ("decoder.",)),
        ("setr_mla", ("decoder.heads.", "decoder.classify.", "decoder.auxiliary.")),  # as published, not its neck
    ],
)
def test_heads_may_learn_faster(tiny_recipe, decoder, heads):
    recipe = tiny_recipe("", decoder={"name": decoder} | ({} if decoder == "linear" else {"width": 8}))
    model = Segmenter(recipe, Classes(("a", "b"), default_colors(2)))
    (made,) = optim.optimizers(model, Train(optimizer="sgd", lr=0.01, decoder_scale=10))
    optim.set_learning_rate(made, 0.004)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.04 if name.startswith(heads) else 0.004), name


def test_the_schedule_reaches_every_group_times_its_scale(model):
    (made,) = optim.optimizers(model, Train(optimizer="adamw", lr=0.01, layer_decay=0.5))
    optim.set_learning_rate(made, 0.004)
    assert {group["lr"] for group in made.param_groups} == {0.004 * 0.5**level for level in range(4)}


def test_sgd_is_nesterov_with_the_papers_momentum(model):
    (made,) = optim.optimizers(model, Train(optimizer="sgd"))
    assert isinstance(made, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in made.param_groups)
    assert all(group["weight_decay"] == 0 for group in made.param_groups)
    (plain,) = optim.optimizers(model, Train(optimizer="sgd", momentum=0.0))
    assert not plain.param_groups[0]["nesterov"]


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = []
    for made in optim.optimizers(model, Train(optimizer="muon", weight_decay=0.1, layer_decay=0.5)):
        taken.append([names[id(p)] for group in made.param_groups for p in group["params"]])
        optim.set_learning_rate(made, 0.5)
        assert all(group["lr"] == 0.5 * group["scale"] for group in made.param_groups)
        assert {group["scale"] for group in made.param_groups} <= {0.5**level for level in range(4)}
    muon, adamw = taken
    assert sorted(muon + adamw) == sorted(names.values())
    assert muon
    assert all(".blocks." in name and name.endswith("weight") and "norm" not in name for name in muon)
    assert not any(".blocks." in name and name.endswith(("proj.weight", "fc1.weight")) for name in adamw)


def test_clipping_scales_the_whole_gradient_and_reports_its_norm_before():
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (2, 1, 1)]  # the last has no gradient
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert optim.gradient_norm(parameters, 0.0) == 5
    assert parameters[1].grad == 4
    assert optim.gradient_norm(parameters, 1.0) == 5
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]), atol=1e-5, rtol=0)
