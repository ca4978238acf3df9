"""Proves that files, folders and globs become label maps and overlays named after their photos."""

import numpy as np
import pytest
from PIL import Image

from segmenter.errors import UserError
from segmenter.inference.predict import predict
from segmenter.published.loading import load
from segmenter.views.pictures import find_images, predict_files

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(disc_run):
    return load(disc_run)


@pytest.fixture
def photos(tmp_path):
    """day/a.png, day/night/b.JPG, c.d.png; a hidden file and a text, which are no photos."""
    root, generator = tmp_path / "photos", np.random.default_rng(0)
    for name, size in (("day/a.png", (40, 50)), ("day/night/b.JPG", (70, 30)), ("c.d.png", (8, 9))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3)).astype(np.uint8)).save(root / name)
    (root / ".hidden.png").write_bytes(b"")
    (root / "notes.txt").write_text("nothing")
    return root


def names(found) -> list[str]:
    return sorted(name.as_posix() for _, name in found)


def test_folders_keep_their_sub_folders_files_and_globs_their_names(photos):
    assert names(find_images([str(photos)])) == ["c.d", "day/a", "day/night/b"]
    assert names(find_images([str(photos / "day" / "a.png"), str(photos / "c.d.png")])) == ["a", "c.d"]
    assert names(find_images([str(photos / "*.png")])) == ["c.d"]
    assert names(find_images([str(photos / "**" / "*.*")])) == ["a", "b", "c.d"]


def test_what_holds_no_photo_is_named(photos):
    for wrong in (photos / "none.png", photos / "*.tif", photos / "nowhere"):
        with pytest.raises(UserError, match=r"no image at .*; give files, folders or globs of .*png"):
            find_images([str(photos), str(wrong)])
    with pytest.raises(UserError, match="no images were named; give files, folders or globs"):
        find_images([])


def test_two_files_of_one_name_are_refused(photos):
    (photos / "day" / "a.jpg").write_bytes((photos / "day" / "a.png").read_bytes())
    expected = r"a.jpg and .*a.png would both be written as day/a; predict them apart"
    with pytest.raises(UserError, match=expected):
        find_images([str(photos)])


def test_every_photo_gets_a_label_map_and_an_overlay(model, photos, tmp_path):
    out = tmp_path / "out"
    written = predict_files(model, [str(photos)], out)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "labels/c.d.png", "labels/day/a.png", "labels/day/night/b.png",
        "overlays/c.d.jpg", "overlays/day/a.jpg", "overlays/day/night/b.jpg", "predicted.jsonl",
    ]  # fmt: skip
    assert sorted(entry["image"] for entry in written) == sorted(map(str, photos.rglob("[abc]*.*")))
    for entry in written:
        labels, photo = Image.open(entry["labels"]), Image.open(entry["image"])
        assert labels.mode == "P"
        assert labels.size == photo.size
        assert np.array_equal(np.array(labels), predict(model, entry["image"]).labels)
        assert Image.open(entry["overlay"]).width > photo.width


def test_overlays_can_be_left_out(model, photos, tmp_path):
    photo = photos / "c.d.png"
    written = predict_files(model, [str(photo)], tmp_path / "out", overlays=False)
    assert written == [{"image": str(photo), "labels": str(tmp_path / "out" / "labels" / "c.d.png")}]
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_photo_is_never_overwritten(model, photos):
    (photos / "labels").mkdir()
    (photos / "c.d.png").rename(photos / "labels" / "c.png")
    before = (photos / "labels" / "c.png").read_bytes()
    with pytest.raises(UserError, match=r"the results would overwrite photos in .*; choose another --out"):
        predict_files(model, [str(photos / "labels")], photos)
    assert (photos / "labels" / "c.png").read_bytes() == before


def test_what_was_written_before_a_broken_photo_stays(model, photos, tmp_path):
    (photos / "day" / "a.png").write_bytes((photos / "day" / "a.png").read_bytes()[:500])
    with pytest.raises(UserError, match=r"a.png is broken or incomplete .*; copy it again or remove it"):
        predict_files(model, [str(photos)], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "labels").iterdir()] == ["c.d.png"]
