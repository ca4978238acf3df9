"""Proves that the benchmarks run, compare like with like and write their tables; never how fast anything is."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segmenter import config, upsample
from segmenter.data.classes import Classes, default_colors
from segmenter.inference.passes import many_passes
from segmenter.model.segmenter import Segmenter

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # the benchmarks are no part of the package


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    recipe = config.Recipe(
        augment=config.Augment(short_side=64, crop=(64, 64)),
        encoder=config.Encoder("vit_tiny_patch16_384", depth=2, width=48, heads=3, patch_size=8, norm_eps=1e-3),
        decoder=config.MaskTransformer(layers=1),
        inference=config.Inference(window=(64, 64), stride=(48, 48)),
    )
    model = Segmenter(recipe, Classes(tuple(f"c{i}" for i in range(7)), default_colors(7))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def image():
    from benchmarks import subjects

    return subjects.pixels(None, (64, 90))


@torch.inference_mode()
def test_the_plain_network_answers_as_ours(model):
    from benchmarks.plain import Plain

    images = torch.randn(2, 3, 64, 64)
    plain = Plain(model).eval()
    torch.testing.assert_close(plain.logits(images), model(images), atol=1e-4, rtol=1e-4)
    same = plain(images) == upsample.labels(model(images), model.geometry(64, 64))
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("enlarge", [False, True])
@torch.inference_mode()
def test_the_published_formulation_answers_as_ours(model, image, enlarge, monkeypatch):
    from benchmarks import plain

    monkeypatch.setattr(model.recipe.inference, "enlarge", enlarge)
    ours = upsample.labels_of_mean(many_passes(model, image, replace(model.recipe.inference, native=True)))
    theirs = plain.labels_of_passes(plain.network(model, image), image.shape[:2])
    assert (ours == theirs).float().mean() > 0.999
    assert len(ours.unique()) > 1


def test_both_losses_are_one(model):
    from benchmarks import plain, subjects
    from benchmarks.training_step import Update, our_loss

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for loss in (our_loss(model), plain.loss):
        model.load_state_dict(state)
        update = Update(model, loss, batch=2)
        found.append([update(), update()])
    model.load_state_dict(state)
    model.eval()
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][1] < found[0][0]
    assert (subjects.targets(2, 7, (64, 64)) == 255).any()


def test_candidates_are_the_classes_that_could_win():
    from benchmarks.inference import candidates

    logits = torch.tensor([[[0.0, 4.0], [1.0, 2.0]], [[3.0, 1.0], [3.0, 3.0]], [[0.5, 0.5], [0.5, 0.5]]])  # 3 2 2
    assert candidates(logits) == 2  # the third class is never as large as the smallest of the second
    assert candidates(torch.zeros(3, 3, 5)) == 3


def test_rows_of_every_benchmark(model, image):
    from benchmarks import inference, multiscale, training_step

    images = torch.randn(1, 3, 64, 64)
    rows, note = inference.rows(model, images, rounds=2, compiled=False)
    assert [row.wanted for row in rows] == [2, pytest.approx(0.87, abs=0.01)]
    assert "of 7 on average" in note
    more, note = multiscale.rows(model, image, rounds=1)
    assert [row.wanted for row in more] == [1.6, 4]
    assert "The network's part is" in note
    for row in rows + more:
        assert row.ratio.low > 0
        assert [len(row.cells()), row.cells()[2].endswith(" ms")] == [6, True]
    if not torch.cuda.is_available():
        (row,) = training_step.cuda_rows(1, compiled=False)
        assert row.cells()[2:5] == ["not measured yet"] * 3


def test_a_command_prints_its_table_and_writes_json(model, tmp_path, monkeypatch, capsys):
    from benchmarks import memory

    model.save(tmp_path / "model")
    monkeypatch.chdir(ROOT)  # it starts itself again for the measurement
    words = ["memory.py", "--model", str(tmp_path / "model"), "--sizes", "96x128", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(tmp_path / "found.json")])
    memory.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("`python -m benchmarks.memory --model model --sizes 96x128 --threads 1`")
    assert "--json" not in lines[0]
    assert lines[2].startswith("| what | against | ours | theirs | theirs / ours | wanted |")
    assert lines[4].startswith("| 96 x 128, vit_tiny_patch16_384, mask_transformer, 7 classes, window 64, stride 48 |")
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["rows"]
    assert row["unit"] == "bytes"
    assert row["ratio"]["median"] == row["theirs"][0] / row["ours"][0]


def test_a_table_is_put_between_the_marks_and_the_rest_stays(tmp_path):
    from benchmarks.measuring import write_between

    path = tmp_path / "results.md"
    write_between(path, "one\n")
    path.write_text("Title\n\n" + path.read_text() + "The end.\n")
    write_between(path, "two\n")
    assert path.read_text() == "Title\n\n<!-- table -->\ntwo\n<!-- end -->\nThe end.\n"


def test_functions_are_measured_in_turn():
    from benchmarks.measuring import Row, in_turn

    order = []
    seconds = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert [len(values) for values in seconds.values()] == [2, 2]
    row = Row("w", "g", "ms", [1.0, 2.0, 3.0], [2.0, 4.0, 12.0])
    assert row.ratio == (2, 2, 3)
    assert row.cells()[4] == "2 (2 to 3)"


def test_the_busy_process_ends_also_on_errors(monkeypatch):
    from benchmarks import pixels

    begun, popen = [], pixels.subprocess.Popen
    monkeypatch.setattr(pixels, "BUSY", "import time; print(flush=True); time.sleep(600)")
    monkeypatch.setattr(pixels.subprocess, "Popen", lambda *a, **k: begun.append(popen(*a, **k)) or begun[0])
    running = []

    def measure() -> None:
        with pixels.busy_cores():
            running.append(begun[0].poll() is None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure()
    assert running == [True]
    assert begun[0].poll() is not None


def test_attention_is_compared_with_instances(model, write_data, tmp_path, capsys, monkeypatch):
    from benchmarks import instances

    model.save(tmp_path / "model")
    data = write_data(tmp_path / "discs", test=3)
    monkeypatch.setattr(sys, "argv", ["instances", str(tmp_path / "model"), str(data), "--images", "2"])
    instances.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| 0", "| 1"]
    assert len(lines[2].split()) == 3 + 2 * (3 + 1)  # a number a head
    assert "instances; standard error" in lines[-1]
