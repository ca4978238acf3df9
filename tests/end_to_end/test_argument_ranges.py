"""Proves that numbers outside their range are refused with one sentence, before work, from Python and the command."""

import dataclasses
import math

import pytest

import segmenter
from segmenter import config, ranges
from segmenter.cost.benchmark import WORKLOADS, benchmark
from segmenter.errors import UserError

WRONG = [
    ("benchmark", "--batch", "0", "batch is 0; write a value from 1 to 4096"),
    ("benchmark", "--batch", "1000000000", "batch is 1000000000; write a value from 1 to 4096"),
    ("benchmark", "--seconds", "nan", "seconds is nan; write a value from 0 to 86400"),
    ("benchmark", "--seconds", "inf", "seconds is inf; write a value from 0 to 86400"),
    ("benchmark", "--seconds", "-1", "seconds is -1.0; write a value from 0 to 86400"),
    ("benchmark", "--size", "0", "0", "size is 0 0; write a value from 32 to 8192"),
    ("benchmark", "--size", "1000000000", "1000000000", "size is 1000000000 1000000000; write a value from 32 to 8192"),
    ("evaluate", "--workers", "-1", "workers is -1; write a value from 0 to 1000"),
    ("evaluate", "--workers", "100000", "workers is 100000; write a value from 0 to 1000"),
    ("evaluate", "--data.split-seed", "-1", "data.split_seed is -1; write a value from 0 to less than"),
    ("evaluate", "--data.depth-scale", "nan", "data.depth_scale is nan; write a value from 0 to 1e+37"),
    ("check", "--data.split-seed", "-1", "data.split_seed is -1; write a value from 0 to less than"),
    ("check", "--data.split-seed", "9" * 23, "write a value from 0 to less than"),
    ("check", "--data.depth-scale", "-inf", "data.depth_scale is -inf; write a value from 0 to 1e+37"),
]


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words[:3]))
def test_the_command_refuses_a_number_before_it_opens_anything(words, command, tmp_path):
    """There is neither a model nor data: that is not what is complained of."""
    verb, *options, expected = words
    model = [] if verb == "check" else [tmp_path / "model"]
    data = [] if verb == "benchmark" else [tmp_path / "data"]
    told = command(verb, *model, *data, *options)
    assert told.status == 1
    assert told.out == ""
    assert told.err.startswith("segmenter: ")
    assert expected in told.err
    assert len(told.err.splitlines()) == 1
    assert len(told.err) < 600


@pytest.mark.parametrize("value", ["fp64", "", "bf16 "])
@pytest.mark.parametrize("verb", ["evaluate", "predict", "benchmark"])
def test_an_unknown_precision_is_wrong_use(verb, value, command, tmp_path):
    rest = {"evaluate": ["data"], "predict": ["a.png", "--out", tmp_path], "benchmark": []}[verb]
    told = command(verb, tmp_path / "model", *rest, "--precision", value)
    assert told.status == 2
    assert "Traceback" not in told.err


def test_python_refuses_the_same(discs):
    tiny = segmenter.create("vit_tiny_patch16_224", "linear", classes=3, image_size=64)
    photo = discs / "test/images/test0.png"
    result = segmenter.predict(tiny, photo)
    for call, expected in [
        (lambda: benchmark(tiny, WORKLOADS, batch=0), "batch is 0; write a value from 1 to 4096"),
        (lambda: benchmark(tiny, WORKLOADS, seconds=math.nan), "seconds is nan; write"),
        (lambda: benchmark(tiny, WORKLOADS, size=(10**9, 64)), "size is 1000000000 64; write"),
        (lambda: benchmark(tiny, WORKLOADS, batch="many"), "batch is 'many'; write"),
        (lambda: benchmark(tiny, WORKLOADS, batch=1.5), "batch is 1.5; write"),
        (lambda: benchmark(tiny, WORKLOADS, batch=10**5000), "batch is a number of "),
        (lambda: segmenter.evaluate(tiny, discs, workers=-1), "workers is -1; write a value from 0 to 1000"),
        (lambda: segmenter.overlay(photo, result, opacity=math.nan), "opacity is nan; write a value from 0 to 1"),
        (lambda: segmenter.create("vit_tiny_patch16_224", classes=0), "classes is 0; write a value from 1 to 65535"),
        (lambda: segmenter.create("vit_tiny_patch16_224", classes=10**9), "classes is 1000000000; write"),
        (lambda: segmenter.create("vit_tiny_patch16_224", image_size=0), "image_size is 0; write a value from 1 to"),
        (lambda: segmenter.create("vit_tiny_patch16_224", image_size=(64, -8)), "image_size is 64 -8; write a value"),
        (
            lambda: segmenter.predict(tiny, photo, inference=config.Inference(window=(0, 0))),
            "inference.window is 0 0; write a value from 1 to",
        ),
    ]:
        with pytest.raises(UserError) as error:
            call()
        assert str(error.value).startswith(expected)
        assert len(str(error.value)) < 600


def test_every_setting_with_a_range_is_checked_wherever_it_comes_from():
    """The same types stand on the fields: an object made in Python is refused as a recipe's text is."""
    recipe = config.Recipe()
    assert ranges.refuse_outside(recipe, config.Recipe, "") is None
    for group in dataclasses.fields(recipe):
        settings = getattr(recipe, group.name)
        for field in dataclasses.fields(settings):
            try:
                ranges.of_field(type(settings), field.name)
            except KeyError:
                continue
            wrong = dataclasses.replace(settings, **{field.name: math.nan})
            with pytest.raises(UserError, match=rf"^{group.name}\.{field.name} is nan; write a value"):
                ranges.refuse_outside(dataclasses.replace(recipe, **{group.name: wrong}), config.Recipe, "")
