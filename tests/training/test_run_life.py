"""Proves that a run survives what may happen to it: damage, a second process, kills, signals, a full disk.

Whatever happened, it goes on to the end that it would have had.
"""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from segmenter.errors import UserError
from segmenter.model import folder as model_folder
from segmenter.published.loading import load
from segmenter.training import checkpoint, loop
from segmenter.training import run as running
from segmenter.training.alone import alone

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from segmenter.training.alone import alone

with alone(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


class Killed(BaseException):
    """Nothing in the program catches it."""


def log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def assert_same_end(one: Path, two: Path) -> None:
    assert log(one) == log(two)
    for name in ("model.safetensors", "config.json", "last/model.safetensors", "recipe.yaml"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    states = [checkpoint.load_state(folder)["model"] for folder in (one, two)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _every_step_logged(monkeypatch):
    monkeypatch.setattr("segmenter.training.run.LOG_EVERY", 1)


@pytest.fixture
def recipe(discs, tiny_recipe):
    return tiny_recipe(discs, steps=7, save_every=2, validate_every=3, encoder={"drop_path": 0.2}, ema=0.5)


@pytest.fixture
def whole(recipe, tmp_path) -> Path:
    """The run that nothing happens to."""
    loop.train(recipe, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def kill_at(monkeypatch):
    """Runs end before the update after this step, as if killed, but for their lock."""
    update = loop.Run._update

    def at(step: int | None) -> None:
        def updated(run, batch):
            if run.step == step:
                raise Killed
            return update(run, batch)

        monkeypatch.setattr(loop.Run, "_update", updated)

    return at


@contextmanager
def no_more_files():
    """No further file can be opened."""
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---- damage


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "empty", "cut", "zeros", "missing"])
def test_the_state_before_is_taken_where_the_last_is_damaged(whole, tmp_path, recipe, kill_at, capsys, damage):
    run = tmp_path / "run"
    kill_at(5)
    with pytest.raises(Killed):
        loop.train(recipe, run)
    kill_at(None)
    path, content = run / "state.pt", (run / "state.pt").read_bytes()
    changed = {"empty": b"", "cut": content[:-100], "zeros": bytes(len(content))}
    if damage == "flipped":
        flip(path, 0.5)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    loop.resume(run)
    err = capsys.readouterr().err
    assert f"{path} is {'missing' if damage == 'missing' else 'damaged ('}" in err
    assert "going on from the state before it, after step 2" in err
    assert_same_end(run, whole)


def test_every_flipped_byte_of_a_state_is_noticed_or_means_nothing(tmp_path):
    state = {"step": 3, "model": {"a": torch.arange(5.0), "b": torch.arange(7)}}
    checkpoint.save_state(tmp_path, state)
    path = tmp_path / "state.pt"
    content, noticed = path.read_bytes(), 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x04]) + content[place + 1 :])
        try:
            found = checkpoint.load_state(tmp_path)
        except UserError:
            noticed += 1
        else:
            assert found["step"] == 3
            assert all(torch.equal(found["model"][name], state["model"][name]) for name in "ab")
    assert noticed > 100


def test_both_states_damaged(disc_run, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    shutil.copy(run / "state.pt", run / "state.before.pt")
    flip(run / "state.pt", 0.5)
    flip(run / "state.before.pt", 0.5)
    before = names(run)
    with pytest.raises(UserError) as error:
        loop.resume(run)
    text = str(error.value)
    assert text.startswith(f"{run / 'state.pt'} is damaged (the checksum of its part ")
    assert ", and state.before.pt is damaged (" in text
    assert text.endswith("; train again into another folder")
    assert names(run) == before


def test_a_damaged_state_never_takes_the_place_of_a_good_one_before_it(tmp_path):
    for step in (1, 2):
        checkpoint.save_state(tmp_path, {"step": step, "model": torch.arange(1000)})
    flip(tmp_path / "state.pt", 0.5)
    checkpoint.save_state(tmp_path, {"step": 3, "model": torch.arange(1000)})
    flip(tmp_path / "state.pt", 0.5)
    assert checkpoint.load_state(tmp_path)["step"] == 1


def test_a_state_that_the_disk_did_not_take_as_written_replaces_nothing(tmp_path, monkeypatch):
    checkpoint.save_state(tmp_path, {"step": 1, "model": torch.arange(100)})
    save = torch.save

    def badly(content: object, path: Path) -> None:
        save(content, path)
        flip(path, 0.5)

    monkeypatch.setattr(checkpoint.torch, "save", badly)
    with pytest.raises(UserError, match=r"could not write .*state.pt"):
        checkpoint.save_state(tmp_path, {"step": 2, "model": torch.arange(100)})
    assert checkpoint.load_state(tmp_path)["step"] == 1


# ---- two processes, and none


def test_two_processes_on_one_run_are_refused_and_a_dead_one_keeps_no_lock(
    whole, recipe, tmp_path, environment, kill_at
):
    run = tmp_path / "run"
    kill_at(5)
    with pytest.raises(Killed):
        loop.train(recipe, run)
    kill_at(None)
    before = (run / "log.jsonl").read_bytes()
    new = tmp_path / "new"
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], env=environment, stdout=subprocess.PIPE, text=True)
        for folder in (run, new)
    ]
    try:
        assert [holder.stdout.readline() for holder in holders] == ["held\n"] * 2
        with pytest.raises(UserError, match=rf"{run} is being trained by process {holders[0].pid} on .*; wait for"):
            loop.resume(run)
        with pytest.raises(UserError, match=rf"{new} is being trained by process {holders[1].pid} on "):
            loop.train(recipe, new)
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    assert (run / "log.jsonl").read_bytes() == before
    assert names(new) == {".lock"}
    loop.resume(run)
    loop.train(recipe, new)
    for folder in (run, new):
        assert_same_end(folder, whole)
        assert names(folder) == names(whole)


