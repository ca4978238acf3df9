"""Proves that the command does what its verbs say, answers --help at once and suggests what was meant."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.published.loading import load

COMMAND = str(Path(sys.executable).parent / "segmenter")
DATA = tuple(f"--data.{field.name.replace('_', '-')}" for field in fields(Data) if field.name != "root")
OPTIONS = {
    "train": ("--out", "--config", "--device", "--report", "--data.root", "--augment.crop", "--encoder.name",
              "--decoder.layers", "--train.lr", "--train.class-weights", "--inference.window"),
    "check": ("--task", "--model", "--split", "--out", "--overwrite", "--device", *DATA),
    "resume": ("--device", "--report"),
    "evaluate": ("--split", "--multiscale", "--native", "--preset", *DATA, "--alignment", "--device", "--precision",
                 "--workers", "--out", "--overwrite", "--areas", "--boundary", "--json"),
    "predict": ("--out", "--multiscale", "--native", "--preset", "--overlays", "--confidence", "--format",
                "--overwrite", "--device", "--precision", "--json"),
    "calibrate": ("--split", "--multiscale", "--native", "--preset", *DATA, "--device", "--workers", "--json"),
    "explain": ("--out", "--at", "--class", "--layers", "--native", "--published", "--area", "--classes", "--overwrite",
                "--device", "--json"),
    "report": ("--out", "--data", "--split", "--device", "--workers"),
    "benchmark": ("--image", "--size", "--batch", "--only", "--device", "--precision", "--seconds", "--json"),
    "prepare": ("DATASET", "ROOT", "cityscapes"),
    "demo": ("--out", "--device"),
    "convert": ("--out", "--layout"),
    "models": ("--json",),
}  # fmt: skip
VERBS = tuple(OPTIONS)


def started(*arguments: object, environment: dict[str, str], **options) -> subprocess.Popen:
    """The installed command, running."""
    words = [COMMAND, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment, **options)


def test_from_a_folder_to_labels(tmp_path, discs, tiny_recipe, recipe_file, command):
    """All verbs on one small folder."""
    recipe = recipe_file(tiny_recipe("", decoder={"name": "linear"}, steps=20, batch=6, lr=1e-2))
    run = tmp_path / "run"

    told = command("check", discs)
    assert told.status == 0
    assert "ground" in told.out

    told = command("train", "--config", recipe, "--data.root", discs, "--out", run, "--train.steps", 12)
    assert told.status == 0
    assert re.fullmatch(rf"best val mIoU 0\.\d{{4}}; the model is {re.escape(str(run))}\n", told.out)
    assert "12/12" in told.err
    assert "arning" not in told.err
    assert "images/s" in told.err
    assert load(run).recipe.train.steps == 12
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12
    assert {"loss", "lr", "images_per_second"} <= lines[0].keys()

    told = command("resume", run)
    assert told.status == 0
    assert told.out.startswith("best val mIoU 0.")

    told = command("evaluate", run, discs, "--workers", 0)
    assert told.status == 0
    assert [line.split()[0] for line in told.out.splitlines()] == ["class", "ground", "red", "blue", "mean"]
    options = ("--split", "val", "--multiscale", "--native", "--json", "--workers", 0)
    told = command("evaluate", run, discs, *options)
    assert told.status == 0
    scores = json.loads(told.out)
    assert [row["name"] for row in scores["classes"]] == ["ground", "red", "blue"]
    assert 0 <= scores["mean_iou"] <= scores["pixel_accuracy"] <= 1

    photos = discs / "test" / "images"
    out = tmp_path / "out"
    told = command("predict", run, photos / "test0.png", photos / "*1.png", "--out", out, "--json")
    assert told.status == 0
    written = json.loads(told.out)
    assert [Path(entry["image"]).name for entry in written] == ["test0.png", "test1.png"]
    assert all(Path(entry["labels"]).is_file() and Path(entry["overlay"]).is_file() for entry in written)
    told = command("predict", run, photos, "--out", tmp_path / "plain", "--no-overlays")
    assert told.status == 0
    assert told.out == f"2 images: {tmp_path / 'plain' / 'labels'}\n"
    one, two = (folder / "labels" / "test0.png" for folder in (out, tmp_path / "plain"))
    assert np.array_equal(np.array(Image.open(one)), np.array(Image.open(two)))


def test_models_lists_what_there_is_to_choose_from(command):
    told = command("models")
    assert told.status == 0
    for name in ("mask_transformer", "finetune", "vit_small_patch16_384", "seg-tiny-mask-ade20k-openmmlab", "ffcf7509"):
        assert name in told.out
    assert "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/ade20k/seg_tiny_mask/\n" in told.out
    assert max(map(len, told.out.splitlines())) <= 120


def test_models_of_one_form(command):
    told = command("models", "vit_small_patch1?_384*")
    assert told.status == 0
    assert "vit_small_patch16_384\n" in told.out
    assert "vit_tiny" not in told.out
    assert "finetune" not in told.out
    found = json.loads(command("models", "seg-large-mask-*", "--json").out)
    assert not found["encoders"]
    assert {model["name"] for model in found["published"]} > {"seg-large-mask-cityscapes"}
    file = next(m["files"] for m in found["published"] if m["name"].endswith("openmmlab"))[0]
    assert file["sha256"] == "7ef345be"
    assert file["address"].endswith("_20220105_162750-7ef345be.pth")
    told = command("models", "resnet*")
    assert told.status == 1
    assert "the name of no encoder, recipe or published model matches 'resnet*'; try" in told.err


def test_settings_of_the_command_line_go_above_those_of_the_recipe(command, tiny_recipe, recipe_file):
    path = recipe_file(tiny_recipe("", steps=77, lr=0.125))
    for option in (("--config", path), (f"--config={path}",)):
        told = command("train", *option, "--help")
        assert told.status == 0
        assert "(default: 77)" in told.out
        assert "(default: 0.125)" in told.out


def test_what_check_advises_is_taken_by_every_verb(disc_folder, disc_run, tiny_recipe, recipe_file, command):
    """The words that it writes, as they are, behind `check`, `evaluate` and `train`."""
    root = disc_folder()
    for mask in root.glob("*/masks/*.png"):
        labels = np.array(Image.open(mask))
        labels[:3] = 7
        Image.fromarray(labels).save(mask)
    told = command("check", root)
    assert told.status == 1
    advised = re.search(r"--data\.map \S+", told.err)[0].split()
    assert advised == ["--data.map", "7:255"]
    told = command("check", root, *advised)
    assert told.status == 0, told.err
    assert command("evaluate", disc_run, root, "--workers", 0, *advised).status == 0
    recipe = recipe_file(tiny_recipe(root, {"name": "linear"}, steps=1))
    assert command("train", "--config", recipe, "--out", root / "run", *advised).status == 0


def test_the_root_is_told_once(discs, disc_run, command):
    for words in (("check", discs), ("evaluate", disc_run, discs)):
        told = command(*words, "--data.root", discs)
        assert told.status == 2
        assert "--data.root" in told.err


def test_a_model_is_scored_on_the_split_that_it_was_trained_with(tmp_path, discs, tiny_recipe, recipe_file, command):
    """A flat folder is split by a seed; with another one, images of the training would be scored."""
    flat = tmp_path / "flat"
    for kind in ("images", "masks"):
        (flat / kind).mkdir(parents=True)
        for path in discs.glob(f"*/{kind}/*.png"):
            for copy in range(4):
                shutil.copy(path, flat / kind / f"{path.stem}-{copy}.png")
    shutil.copy(discs / "classes.yaml", flat)
    seeds = (0, 1, 2)
    tests = [{sample.name for sample in open_labels(Data(str(flat), split_seed=seed)).split("test")} for seed in seeds]
    assert tests[0] != tests[1] != tests[2]
    recipe = recipe_file(tiny_recipe(flat, {"name": "linear"}, steps=1))
    command("train", "--config", recipe, "--data.split-seed", 1, "--out", tmp_path / "run")
    scores = [
        command("evaluate", tmp_path / "run", flat, "--workers", 0, "--json", *words).out
        for words in ((), ("--data.split-seed", 1), ("--data.split-seed", 0))
    ]
    assert scores[0] == scores[1] != scores[2]


def test_help_names_every_option_and_does_not_wait_for_torch(environment):
    script = """
