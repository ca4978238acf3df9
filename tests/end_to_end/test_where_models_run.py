"""Proves that every verb runs its model where --device says, and in the precision that --precision says."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import segmenter
from segmenter import cli, demo
from segmenter.cost import measuring
from segmenter.data.depth_data import DEPTH_CLASSES
from segmenter.data.layouts import open_labels
from segmenter.evaluation.evaluate import evaluate
from segmenter.inference.windows import window_logits
from segmenter.model.segmenter import Segmenter
from segmenter.training import loop
from segmenter.training.objective import OBJECTIVES

MPS, META = torch.device("mps"), torch.device("meta")


@pytest.fixture
def moved(monkeypatch) -> list[torch.device]:
    """A machine that says it has MPS; where models were to be moved, which stay on the CPU."""
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(Segmenter, "to", lambda self, device: devices.append(device) or self)
    return devices


@pytest.fixture
def photo(tmp_path, draw):
    """A picture of discs."""
    path = tmp_path / "photo.png"
    Image.fromarray(draw(np.random.default_rng(3), (96, 128))[0]).save(path)
    return path


@pytest.mark.parametrize("chosen", [(), ("--device", "mps"), ("--device", "cpu")])
@pytest.mark.parametrize("verb", ["evaluate", "predict", "benchmark"])
def test_a_model_runs_where_it_is_told_to(verb, chosen, moved, disc_run, discs, photo, tmp_path, command):
    quick = ("--only", "single", "--seconds", 0, "--size", 64, 96)
    rest = {"evaluate": (discs, "--workers", 0), "predict": (photo, "--out", tmp_path / "out"), "benchmark": quick}
    told = command(verb, disc_run, *rest[verb], *chosen)
    assert told.status == 0, told.err
    assert moved == [torch.device(chosen[1] if chosen else "mps")]  # the best there is, unless another is named


@pytest.mark.parametrize("verb", ["train", "resume", "evaluate", "predict", "benchmark", "demo"])
def test_a_device_that_is_not_there(verb, disc_run, discs, photo, tmp_path, command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = ("--out", tmp_path / "out")
    words = {
        "train": ("--data.root", discs, *out),
        "resume": (disc_run,),
        "evaluate": (disc_run, discs),
        "predict": (disc_run, photo, *out),
        "benchmark": (disc_run,),
        "demo": out,
    }
    told = command(verb, *words[verb], "--device", "cuda:1")
    assert told.status == 1
    assert told.err == "segmenter: there is no CUDA device here for --device cuda:1; write --device cpu\n"
    assert not (tmp_path / "out").exists()


def test_trainings_run_where_they_are_told_to(moved, discs, disc_run, tmp_path, tiny_recipe, recipe_file, monkeypatch):
    class Reached(Exception):
        pass

    def reach(*arguments):
        raise Reached(arguments[-1])

    monkeypatch.setattr(loop, "Run", reach)
    recipe = recipe_file(tiny_recipe(discs))
    train = ["train", "--config", str(recipe), "--out", str(tmp_path / "out")]
    for words, device in (
        (train, "mps"),
        ([*train, "--device", "cpu"], "cpu"),
        (["resume", str(disc_run), "--device", "mps"], "mps"),
        (["resume", str(disc_run), "--device", "cpu"], "cpu"),
    ):
        with pytest.raises(Reached) as reached:
            cli.main(words)
        assert reached.value.args == (torch.device(device),)


def test_the_demo_trains_and_scores_on_its_device(monkeypatch, tmp_path):
    used = []

    def used_on(*arguments):
        used.append(arguments[-1])
        if len(used) == 2:
            raise KeyboardInterrupt  # enough

    monkeypatch.setattr(demo, "train", used_on)
    monkeypatch.setattr(demo, "load", used_on)
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--device", "cpu"]) == 1
    assert used == ["cpu", "cpu"]


def test_a_run_holds_all_it_trains_on_its_device(discs, tmp_path, tiny_recipe):
    recipe = tiny_recipe(discs, ema=0.9, optimizer="adamw")
    objective = OBJECTIVES[recipe.task]
    data = open_labels(recipe.data)
    run = loop.Run(recipe, tmp_path, data, Segmenter(recipe, data.classes), objective(recipe, data), META)
    trained = [p for optimizer in run.optimizers for group in optimizer.param_groups for p in group["params"]]
    for parameter in (*run.model.parameters(), *run.network.parameters(), *run.averaged.parameters(), *trained):
        assert parameter.device == META


def test_images_follow_the_model(disc_run):
    model = segmenter.load(disc_run).to(META)
    logits, geometry = window_logits(model, torch.zeros(3, 96, 128, dtype=torch.uint8), model.recipe.inference)
    assert logits.device == META
    assert len(logits) == geometry.window_count > 1


@pytest.mark.parametrize("decoder", ["mask_transformer", "dpt"])
def test_nothing_needs_float64(decoder, discs, tmp_path, tiny_recipe, photo, no_float64):
    """Training, its validation, scoring and predicting, at one scale and at many."""
    encoder = {"depth": 4, "patch_size": 16}
    recipe = tiny_recipe(
        discs, {"name": decoder} | ({"width": 8} if decoder == "dpt" else {}), encoder, steps=2, clip=1.0, ema=0.9
    )
    with no_float64():
        loop.train(recipe, tmp_path / "run")
        model = segmenter.load(tmp_path / "run")
        evaluate(model, open_labels(recipe.data).split("test"), multiscale=True)
        for multiscale in (False, True):
            segmenter.predict(model, photo, multiscale).probabilities()


# ---- precision


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_labels(disc_run, photo, dtype, multiscale):
    full, half = segmenter.load(disc_run), segmenter.load(disc_run, precision="bf16")
    assert half.precision == torch.bfloat16
    half.precision = dtype  # float16 would be refused on the CPU, where it is slow
    used = []
    half.encoder.vit.blocks[0].mlp.fc1.register_forward_hook(lambda module, given, out: used.append(out.dtype))
    exact, found = (segmenter.predict(model, photo, multiscale) for model in (full, half))
    assert set(used) == {dtype}
    assert len(np.unique(exact.labels)) > 1
    assert agreement(found.labels, exact.labels) >= 0.98
    # Where the classes are not close to each other, all of them.
    best, second = np.sort(exact.probabilities(), 0)[:-3:-1]
    assert np.array_equal(found.labels[best - second > 0.1], exact.labels[best - second > 0.1])
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())


def test_scores_in_half_precision_and_fp32_after_it(disc_run, discs, command, photo):
    scores = {}
    for precision in ("fp32", "bf16"):
        told = command("evaluate", disc_run, discs, "--workers", 0, "--precision", precision, "--json")
        assert told.status == 0
        scores[precision] = json.loads(told.out)["pixel_accuracy"]
    assert scores["bf16"] == pytest.approx(scores["fp32"], abs=0.02)
    model = segmenter.load(disc_run)
    before = segmenter.predict(model, photo).probabilities()
    model.precision = torch.bfloat16
    half = segmenter.predict(model, photo).probabilities()
    model.precision = torch.float32  # nothing that was made in bf16 is kept
    assert not np.array_equal(half, before)
    assert np.array_equal(segmenter.predict(model, photo).probabilities(), before)


def test_depth_in_half_precision(tiny_recipe, photo):
    torch.manual_seed(0)
    recipe = tiny_recipe("", {"name": "dpt_depth", "width": 8}, {"depth": 4, "patch_size": 16})
    model = Segmenter(recipe, DEPTH_CLASSES).eval()
    exact = segmenter.predict(model, photo).depth
    model.precision = torch.bfloat16
    found = segmenter.predict(model, photo).depth
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.03 * np.abs(exact).max()


def test_what_was_measured_in_half_precision_says_so(disc_run, command, monkeypatch):
    monkeypatch.setitem(measuring.MATMUL_SIDES, "cpu", 64)  # without such instructions, seconds for a large one
    words = ("--only", "single", "--size", 64, 96, "--seconds", 0, "--json", "--precision", "bf16")
    found = json.loads(command("benchmark", disc_run, *words).out)
    assert [way["precision"] for way in found["ways"]] == ["bf16"]
    assert set(found["matmul_flops_per_second"]) == {"fp32", "bf16"}