def test_one_process_cannot_train_a_run_twice_at_once(tmp_path):
    again = alone(tmp_path / "run", print)
    with alone(tmp_path / "run", print), pytest.raises(UserError, match="is being trained by this process"):
        again.__enter__()
    with alone(tmp_path / "run", print):
        pass
    assert names(tmp_path / "run") == set()


def test_a_link_for_a_lock_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="could not write"), alone(tmp_path / "run", print):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_without_locks_it_is_said_and_goes_on(tmp_path, monkeypatch, capsys):
    from segmenter.training import alone as module

    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "lockf", unsupported)
    with alone(tmp_path / "run", loop.say):
        pass
    monkeypatch.setattr(module, "fcntl", None)
    with alone(tmp_path / "run", loop.say):
        pass
    assert capsys.readouterr().err.count("see to it that no other process works on") == 2


def test_a_run_killed_before_its_first_state_starts_anew(whole, recipe, tmp_path, kill_at, capsys):
    run = tmp_path / "run"
    kill_at(1)
    with pytest.raises(Killed):
        loop.train(recipe, run)
    kill_at(None)
    assert not (run / "state.pt").exists()
    with pytest.raises(UserError, match=f"go on with: segmenter resume {run}"):
        loop.train(recipe, run)
    loop.resume(run)
    assert f"{run} was ended before its first state was saved: it starts anew from its recipe.yaml" in (
        capsys.readouterr().err
    )
    assert_same_end(run, whole)
    assert names(run) == names(whole)
    (run / "state.pt").unlink()  # there was one: what was trained is not thrown away
    (run / "state.before.pt").unlink()
    with pytest.raises(UserError, match=r"has no state.pt to go on from"):
        loop.resume(run)


