"""Proves `segmenter report`: one file about runs as they are found, whole or not, alone or side by side."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from report_examples import Parsed

from segmenter.evaluation import kept_folder
from segmenter.published.loading import load
from segmenter.training import loop

ONE = ("Scores", "Training", "Classes", "Images", "Confusions", "Object sizes", "Calibration", "Doubtful masks",
       "Attention", "Origin")  # fmt: skip
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def original(tmp_path_factory, discs, tiny_recipe, on_one_thread) -> Path:
    """A run with its evaluation."""
    run = tmp_path_factory.mktemp("runs") / "first"
    with on_one_thread():
        loop.train(tiny_recipe(discs, steps=20, lr=1e-2, validate_every=10), run, "cpu", command="segmenter train")
    return run


@pytest.fixture
def run(original, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(original, tmp_path / "first")


def another(run: Path, name: str = "second") -> Path:
    """A run with other weights."""
    other = shutil.copytree(run, run.parent / name)
    model = load(other)
    for parameter in model.parameters():
        parameter.data.mul_(0.9)
    model.save(other)
    return other


def page(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


def test_a_run_becomes_a_page_beside_it(command, run):
    done = command("report", run)
    assert (done.status, done.out.strip()) == (0, str(run / "report.html"))
    text = page(run / "report.html").text
    for section in ONE:
        assert section in text
    assert "Scored on test of" in text
    kept = kept_folder.read(run / "evaluation")
    assert f"{100 * kept.scores.mean_iou:.1f} %" in text
    assert "segmenter train" in text


def test_an_evaluation_is_made_once_and_again_for_other_weights_or_images(command, run):
    assert command("report", run).status == 0
    before = (run / "evaluation" / "scores.json").stat().st_mtime_ns
    assert command("report", run).status == 0
    assert (run / "evaluation" / "scores.json").stat().st_mtime_ns == before
    done = command("report", run, "--split", "val")
    assert "is of other images" in done.err
    assert kept_folder.read(run / "evaluation").about["split"] == "val"
    other = another(run)
    done = command("report", other, "--split", "val")
    assert "is of another model" in done.err
    scores = [kept_folder.read(folder / "evaluation").confusion for folder in (run, other)]
    assert not np.array_equal(*scores)


def test_an_evaluation_of_the_verb_is_taken(command, run, discs):
    assert command("evaluate", run, discs, "--out", run / "evaluation").status == 0
    before = (run / "evaluation" / "scores.json").stat().st_mtime_ns
    assert command("report", run).status == 0
    assert (run / "evaluation" / "scores.json").stat().st_mtime_ns == before


def test_two_runs_side_by_side(command, run, tmp_path):
    other = another(run)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace("steps: 20", "steps: 21"))
    out = tmp_path / "both.html"
    done = command("report", run, other, "--out", out)
    assert done.status == 0
    text = page(out).text
    for words in ("Against first", "second", "Where the runs differ most", "errors of second"):
        assert words in text
    assert not (run / "report.html").exists()


def test_two_runs_of_one_name_are_told_apart(command, run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "elsewhere" / "first")
    assert command("report", run, twin, "--out", tmp_path / "both.html").status == 0
    assert "elsewhere/first" in page(tmp_path / "both.html").text


def test_runs_on_other_data_are_told_in_a_sentence(command, run, disc_folder, tmp_path):
    other = another(run)
    data = disc_folder("others", test=3)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(re.sub(r"root: .*", f"root: {data}", recipe))
    about = json.loads((other / "config.json").read_text())
    about["recipe"]["data"]["root"] = str(data)
    (other / "config.json").write_text(json.dumps(about))
    done = command("report", run, other, "--out", tmp_path / "both.html")
    assert done.status == 0
    text = page(tmp_path / "both.html").text
    assert "first and second cannot be compared image by image: " in text
    assert "Against first" not in text


def test_a_run_without_log_environment_or_images_has_a_page_without_them(command, run):
    assert command("report", run).status == 0
    (run / "log.jsonl").unlink()
    (run / "environment.json").unlink()
    recipe, about = (run / "recipe.yaml").read_text(), json.loads((run / "config.json").read_text())
    (run / "recipe.yaml").write_text(re.sub(r"root: .*", "root: gone", recipe))
    about["recipe"]["data"]["root"] = "gone"
    (run / "config.json").write_text(json.dumps(about))
    done = command("report", run)
    assert done.status == 0
    text = page(run / "report.html").text
    assert "first has no log.jsonl, so there are no curves of it" in text
    assert "There are no images: " in text
    assert "say where they are now with --data FOLDER" in text
    assert "Scored on test of" in text  # by its evaluation, which is still there
    assert "Worst" not in text
    assert "it does not say where it was trained" in text


def test_data_that_moved_is_named(command, run, discs, tmp_path):
    moved = shutil.copytree(discs, tmp_path / "moved")
    recipe, about = (run / "recipe.yaml").read_text(), json.loads((run / "config.json").read_text())
    (run / "recipe.yaml").write_text(re.sub(r"root: .*", "root: gone", recipe))
    about["recipe"]["data"]["root"] = "gone"
    (run / "config.json").write_text(json.dumps(about))
    assert command("report", run, "--data", moved).status == 0
    assert "Worst" in page(run / "report.html").text


def test_a_training_that_was_killed_before_its_first_model_has_curves(command, run):
    for path in ("model.safetensors", "config.json"):
        (run / path).unlink()
    done = command("report", run)
    assert done.status == 0
    text = page(run / "report.html").text
    assert "There are no scores: " in text
    assert "Loss" in text


def test_a_damaged_evaluation_is_told_and_its_removal_mends_it(command, run):
    assert command("report", run).status == 0
    (run / "evaluation" / "images.npz").write_bytes(b"nothing")
    assert command("report", run).status == 0
    text = page(run / "report.html").text
    assert "There are no scores: the evaluation in " in text
    assert f"remove {run / 'evaluation'}, and it is made anew" in text
    assert (run / "evaluation" / "images.npz").read_bytes() == b"nothing"
    shutil.rmtree(run / "evaluation")
    assert command("report", run).status == 0
    assert "Worst" in page(run / "report.html").text


def test_a_model_that_is_no_run_has_its_scores(command, run, tmp_path):
    model = tmp_path / "model"
    load(run).save(model)
    assert command("report", model).status == 0
    text = page(model / "report.html").text
    assert "model has no log.jsonl, so there are no curves of it: it is a model without its training." in text
    assert "Worst" in text


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "report is about at least one run"),
        (["nowhere"], 1, "nowhere is not a run: it has neither recipe.yaml nor config.json"),
        (["{run}", "{run}"], 1, "a report of several runs belongs to none of their folders; write --out FILE"),
        (["{run}", "--out", "{run}"], 1, "is a folder; name a file in it: --out "),
    ],
)
def test_what_is_no_run_is_a_sentence(command, original, arguments, status, words):
    done = command("report", *(argument.format(run=original) for argument in arguments))
    assert done.status == status
    assert words in " ".join(done.err.split())


def test_nothing_of_the_machine_but_what_was_said_is_on_the_page(command, run, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "a-secret-of-the-environment")
    monkeypatch.chdir(run.parent)
    recipe, about = (run / "recipe.yaml").read_text(), json.loads((run / "config.json").read_text())
    root = about["recipe"]["data"]["root"]
    Path("data").symlink_to(root)
    (run / "recipe.yaml").write_text(re.sub(r"root: .*", "root: data", recipe))
    about["recipe"]["data"]["root"] = "data"
    (run / "config.json").write_text(json.dumps(about))
    assert command("report", "first").status == 0
    html = (run / "report.html").read_text()
    for said_by_nobody in (str(run.parent), str(Path.home()) + "/", "a-secret-of-the-environment", root):
        assert said_by_nobody not in html


@pytest.mark.skipif(BROWSER is None, reason="there is no browser here")
@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_a_browser_has_nothing_to_complain_of(command, run, tmp_path, width):
    other = another(run)
    assert command("report", run, other, "--out", tmp_path / "both.html").status == 0
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    options += ["--virtual-time-budget=3000", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([BROWSER, *options, f"file://{tmp_path / 'both.html'}"], capture_output=True, timeout=120)
    assert b"CONSOLE" not in shown.stderr
    html = shown.stdout.decode()
    assert 'class="js"' in html
    assert 'class="picture stacked"' in html
    assert 'class="controls" hidden' not in html
    assert "<button" in html  # headings that sort
