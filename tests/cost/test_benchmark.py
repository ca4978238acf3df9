"""Proves that `segmenter benchmark` says what every stage costs, in numbers that fit each other; never how fast."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from segmenter.cost import measuring
from segmenter.cost.benchmark import WORKLOADS, benchmark
from segmenter.cost.benchmark_report import CostReport
from segmenter.cost.measuring import PeakMemory, Spread, counted_flops, extra_memory, matmul_peak
from segmenter.cost.stages import LEAST, Measured, Stage, Stages, Workload
from segmenter.cost.step_cost import training_step
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")
INFERENCE = ["decode", "preprocess", "encoder", "decoder", "pixels", "all"]
TRAINING = [*INFERENCE[:-1], "backward", "optimizer", "all"]
QUICK = {"size": (64, 96), "batch": 2, "seconds": 0.0}
CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_recipe):
    """Makes a small model with a decoder."""

    def make(decoder: str = "linear") -> Segmenter:
        torch.manual_seed(0)
        recipe = tiny_recipe(
            "", decoder={"name": decoder} | ({"width": 16} if decoder.startswith(("setr", "dpt")) else {})
        )
        return Segmenter(recipe, Classes(("a", "b", "c"), default_colors(3))).eval()

    return make


def test_the_table_has_every_stage_of_every_way(disc_run, command):
    told = command("benchmark", disc_run, "--size", 64, 96, "--batch", 2, "--seconds", 0)
    assert told.status == 0
    head, *parts = told.out.split("\n\n")
    assert "vit_tiny_patch16_224 + linear, 3 classes" in head
    assert "GFLOP/s in fp32" in head
    tables = [part.splitlines() for part in parts[:-1]]
    assert [lines[0].split(":")[0] for lines in tables] == [*WORKLOADS, "training"]
    for lines in tables:
        assert lines[0].endswith("images/s")
        names = [line.split()[0] for line in lines[2:]]
        assert names == (TRAINING if lines[0].startswith("training") else INFERENCE)
        assert len({len(line) for line in lines[1:]}) == 1  # columns end below each other
    assert parts[-1].startswith("MiB:")


def test_columns_end_below_each_other_whatever_was_measured(model):
    stages = [
        Stage("decode", Spread(1e-6, 1e-6, 1e-6), 0.0, 0.0),
        Stage("preprocess, which takes its time", Spread(123456.0, 98765.0, 234567.0), 3e15, 4e20),
        Stage("encoder", Spread(0.1, 0.05, 0.2), math.nan, 1e9),  # memory that the system does not tell
    ]
    found = Measured("single", Workload("64 x 64", 1, lambda _: None, torch.float16), stages[:-1], stages[-1])
    report = CostReport(model(), CPU, {torch.float16: 1.0}, [found])
    lines = report.table().split("\n\n")[1].splitlines()
    assert lines[0] == "single: 64 x 64, fp16, 10 images/s"
    assert lines[1].split() == ["ms,", "median", "(quarters)", "MiB", "GFLOP", "of", "peak"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert len({line.rindex(")") for line in lines[3:]}) == 1
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ways"][0]["stages"][-1]["memory"] is None


def test_the_numbers_fit_each_other(disc_run, command):
    told = command("benchmark", disc_run, "--size", 64, 96, "--batch", 2, "--seconds", 0, "--json")
    found = json.loads(told.out)
    assert found["matmul_flops_per_second"]["fp32"] > 0
    assert found["classes"] == 3
    assert [way["name"] for way in found["ways"]] == [*WORKLOADS, "training"]
    assert [way["images"] for way in found["ways"]] == [1, 2, 1, 1, 2]
    for way in found["ways"]:
        *stages, whole = way["stages"]
        for stage in way["stages"]:
            seconds = stage["seconds"]
            assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
            assert stage["memory"] >= 0
            share = stage["flops"] / seconds["median"] / found["matmul_flops_per_second"][way["precision"]]
            assert stage["share_of_peak"] == pytest.approx(share)
        assert whole["flops"] == sum(stage["flops"] for stage in stages) > 0
        assert whole["memory"] == max(stage["memory"] for stage in stages)
        assert way["images_per_second"] == pytest.approx(way["images"] / whole["seconds"]["median"])
    operations = [{stage["name"]: stage["flops"] for stage in way["stages"]} for way in found["ways"]]
    single, batch, _, multiscale, training = operations
    assert batch["encoder"] == 2 * single["encoder"]
    assert multiscale["encoder"] > 12 * 0.2 * single["encoder"]
    assert training["encoder"] == 2 * single["encoder"]
    assert training["backward"] > 1.5 * training["encoder"]


def test_operations_of_attention_are_counted(model):
    report = benchmark(model(), {"single": WORKLOADS["single"]}, **QUICK)
    tokens, width, patches = 1 + 64, 48, 64
    block = 2 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    (encoder,) = (stage for stage in report.measured[0].stages if stage.name == "encoder")
    assert encoder.flops == 2 * block + 2 * patches * (3 * 8 * 8) * width


@pytest.mark.parametrize("decoder", ["mask_transformer", "setr_pup", "setr_mla", "dpt", "dpt_depth"])
def test_models_of_every_decoder(model, decoder):
    network = model(decoder)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recipe = network.recipe
    workloads = {"single": WORKLOADS["single"], "training": training_step}
    if decoder == "dpt_depth":
        workloads |= WORKLOADS  # windows and scales are left out
    report = benchmark(network, workloads, **QUICK)
    assert [one.name for one in report.measured] == ["single", "training"]
    for one in report.measured:
        assert [stage.name for stage in one.stages] == (TRAINING if one.name == "training" else INFERENCE)[:-1]
        assert all(stage.flops > 0 for stage in one.stages if stage.name in ("encoder", "decoder", "backward"))
    # Nothing is left behind: neither an update, nor a hook, nor another recipe.
    assert network.recipe is recipe
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_photo_of_ones_own(disc_run, command, tmp_path):
    Image.fromarray(np.zeros((40, 70, 3), np.uint8)).save(tmp_path / "photo.png")
    options = ("--only", "windows", "--seconds", 0, "--json")
    told = command("benchmark", disc_run, "--image", tmp_path / "photo.png", *options)
    assert [(way["name"], way["about"]) for way in json.loads(told.out)["ways"]] == [("windows", "40 x 70")]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_what_cannot_be_measured_is_said(disc_run, command, model, monkeypatch):
    told = command("benchmark", disc_run, "--size", 20, 96)
    assert (told.status, told.err.splitlines()[-1]) == (
        1,
        "segmenter: size is 20 96; write a value from 32 to 8192",
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = command("benchmark", disc_run, "--device", "cuda")
    assert told.status == 1
    assert told.err.endswith("there is no CUDA device here for --device cuda; write --device cpu\n")
    with pytest.raises(UserError, match="takes photos whole and at one scale; choose single or training"):
        benchmark(model("dpt_depth"), {"windows": WORKLOADS["windows"]}, **QUICK)
    with pytest.raises(UserError, match=r"nothing.png does not exist"):
        benchmark(model(), WORKLOADS, image="nothing.png")


# ---- the instruments


def test_a_stage_that_is_entered_again_is_summed():
    clock = iter([0, 10, 1, 5, 2, 20, 0])
    stages = Stages(CPU, lambda: next(clock), lambda since: next(clock) - since)
    for name in ("a", "b", "a", None):
        stages.enter(name)
    assert stages.costs == {"a": (10 - 0) + (20 - 2), "b": 5 - 1}


def test_the_spread_is_median_and_quarters():
    assert Spread.of([3.0]) == (3, 3, 3)
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == (3, 2, 4)
    assert str(Spread.of([0.0012345, 1234.5])) == "617 (309 to 926)"


@pytest.mark.skipif(not measuring.RESET.exists(), reason="only Linux tells the largest resident memory since a moment")
def test_memory_is_what_a_call_takes_at_most():
    size = 64 * 2**20
    found = extra_memory(lambda: [np.ones(size, np.uint8).sum() for _ in range(3)], CPU)  # one after the other
    assert size / 2 < found < 2 * size  # one at most, though none is left; the rest of the process does as it likes
    kept = np.ones(size, np.uint8)
    assert extra_memory(lambda: kept.sum(), CPU) < size / 2


def test_memory_is_the_most_above_what_was_in_use(monkeypatch, tmp_path):
    """What the system tells, and what is made of it."""
    status, reset = tmp_path / "status", tmp_path / "clear_refs"
    monkeypatch.setattr(measuring, "STATUS", status)
    monkeypatch.setattr(measuring, "RESET", reset)
    assert math.isnan(extra_memory(lambda: None, CPU))
    assert math.isnan(PeakMemory(torch.device("mps")).largest())
    most = iter([700, 900])
    reset.touch()
    in_use = "Name: python\nVmHWM: {} kB\nVmRSS: 500 kB\n"
    assert extra_memory(lambda: status.write_text(in_use.format(next(most))), CPU) == 1024 * (900 - 500)
    assert reset.read_text() == "5"


def test_operations_are_counted_with_fused_attention_taken_apart():
    q = torch.randn(1, 2, 10, 8)
    with counted_flops() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * (2 * 2 * 10 * 10 * 8)


def test_matrix_products_have_a_peak():
    assert math.isfinite(matmul_peak(CPU, torch.float32))
    assert LEAST > 1
