"""Proves that pictures, depth maps and folders of any kind are read or refused: nothing is started, nothing hangs."""

import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmenter import config
from segmenter.data.check import check_labels
from segmenter.data.classes import Classes
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.files import image_size, read_image, read_values
from segmenter.data.layouts import open_labels
from segmenter.data.pairs import files_below
from segmenter.data.scenes.scene import render
from segmenter.errors import UserError

SCENE = render(0, 1, (96, 128))
PHOTO = np.array(Image.fromarray(SCENE.image).convert("L"))


def refused(read, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    return str(caught.value)


def written(root: Path, masks: list[np.ndarray], suffix: str = ".png", **options) -> Path:
    for i, mask in enumerate(masks):
        for folder, picture in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks", mask)):
            path = root / "train" / folder / f"{i}{suffix if folder == 'masks' else '.png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, **(options if folder == "masks" else {}))
    return root


# ---- pictures


@pytest.mark.parametrize("read", [read_image, image_size, read_values])
def test_no_program_is_started_for_postscript(tmp_path, monkeypatch, read):
    started = []
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr("subprocess.Popen", lambda *arguments, **_: started.append(arguments))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert "a.png is not a readable picture (png, jpg" in refused(read, tmp_path / "a.png")
    assert not started


@pytest.mark.parametrize("read", [read_image, image_size, read_values])
def test_pipes_and_devices_are_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        assert "it is a pipe or a device" in refused(read, tmp_path / name)
    (tmp_path / "c.png").symlink_to("c.png")
    assert "c.png" in refused(read, tmp_path / "c.png")
    assert "x" * 50 in refused(read, tmp_path / ("x" * 300 + ".png"))


def test_a_name_cannot_speak_to_the_terminal(tmp_path):
    path = tmp_path / "a\x1b[2J\nb.png"
    path.write_bytes(b"no picture")
    assert "a\\x1b[2J\\nb.png is not a readable picture" in refused(read_image, path)


def test_links_in_circles_are_walked_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    (tmp_path / "b").symlink_to("a")  # another way to the same folder, and no circle
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["a/x.png", "b/x.png"]


def test_folders_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segmenter.data.pairs.MOST_FOLDERS", 200)
    for i in range(12):
        (tmp_path / f"{i}").mkdir()
        for j in range(12):
            (tmp_path / f"{i}" / f"{j}").symlink_to(tmp_path / f"{j}")
    assert "do its links lead in circles?" in refused(lambda: list(files_below(tmp_path)))


# ---- depth maps


def test_a_header_that_claims_more_than_the_file_holds(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3)))
    for shape in ((10**6, 10**6), (10**4, 10**4), (2, 4)):
        header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 3))) | {"shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(48))
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.write(path, "a.npy")
        tracemalloc.start()
        for name in ("a.npy", "a.npz"):
            assert "it says that it holds" in refused(read_inverse_depth, tmp_path / name, config.Data())
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()


def test_depth_of_any_layout_is_read_as_it_was_written(tmp_path):
    numbers = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    for array in (numbers, np.asfortranarray(numbers), numbers.astype(">f4"), numbers.astype(np.float16)):
        np.save(tmp_path / "a.npy", array)
        np.savez_compressed(tmp_path / "a.npz", array)
        for name in ("a.npy", "a.npz"):
            assert np.allclose(read_inverse_depth(tmp_path / name, config.Data()), 1 / numbers)


def test_a_pipe_is_no_depth_map(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    assert "it is a pipe or a device" in refused(read_inverse_depth, tmp_path / "a.npy", config.Data())


# ---- masks that are none


def test_a_photo_is_no_mask(tmp_path):
    root = written(tmp_path, [PHOTO, SCENE.labels.astype(np.uint8)])
    text = refused(open_labels, config.Data(root=str(root)))
    assert text.startswith("1 of 2 masks look like photos, not like masks")
    assert text.endswith("put the masks there, with one grey value a class")


@pytest.mark.parametrize("how", ["jpeg", "smoothed"])
def test_masks_that_were_spoilt_are_told_and_no_classes_are_made_of_it(tmp_path, how):
    mask = Image.fromarray((SCENE.labels * 20).astype(np.uint8))
    if how == "jpeg":
        written(tmp_path, [np.array(mask)], ".jpg", quality=90)
    else:
        written(tmp_path, [np.array(mask.resize((200, 150), Image.Resampling.BILINEAR))])
    text = refused(open_labels, config.Data(root=str(tmp_path)))
    assert text.startswith("1 of 1 masks look like masks that were smoothed by resizing or saved as JPEG")
    assert "export them again as PNG, and resize with nearest neighbour" in text
    (tmp_path / "classes.yaml").write_text("classes: [a, b]\nmap: {20: 0, 40: 1}")
    findings = [finding.text for finding in check_labels(open_labels(config.Data(root=str(tmp_path)))).findings]
    assert sum("smoothed by resizing" in finding for finding in findings) == 1
    assert not any("add the class" in finding for finding in findings)


def test_true_masks_of_many_classes_look_like_masks(tmp_path):
    segments = np.kron(np.random.default_rng(0).permutation(64).reshape(8, 8), np.ones((16, 16))).astype(np.uint8)
    assert len(open_labels(config.Data(root=str(written(tmp_path, [segments])))).classes) == 64


def test_a_list_of_many_values_is_cut(tmp_path):
    segments = np.kron(np.arange(64).reshape(8, 8) * 3, np.ones((16, 16))).astype(np.uint8)
    text = refused(open_labels, config.Data(root=str(written(tmp_path, [segments]))))
    assert "# and 48 more in the same way" in text
    assert len(text.splitlines()) <= 21
    assert max(map(len, text.splitlines())) <= 600


# ---- classes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: [a, b]\nclasses: [c]", "line 2: the key classes stands there twice"),
        ("classes: ['a\\x1b', b]".replace("'", '"'), "has the name 'a\\x1b'; names have at most 100 characters"),
        (f"classes: [{'a' * 101}]", "names have at most 100 characters"),
        ("classes: [a, 2001-99-99, !!int xx]", "'xx' is no number"),
        ("classes: [a, b]\nignore: 99999999999", "ignore holds 99999999999; masks hold values from 0 to"),
        ("classes: [a, b]\nmap: {99999999999: 0}", "map holds 99999999999; masks hold values from 0 to"),
        ("classes: [a, b]\nmap: {-1: 0}", "map holds -1; masks hold values from 0 to"),
    ],
)
def test_what_a_classes_yaml_may_not_say(tmp_path, text, said):
    (tmp_path / "classes.yaml").write_text(text)
    assert said in refused(Classes.read, tmp_path / "classes.yaml")


def test_a_map_of_numbers_that_no_mask_holds():
    assert "write `from:to`" in refused(Classes(("a",), ((0, 0, 0),)).with_map, ["99999999999999999999:0"])
    assert "masks hold values from 0" in refused(Classes(("a",), ((0, 0, 0),)).with_map, ["9999999999:0"])


def test_names_of_published_files_are_made_fit_for_a_terminal():
    assert Classes(("a\x1b[2J",), ((0, 0, 0),)).names == ("a\\x1b[2J",)


def test_a_header_that_is_no_python(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    content = (tmp_path / "a.npy").read_bytes()
    for changed in (content.replace(b"'shape': (2, 3), }", b"'shape': ((((((((( "), content.replace(b"}", b"(")):
        (tmp_path / "a.npy").write_bytes(changed)
        assert "is broken or incomplete" in refused(read_inverse_depth, tmp_path / "a.npy", config.Data())
