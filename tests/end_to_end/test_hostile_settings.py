"""Proves that settings out of every range, wherever they come from, end in a sentence before anything is allocated."""

import json
import shutil

import pytest
import yaml

from segmenter import recipes


def assert_told(told, *words: str) -> None:
    """One bounded sentence with these words."""
    assert told.status in (1, 2), told
    assert "Traceback" not in told.err
    message = told.err[told.err.index("segmenter: ") :] if "segmenter: " in told.err else told.err
    assert len(message) < 700
    assert all(character.isprintable() or character == "\n" for character in message)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("network.image_size", [0, 64], "augment.crop is 0 64"),
        ("network.image_size", [-8, 64], "augment.crop is -8 64"),
        ("network.image_size", [10**7, 64], "augment.crop is 10000000 64"),
        ("network.encoder.depth", 10**5, "encoder.depth is 100000; write a value from 1 to 1000"),
        ("network.encoder.depth", 10**9, "encoder.depth is 1000000000"),
        ("network.encoder.width", 65535, "the model has"),  # nothing of 65535 x 196605 is allocated
        ("network.encoder.heads", 7, "dim should be divisible by num_heads"),
        ("network.encoder.patch_size", float("nan"), "encoder.patch_size is nan"),
        ("network.encoder.name", 5, "encoder.name is 5"),
        ("network.decoder", {"name": "mask_transformer", "layers": 10**6}, "decoder.layers is 1000000"),
        ("network.decoder", {"name": ["linear"]}, "decoder.name is ['linear']"),
        ("use.short_side", 10**6, "augment.short_side is 1000000"),
        ("use.short_side", 0, "augment.short_side is 0"),
        ("use.max_ratio", float("nan"), "augment.max_ratio is nan"),
        ("use.max_ratio", float("inf"), "augment.max_ratio is inf"),
        ("use.window", [0, 8], "inference.window is 0 8"),
        ("use.stride", [0, 8], "inference.stride is 0 8"),
        ("use.stride", [65, 65], "pixels between the windows would be left out"),
        ("use.batch", 10**9, "inference.batch is 1000000000; write a value from 1 to 65536"),
        ("use.batch", 0, "inference.batch is 0"),
        ("mean", [float("nan")] * 3, "mean and std must be finite"),
        ("mean", ["0", "0", "0"], "mean and std must hold 3 numbers each"),
        ("std", [0, 0, 0], "std above 0"),
        ("classes.names", [1, 2, 3], "a class has the name 1"),
        ("classes.names", ["a\x1b[2J", "b", "c"], "a class has the name 'a\\x1b[2J'"),
        ("classes.names", [], "the names of the classes are []"),
        ("classes.colors", [[0], [1], [2]], "the colors of the classes are [[0], [1], [2]]"),
        ("classes.colors", [[0, 0, 256]] * 3, "the colors of the classes are"),
        ("classes.values", [[1, 9]], "the values of the classes are [[1, 9]]"),
        ("classes.values", [[2**40, 1]], "the values of the classes are"),
        ("format", [2], "has format [2]"),
    ],
)
def test_a_config_json_out_of_range(disc_run, discs, command, tmp_path, place, value, words):
    run = shutil.copytree(disc_run, tmp_path / "run")
    about = json.loads((run / "config.json").read_text())
    *groups, key = place.split(".")
    found = about
    for group in groups:
        found = found[group]
    found[key] = value
    (run / "config.json").write_text(json.dumps(about))
    assert_told(command("predict", run, discs / "test" / "images", "--out", tmp_path / "out"), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 2, "format": 1}', "the key 'format' stands there twice (lines 1, 1)"),
        ("[" * 10**5, "it has more than 64 levels"),
        ('{"format": ' + "9" * 4000 + "}", "has more than 64 bits"),
    ],
)
def test_a_config_json_that_is_none(disc_run, discs, command, tmp_path, content, words):
    run = shutil.copytree(disc_run, tmp_path / "run")
    (run / "config.json").write_text(content)
    assert_told(command("evaluate", run, discs), "config.json is damaged (", words)


