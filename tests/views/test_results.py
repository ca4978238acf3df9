"""Proves that predictions overwrite nothing but their own earlier results, whatever the names, and never touch data."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmenter
from segmenter.data.apart import refuse_data
from segmenter.errors import UserError
from segmenter.published.loading import load
from segmenter.views import pictures
from segmenter.views.overlay import LONGEST_SIDE, drawn_size
from segmenter.views.pictures import find_images, predict_files
from segmenter.views.results import LIST

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(disc_run):
    return load(disc_run)


@pytest.fixture
def photo(tmp_path) -> Path:
    return draw(tmp_path / "photos" / "a.png")


def draw(path: Path, size: tuple[int, int] = (20, 30), value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (value, 10, 10)).save(path, "PNG")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments, **named) -> str:
    with pytest.raises(UserError) as error:
        predict_files(*arguments, **named)
    return str(error.value)


# ---- data


@pytest.mark.parametrize("name", ["masks", "labels", "annotations"])
def test_masks_that_train_reads_are_never_overwritten(model, disc_folder, name):
    root = disc_folder()
    for split in ("train", "test"):
        (root / split / "masks").rename(root / split / name)
    before = contents(root)
    photos = str(root / "train" / "images")
    inside = ["train", ".", f"train/{name}", f"train/{name}/new", "train/images", "train/images/sub/new"]
    for out in inside:
        for overwrite in (False, True):
            text = refused(model, [photos], root / out, overwrite=overwrite)
            assert "choose another --out" in text
            assert ("holds data" if out in ("train", ".") else "holds images or masks of") in text
    assert contents(root) == before


def test_labels_beside_images_would_become_their_truth(model, photo):
    (photo.parent).rename(photo.parent.with_name("images"))
    root = photo.parent.parent
    assert "results beside images would be read as their masks" in refused(model, [str(root / "images")], root)
    assert not (root / "labels").exists()


def test_a_link_into_data_is_followed_before_it_is_written_to(model, disc_folder, photo, tmp_path):
    root = disc_folder()
    before = contents(root)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels").symlink_to(root / "train" / "masks")
    assert "holds images or masks of" in refused(model, [str(photo)], tmp_path / "out")
    assert contents(root) == before


@pytest.mark.parametrize(
    ("made", "out"),
    [
        ("ade/images/training ade/annotations/training", "ade"),
        ("ade/images/training ade/annotations/training", "ade/annotations/training"),
        ("voc/JPEGImages voc/SegmentationClass", "voc"),
        ("voc/JPEGImages voc/SegmentationClass", "voc/SegmentationClass/x"),
        ("city/leftImg8bit/train city/gtFine/train", "city"),
        ("city/leftImg8bit/train city/gtFine/train", "city/gtFine/train"),
        ("camvid/train camvid/trainannot", "camvid"),
        ("camvid/train camvid/trainannot", "camvid/train"),
        ("camvid/train camvid/trainannot", "camvid/trainannot"),
        ("rooms/val/images rooms/val/depth", "rooms/val/depth"),
        ("rooms/valid/images rooms/valid/depth", "rooms"),
    ],
)
def test_the_layouts_of_published_data_are_kept_apart_too(made, out, tmp_path):
    for folder in made.split():
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match="choose another --out"):
        refuse_data([tmp_path / out])


def test_new_folders_beside_or_in_data_are_for_results(tmp_path):
    for folder in ("data/train/images", "data/train/masks", "images/trip", "predictions/labels"):
        (tmp_path / folder).mkdir(parents=True)
    refuse_data([tmp_path / out for out in ("out", "data/run", "data/train/out", "images/trip/out", "predictions")])


@pytest.mark.parametrize("verb", ["demo", "convert"])
def test_other_verbs_write_into_no_folder_of_data(verb, disc_folder, disc_run, command):
    root = disc_folder()
    before = contents(root)
    source = [disc_run] if verb == "convert" else []
    for out in ("train", "train/masks/new"):
        told = command(verb, *source, "--out", root / out)
        assert told.status == 1
        assert "choose another --out" in told.err
    assert contents(root) == before


# ---- what is there


def test_earlier_results_are_overwritten_only_where_that_is_asked_for(disc_run, photo, command, tmp_path):
    out = tmp_path / "out"
    assert command("predict", disc_run, photo, "--out", out).status == 0
    before = contents(out)
    told = command("predict", disc_run, photo, "--out", out)
    assert told.status == 1
    assert "out holds 2 results of an earlier predict; choose another --out, or add --overwrite" in told.err
    assert told.err.splitlines()[-2:] == [f"- {out / 'labels' / 'a.png'}", f"- {out / 'overlays' / 'a.jpg'}"]
    assert contents(out) == before
    draw(photo, (40, 30))
    assert command("predict", disc_run, photo, "--out", out, "--overwrite").status == 0
    assert Image.open(out / "labels" / "a.png").size == (30, 40)
    assert command("predict", disc_run, photo, "--out", out, "--overwrite").status == 0  # it knows its own again


def test_a_file_of_others_is_not_overwritten_even_where_that_is_asked_for(model, photo, tmp_path):
    out = tmp_path / "out"
    draw(out / "labels" / "a.png")
    before = contents(out)
    for overwrite in (False, True):
        text = refused(model, [str(photo)], out, overwrite=overwrite)
        assert "1 files in the place of results that predict did not write, or that were changed since" in text
        assert text.endswith(f"choose another --out:\n- {out / 'labels' / 'a.png'}")
    assert contents(out) == before


def test_a_result_that_was_corrected_by_hand_is_nobodys_to_overwrite(model, photo, tmp_path):
    out = tmp_path / "out"
    predict_files(model, [str(photo)], out)
    labels = Image.open(out / "labels" / "a.png")
    labels.putpixel((0, 0), 2)
    labels.save(out / "labels" / "a.png")
    assert "changed since" in refused(model, [str(photo)], out, overwrite=True)


def test_many_files_are_named_up_to_twenty(model, tmp_path):
    for i in range(25):
        draw(tmp_path / "photos" / f"{i:02}.png")
        draw(tmp_path / "out" / "labels" / f"{i:02}.png")
    text = refused(model, [str(tmp_path / "photos")], tmp_path / "out")
    assert "holds 25 files" in text
    assert len(text.splitlines()) == 1 + 20 + 1
    assert text.endswith("- and 5 more")


def test_a_file_that_comes_while_it_predicts_stays(model, photo, tmp_path, monkeypatch):
    out, real = tmp_path / "out", pictures.predict
    mine = out / "overlays" / "a.jpg"
    monkeypatch.setattr(pictures, "predict", lambda *arguments: draw(mine) and real(*arguments))
    assert "appeared after predict began" in refused(model, [str(photo)], out)
    assert Image.open(mine).format == "PNG"


def test_a_list_that_a_kill_has_cut_is_read_as_far_as_it_goes(model, photo, tmp_path):
    out = tmp_path / "out"
    other = draw(tmp_path / "photos" / "b.png")
    predict_files(model, [str(photo)], out)
    with (out / LIST).open("a") as file:
        file.write('{"file": "labels/b.p')
    predict_files(model, [str(other)], out)
    predict_files(model, [str(photo), str(other)], out, overwrite=True)
    assert len([line for line in (out / LIST).read_text().splitlines() if line.endswith("}")]) == 8


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_list_that_is_no_file_is_left_alone(model, photo, tmp_path, kind):
    out, thesis = tmp_path / "out", tmp_path / "thesis.txt"
    out.mkdir()
    thesis.write_text("mine")
    {"link": lambda path: path.symlink_to(thesis), "pipe": os.mkfifo, "folder": Path.mkdir}[kind](out / LIST)
    assert f"{LIST} is not a file" in refused(model, [str(photo)], out)
    assert thesis.read_text() == "mine"


# ---- names


@pytest.mark.parametrize("length", [251, 252, 253, 254, 255])
def test_names_as_long_as_the_disk_takes(model, tmp_path, length):
    path = draw(tmp_path / "photos" / ("ä" * ((length - 4) // 2) + "x" * ((length - 4) % 2) + ".png"))
    assert len(path.name.encode()) == length
    (entry,) = predict_files(model, [str(path)], tmp_path / "out")
    assert Path(entry["labels"]).name == path.name
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels", "overlays", LIST]
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3


@pytest.mark.parametrize("name", ["x" * 256, "x" * 300 + "*.png", "x" * 100_000, "a/" * 3000, "**x/*.png"])
def test_names_that_no_disk_takes(disc_run, command, tmp_path, name):
    told = command("predict", disc_run, tmp_path / name, "--out", tmp_path / "out")
    assert told.status == 1
    assert len(told.err.splitlines()) == 1
    assert len(told.err) <= 620
    assert "give files, folders or globs" in told.err


NAMES = {
    "newline": b"one\ntwo.png",
    "escape": b"\x1b[31mred\x1b[0m.png",
    "no UTF-8": b"gr\xfcn.png",
    "bell and right to left": "\a\u202egnp.png".encode(),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_odd_names_are_kept_and_never_reach_the_terminal(disc_run, command, tmp_path, name):
    photos, out = tmp_path / "photos", tmp_path / "out"
    draw(photos / "a.png").rename(os.fsdecode(os.fsencode(photos) + b"/" + name))
    for output in (out, out / os.fsdecode(name[:-4])):
        told = command("predict", disc_run, photos, "--out", output)
        assert told.status == 0, told.err
        assert os.listdir(os.fsencode(output / "labels")) == [name]
        assert all(character.isprintable() or character == "\n" for character in told.out)
        assert len(told.out.splitlines()) == 1
        told = command("predict", disc_run, photos, "--out", output)
        assert told.status == 1
        assert all(character.isprintable() or character == "\n" for character in told.err.replace("\r", ""))
    told = command("predict", disc_run, photos, "--out", out, "--overwrite", "--json")
    (entry,) = json.loads(told.out)
    assert os.fsencode(entry["labels"]) == os.fsencode(out / "labels") + b"/" + name


# ---- what is no photo


def test_pipes_and_devices_among_photos_are_passed_over_or_refused(photo):
    folder = photo.parent
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    assert [file for file, _ in find_images([str(folder)])] == [photo]
    assert [file for file, _ in find_images([str(folder / "*.png")])] == [photo]
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UserError, match="there is no image at"):
            find_images([str(folder / name)])


def test_links_that_lead_round_end(photo):
    """With several of them the ways through a tree double at every level."""
    folder = photo.parent
    for name in ("one", "two", "three"):
        (folder / name).symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    assert [file for file, _ in find_images([str(folder)])] == [photo]
    assert [file for file, _ in find_images([str(folder / "**" / "*.png")])] == [photo]
    with pytest.raises(UserError, match="there is no image at"):
        find_images([str(folder / "self.png")])


# ---- large photos


def test_the_overlay_of_a_large_photo_is_smaller_and_that_is_said(disc_run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST_OVERLAY", 2000)
    large = draw(tmp_path / "large.png", (50, 160))
    told = command("predict", disc_run, large, draw(tmp_path / "small.png"), "--out", tmp_path / "out", "--json")
    one, two = json.loads(told.out)
    assert one["overlay_scale"] == 25 / 50
    assert "overlay_scale" not in two
    assert f"the overlay of {large} is smaller than the photo: it has at most 0.002 megapixels" in told.err
    assert Image.open(one["labels"]).size == (160, 50)  # labels keep every pixel
    assert Image.open(one["overlay"]).height <= 300  # the legend's, which has its own height


def test_a_smaller_overlay_shows_the_same(model, discs):
    photo = np.asarray(Image.open(discs / "test/images/test0.png")).repeat(4, 0).repeat(4, 1)
    result = segmenter.predict(model, photo)
    whole = segmenter.overlay(photo, result, legend=False)
    small = segmenter.overlay(photo, result, legend=False, largest=128 * 128)
    assert small.size == (128, 128)
    difference = np.abs(np.asarray(whole.reduce(2), np.int16) - np.asarray(small, np.int16))
    assert difference.mean() < 8
    assert segmenter.overlay(photo, result, largest=10**9).tobytes() == segmenter.overlay(photo, result).tobytes()


def test_a_smaller_overlay_takes_no_memory_for_the_whole_photo(model):
    photo = np.full((3000, 3000, 3), 90, np.uint8)
    result = segmenter.predict(model, photo)
    tracemalloc.start()
    segmenter.overlay(photo, result, largest=2**16)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < photo.nbytes / 4


@pytest.mark.parametrize("size", [(13000, 13000), (1, 10**8), (10**8, 1), (70000, 3), (2**12, 2**12), (1, 1)])
def test_a_drawn_picture_has_at_most_so_many_pixels(size):
    height, width = drawn_size(size, 2**24)
    assert 1 <= height * width <= 2**24
    assert max(height, width) <= LONGEST_SIDE
    assert ((height, width) == size) == (size in [(2**12, 2**12), (1, 1)])