import contextlib, io, json, sys
from segmenter.cli import main
told = {}
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    told[" ".join(words)] = [status, out.getvalue()]
print(json.dumps([told, [m for m in ("torch", "timm", "torchvision", "matplotlib") if m in sys.modules]]))
"""
    wrong = [["evaluate", "m", "d", "--multscale"], ["train", "--out", "x", "--train.lrr", "1"], ["trian"]]
    words = [["--help"], [], *wrong, *([verb, "--help"] for verb in VERBS)]
    arguments = [sys.executable, "-c", script, json.dumps(words)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    told, imported = json.loads(done.stdout)
    assert imported == []

    status, text = told["--help"]
    assert status == 0
    assert all(verb in text for verb in VERBS)
    assert "--debug" in text
    for verb in VERBS:
        status, text = told[f"{verb} --help"]
        assert status == 0
        assert all(option in text for option in OPTIONS[verb]), verb
    assert "MODEL" in told["predict --help"][1]
    for arguments, meant in zip(wrong, ("--multiscale", "--train.lr", "train, check"), strict=True):
        status, text = told[" ".join(arguments)]
        assert status == 2
        assert meant in text
    assert told[""][0] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "model", "data", "--splt", "val"], "Perhaps you meant: .*--split"),
        (["evaluate", "model", "data", "--split", "vall"], "invalid choice 'vall' .*'train', 'val', 'test'"),
        (["evaluate", "model"], "Required .*DATA"),
        (["train", "--out", "x", "--train.steps", "many"], "Error parsing --train.steps: .*'many'"),
        (["train", "--out", "x", "--decoder.name", "mask"], "decoder.name is 'mask'; choose linear or mask_transfor"),
        (["train", "--out", "x", "--decoder.width", "8"], "mask_transformer does not read it .setr_naive, "),
        (["train", "--out", "x", "--decoder.name=dpt", "--decoder.layers=8"], "dpt does not read it .mask_transf"),
        (["train", "--out", "x", "--encoder.nam", "vit"], "Perhaps you meant: .*--encoder.name"),
        (["train", "--out", "x", "--augment.crop", "64"], "--augment.crop"),
        (["predict", "model", "photo.jpg"], "--out"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_words_are_refused_with_status_2(command, arguments, expected):
    told = command(*arguments)
    assert told.status == 2
    assert told.out == ""
    assert "Traceback" not in told.err
    assert re.search(expected, " ".join(re.sub("[│─╭╮╰╯]", " ", told.err).split()), re.IGNORECASE)


def test_a_pipe_that_is_closed_is_no_error(environment):
    process = started("--help", environment=environment)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_python_m_segmenter_is_the_command(environment, tmp_path):
    words = ["train", "--config", "fintune", "--out", str(tmp_path / "run")]
    arguments = [sys.executable, "-m", "segmenter", *words]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "segmenter: there is no recipe fintune; perhaps finetune\n"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, discs, tiny_recipe, recipe_file, environment, command):
    never = {"steps": 100_000, "save_every": 100_000, "validate_every": 100_000}
    recipe, run = recipe_file(tiny_recipe(discs, workers=1, **never)), tmp_path / "run"
    arguments = ("train", "--config", recipe, "--out", run)
    process = started(*arguments, environment=environment, start_new_session=True)
    try:
        log = run / "log.jsonl"
        while not (log.exists() and log.stat().st_size) and process.poll() is None:
            time.sleep(0.05)
        # A terminal sends Ctrl-C to all processes of the command.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=1000)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert out == ""
    assert "Traceback" not in err
    assert "stopping after this step; press Ctrl-C again to stop at once" in err
    last = err.splitlines()[-1]
    told = re.search(r"segmenter: stopped after step (\d+); go on with: segmenter resume (.*)", last)
    assert told[2] == str(run)
    step = int(told[1])
    assert not list(tmp_path.rglob("*.part"))
    # It goes on there, and ends at once where that step is made the last.
    text = (run / "recipe.yaml").read_text().replace("steps: 100000", f"steps: {step + 2}")
    (run / "recipe.yaml").write_text(text)
    told = command("resume", run)
    assert told.status == 0
    assert f"{step + 2}/{step + 2}" in told.err
    assert load(run).classes.names == ("ground", "red", "blue")