def test_windows_without_number(disc_run, discs, command, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    about = json.loads((run / "config.json").read_text())
    about["use"] |= {"window": [8, 8], "stride": [1, 1], "short_side": 200}
    (run / "config.json").write_text(json.dumps(about))
    words = ("has 37249 windows of 8 x 8, one every 1 x 1 pixels", "at most 16384 are taken", "larger inference.stride")
    assert_told(command("predict", run, discs / "test" / "images", "--out", tmp_path / "out"), *words)
    about["use"] |= {"window": [512, 512], "stride": [512, 512], "short_side": 65536}
    (run / "config.json").write_text(json.dumps(about))
    told = command("predict", run, discs / "test" / "images", "--out", tmp_path / "out")
    assert_told(told, "an image would be resized to 65536 x 65536 pixels", "smaller augment.short_side")


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("train.seed", "9" * 23, "train.seed is 99999999999999999999999; write a value from 0 to less than"),
        ("train.batch", "1000000000", "train.batch is 1000000000; write a value from 1 to 65536"),
        ("train.accumulate", "1000000000", "train.accumulate is 1000000000"),
        ("train.threads", "1000000", "train.threads is 1000000"),
        ("train.workers", "100000", "train.workers is 100000"),
        ("encoder.depth", "100000", "encoder.depth is 100000"),
        ("decoder.layers", "1000000", "decoder.layers is 1000000"),
        ("data.map", "99999999999999999999:0", "data.map holds '99999999999999999999:0'; write `from:to`"),
        ("data.map", "9999999999:0", "data.map holds 9999999999; masks hold values from 0 to"),
    ],
)
def test_a_command_line_out_of_range(discs, tiny_recipe, recipe_file, command, tmp_path, setting, value, words):
    path = recipe_file(tiny_recipe(discs))
    told = command("train", "--config", path, "--out", tmp_path / "run", f"--{setting}", value)
    assert_told(told, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {lr: 0.1}\ntrain: {lr: 0.2}", "line 2: the key train stands there twice"),
        ("train: {lr: 2001-99-99}", "train.lr is '2001-99-99'"),
        ("train: {seed: 0b_}", "'0b_' is no number"),
        ("[" * 5000, "is not valid YAML: line 1"),
        ("a: &a [x, x]\n" + "".join(f"b{i}: &a [*a, *a]\n" for i in range(40)), "is not valid YAML"),
        ("base: {a: 1}", "base is {'a': 1}"),
        ('"\\e[2Jx": 1', "unknown setting \\x1b[2Jx"),
        ("decoder: {name: {a: [1, 2]}}", "decoder.name is {'a': [1, 2]}"),
        ("format: 1\ndecoder: {name: [a], layout: b}", "decoder.name is ['a']"),
    ],
    ids=lambda value: value[:12],
)
def test_a_recipe_of_odd_yaml(command, tmp_path, text, words):
    (tmp_path / "odd.yaml").write_text(text)
    assert_told(command("train", "--config", tmp_path / "odd.yaml", "--out", tmp_path / "run"), words)


def test_recipes_that_are_built_on_each_other_many_times_are_read_once_each(tmp_path):
    (tmp_path / "r0").write_text("train: {lr: 0.5}")
    for i in range(1, 30):
        (tmp_path / f"r{i}").write_text(f"base: [r{i - 1}, r{i - 1}]")
    assert recipes.read(str(tmp_path / "r29")).train.lr == 0.5


def test_a_file_of_secrets_is_not_shown(command, tmp_path):
    secrets = "".join(f"user{i}:$6$saltsaltsaltsalt{i}$hash{i}:19000:0:99999:7:::\n" for i in range(50))
    for text in (secrets, yaml.safe_dump({"key" * 100: secrets}), secrets.replace(":", ": ")):
        (tmp_path / "shadow").write_text(text)
        told = command("train", "--config", tmp_path / "shadow", "--out", tmp_path / "run")
        assert_told(told)
        assert "hash0" not in told.err
        assert "hash7" not in told.err


def test_names_that_no_file_can_have(command, tmp_path, discs):
    name = "n" * 300
    for arguments in (("evaluate", name, discs), ("train", "--config", name, "--out", tmp_path / "run")):
        assert_told(command(*arguments), name[:60])
    assert_told(command("check", name), name[:60])