def test_a_run_killed_before_its_recipe_was_written_can_be_trained(whole, recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").write_text("process 1 on a machine that is gone")
    (run / ".no-state-yet").write_text("")
    loop.train(recipe, run)
    assert_same_end(run, whole)
    assert names(run) == names(whole)


# ---- kills between two renames


def test_a_model_can_be_read_whatever_moment_its_replacement_is_killed_at(disc_run, tmp_path, monkeypatch):
    """Both halves of the folder fit each other after each rename, and before it."""
    replace, model = os.replace, load(disc_run)
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = {name: tensor + 1 for name, tensor in old.items()}
    seen = []
    for moment in range(7):
        folder = tmp_path / str(moment)
        model.load_state_dict(old)
        model.save(folder)
        model.load_state_dict(new)
        left = [moment]

        def killed(source, target, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(model_folder.atomic.os, "replace", killed)
            try:
                model.save(folder)
                ended = True
            except Killed:
                ended = False
        found = load(folder).state_dict()
        seen.append(next(i for i, state in enumerate((old, new)) if all(torch.equal(found[n], state[n]) for n in new)))
        model.save(folder)  # the next save finds what was left, and is whole
        assert json.loads((folder / "config.json").read_text())["sha256"] == model_folder._hashes(folder)
        assert len(model_folder._hashes(folder)) == 1
        if ended:
            break
    assert seen == [0, 0, 1, 1]


def test_a_flipped_byte_of_the_weights_is_no_model(disc_run, tmp_path):
    for place in (0.3, 0.5, 0.7, 0.99):
        run = shutil.copytree(disc_run, tmp_path / str(place))
        path = run / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 0x01  # the last bits of a number: it stays finite
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{path} is damaged"):
            load(run)


def test_weights_changed_on_purpose_are_taken_as_the_refusal_says(disc_run, tmp_path):
    run = shutil.copytree(disc_run, tmp_path / "run")
    flip(run / "model.safetensors", 0.5)
    with pytest.raises(UserError, match=r"take 'sha256' out of config.json if the weights were changed on purpose"):
        load(run)
    about = json.loads((run / "config.json").read_text())
    del about["sha256"]
    (run / "config.json").write_text(json.dumps(about))
    load(run)


# ---- signals


@pytest.mark.parametrize("moment", ["as a batch is awaited", "in an update", "as it validates", "at the last step"])
def test_sigterm_saves_and_goes_on_in_every_bit(whole, recipe, tmp_path, monkeypatch, moment):
    run, calls = tmp_path / "run", []
    place, name, which = {
        "as a batch is awaited": (loop.Run, "_next", 4),
        "in an update": (loop.Run, "_update", 3),
        "as it validates": (running, "totals_together", 3),
        "at the last step": (running, "totals_together", 5),
    }[moment]
    step = {"as a batch is awaited": 3, "in an update": 3, "as it validates": 6, "at the last step": 7}[moment]
    real = getattr(place, name)

    def told(*arguments, **options):
        calls.append(0)
        if len(calls) == which:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, told)
        with pytest.raises(UserError, match=f"stopped after step {step}; go on with: segmenter resume {run}"):
            loop.train(recipe, run)
    assert checkpoint.load_state(run)["step"] == step
    assert names(run) >= {"state.pt"}
    assert ".lock" not in names(run)
    loop.resume(run)
    assert_same_end(run, whole)


def test_scores_that_were_logged_as_it_was_killed_are_not_logged_twice(whole, recipe, tmp_path, monkeypatch):
    """The state says that step 3 is to be validated, the log that it was."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("segmenter.training.run.totals_together", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(UserError, match="stopped after step 3"):
            loop.train(recipe, run)
    validate = loop.Run._validate

    def killed(run, log, watch):
        validate(run, log, watch)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_validate", killed)
        with pytest.raises(Killed):
            loop.resume(run)
    assert "val_mean_iou" in log(run)[-1]
    loop.resume(run)
    assert_same_end(run, whole)


@pytest.mark.parametrize("verb", ["check", "evaluate"])
def test_sigterm_is_ctrl_c_in_every_verb(command, disc_run, discs, monkeypatch, verb):
    from segmenter.data import files

    opened, once = files.Image.open, threading.Lock()

    def terminated(*arguments, **options):
        if once.acquire(blocking=False):  # a second one would meet the tests, not the verb
            os.kill(os.getpid(), signal.SIGTERM)
        return opened(*arguments, **options)

    monkeypatch.setattr(files.Image, "open", terminated)
    told = command(*([verb, discs] if verb == "check" else [verb, disc_run, discs, "--workers", 0]))
    assert told.status == 1
    assert told.err.splitlines()[-1] == "segmenter: interrupted"
    assert "Traceback" not in told.err


# ---- no room, no files


def test_where_there_is_no_room_for_three_states_the_one_before_goes(whole, recipe, tmp_path, monkeypatch):
    save, run = torch.save, tmp_path / "run"

    def small_disk(content: object, path: Path) -> None:
        if (run / "state.pt").exists() and (run / "state.before.pt").exists():
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, path)

    monkeypatch.setattr(checkpoint.torch, "save", small_disk)
    loop.train(recipe, run)
    assert_same_end(run, whole)


@pytest.mark.parametrize("name", ["state", "model"])
@pytest.mark.parametrize("trouble", ["no more files", "full disk"])
def test_trouble_while_saving_is_a_sentence_and_loses_nothing(whole, recipe, tmp_path, monkeypatch, name, trouble):
    run, calls = tmp_path / "run", []
    place, function, which = (checkpoint, "save_state", 2) if name == "state" else (model_folder, "write", 4)
    real = getattr(place, function)

    def troubled(*arguments):
        calls.append(0)
        if len(calls) != which:
            return real(*arguments)
        if trouble == "no more files":
            with no_more_files():
                return real(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(model_folder.atomic.os, "fsync", full)
            return real(*arguments)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(place, function, troubled)
        with pytest.raises(UserError) as error:
            loop.train(recipe, run)
    text = str(error.value)
    assert text.startswith(f"could not write {run}")
    expected = "Too many open files): too many files are open" if trouble == "no more files" else "): make room there"
    assert expected in text
    assert len(text) < 600
    assert not list(run.rglob("*.part"))
    load(run)
    load(run / "last")
    loop.resume(run)
    assert_same_end(run, whole)


# ---- kills that are real


def test_killed_at_random_moments_it_ends_the_same(environment):
    words = [sys.executable, "-m", "benchmarks.survival", "--kills", "3"]
    paths = os.pathsep.join([str(Path(loop.__file__).parents[2]), str(ROOT)])
    done = subprocess.run(
        words, env=environment | {"PYTHONPATH": paths}, cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    total = next(line for line in done.stdout.splitlines() if line.startswith("| all |"))
    _, trainings, kills, equal = (cell.strip() for cell in total.strip("|").split("|"))
    assert int(kills) >= 3
    assert trainings == equal == "3"
