"""Proves that folders as people have them are recognised, and that files which do not pair up are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmenter import config
from segmenter.data.layouts import open_labels
from segmenter.data.samples import SCENE_COUNTS, DataSet
from segmenter.errors import UserError

MASK = np.array([[0, 1], [1, 255], [0, 0]], np.uint8)  # 3 x 2


def image(path: Path, size: tuple[int, int] = (3, 2), mode: str = "RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1]).save(path)


def mask(path: Path, values: np.ndarray = MASK, palette: list[int] | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette(palette)
    picture.save(path)


def flat(root: Path, names: list[str], suffix: str = ".png"):
    for name in names:
        image(root / "images" / (name + suffix))
        mask(root / "masks" / f"{name}.png")


def opened(root: Path, **settings) -> DataSet:
    return open_labels(config.Data(root=str(root), **settings))


def refused(root: Path | str, **settings) -> str:
    with pytest.raises(UserError) as error:
        opened(root, **settings)
    return str(error.value)


def names(data: DataSet) -> dict[str, list[str]]:
    return {split: [sample.name for sample in samples] for split, samples in data.splits.items()}


@pytest.mark.parametrize(
    ("images", "masks"),
    [("{}/images", "{}/masks"), ("{}/images", "{}/labels"), ("images/{}", "annotations/{}")],
)
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders(tmp_path, images, masks, val):
    for split, name in (("train", "a"), (val, "b"), ("test", "c")):
        image(tmp_path / images.format(split) / f"{name}.jpg")
        mask(tmp_path / masks.format(split) / f"{name}.png")
    data = opened(tmp_path)
    assert names(data) == {"train": ["a"], "val": ["b"], "test": ["c"]}
    sample = data.split("val")[0]
    assert sample.image().shape == (3, 2, 3)
    np.testing.assert_array_equal(sample.target(), MASK)
    assert data.classes.names == ("class 0", "class 1")
    assert "train 1, val 1, test 1 images; 2 classes as the masks' values show (no classes.yaml)" in data.source


def test_every_image_suffix_and_subfolders_pair_up_and_other_files_are_left_alone(tmp_path):
    for i, suffix in enumerate((".png", ".JPG", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")):
        image(tmp_path / "train/images/sub" / f"x.{i}{suffix}")
        mask(tmp_path / "train/masks/sub" / f"x.{i}.png")
    for junk in ("images/.hidden.png", "images/Thumbs.db", "masks/sub/.DS_Store", "images/.cache/a.png"):
        (tmp_path / "train" / junk).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / junk).write_bytes(b"")
    assert names(opened(tmp_path))["train"] == [f"sub/x.{i}" for i in range(7)]


def test_lists_name_stems_or_files(tmp_path):
    flat(tmp_path, ["a", "b", "c", "d.e", "unused"])
    image(tmp_path / "images/also unused.png")
    (tmp_path / "train.txt").write_text("\ufeffc\n\na.png\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("d.e\r\n")
    assert names(opened(tmp_path)) == {"train": ["a", "c"], "val": ["d.e"]}


def test_lists_with_names_that_do_not_exist(tmp_path):
    flat(tmp_path, ["a"])
    (tmp_path / "train.txt").write_text("a\nb\nc.png\n")
    assert "2 of 3 names in" in refused(tmp_path)
    assert refused(tmp_path).endswith("images: b, c; add the images or remove the lines")
    (tmp_path / "train.txt").write_text("\n")
    assert refused(tmp_path) == f"{tmp_path}/train.txt is empty; write one image name a line, or remove the file"


def test_a_split_by_hash_is_stable_when_files_are_added_and_follows_the_seed(tmp_path):
    flat(tmp_path, [f"i{i:03}" for i in range(120)])
    before = names(opened(tmp_path))
    assert set(before) == {"train", "val", "test"}
    assert 80 <= len(before["train"]) <= 110
    assert names(opened(tmp_path, split_seed=1)) != before
    flat(tmp_path, [f"a{i:03}" for i in range(20)])
    after = names(opened(tmp_path))
    assert all(set(before[split]) <= set(after[split]) for split in before)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_split_of_few_files_has_training_and_validation_images(tmp_path, count):
    flat(tmp_path, [f"i{i}" for i in range(count)])
    for seed in range(10):
        found = names(opened(tmp_path, split_seed=seed))
        assert found["train"]
        assert found["val"]


def test_camvid_is_recognised_and_its_value_11_ignored(tmp_path):
    for split in ("train", "val", "test"):
        image(tmp_path / split / f"{split}1.png")
        mask(tmp_path / f"{split}annot" / f"{split}1.png", np.array([[0, 10], [11, 3], [1, 2]], np.uint8))
    line = "/SegNet/CamVid/train/train1.png /SegNet/CamVid/trainannot/train1.png\n"
    (tmp_path / "train.txt").write_text(line)
    (tmp_path / "val.txt").write_text("val1\n")
    data = opened(tmp_path)
    assert names(data) == {"train": ["train1"], "val": ["val1"], "test": ["test1"]}
    assert data.classes.names[0] == "sky"
    assert data.classes.names[10] == "bicyclist"
    assert len(data.classes) == 11
    assert data.split("train")[0].target().tolist() == [[0, 10], [255, 3], [1, 2]]
    assert "CamVid" in data.source


def test_generated_scenes():
    data = open_labels(config.Data(root="scenes"))
    assert {split: len(samples) for split, samples in data.splits.items()} == SCENE_COUNTS
    first, other = data.split("train")[0], data.split("val")[0]
    assert first.image().shape == (96, 128, 3)
    assert first.target().shape == (96, 128)
    assert first.target().max() < len(data.classes)
    assert (first.image() != other.image()).any()
    assert "generated scenes (96 x 128): train 3000, val 100, test 200 images" in data.source


def test_settings_that_generated_scenes_cannot_follow():
    assert refused("scenes", map=("1:2",)).startswith("data.map is set, but the generated scenes have no mask files")
    assert refused("scenes", classes="c.yaml").startswith("data.classes is set, but the generated scenes have their")


def test_classes_of_the_root_or_the_setting_and_the_map(tmp_path):
    flat(tmp_path, ["a", "b", "c"])
    (tmp_path / "classes.yaml").write_text("classes: [sky, road, sea]")
    assert opened(tmp_path).classes.names == ("sky", "road", "sea")
    assert opened(tmp_path).source.endswith(f"3 classes of {tmp_path}/classes.yaml")
    (tmp_path / "other.yaml").write_text("classes: [x, y]")
    data = opened(tmp_path, classes=str(tmp_path / "other.yaml"), map=("1:0",))
    assert data.classes.names == ("x", "y")
    assert data.split("train")[0].target().max() == 255
    assert 1 not in data.split("train")[0].target()


def test_colours_of_palette_masks_are_taken_over(tmp_path):
    image(tmp_path / "train/images/a.png")
    mask(tmp_path / "train/masks/a.png", palette=[9, 8, 7, 6, 5, 4])
    classes = opened(tmp_path).classes
    assert classes.colors == ((9, 8, 7), (6, 5, 4))


def one_mask(root: Path, values: list[int]):
    image(root / "train/images/a.png", (1, len(values)))
    mask(root / "train/masks/a.png", np.array([values], np.uint8))


def test_values_with_gaps_answer_with_the_file_to_write(tmp_path):
    one_mask(tmp_path, [1, 2, 5, 255])
    text = refused(tmp_path)
    assert text == (
        f"the masks hold the values 1, 2, 5, 255, which leave gaps; write {tmp_path}/classes.yaml, with your names:\n"
        'classes:\n  - {name: "value 1"}\n  - {name: "value 2"}\n  - {name: "value 5"}\n'
        "map: {1: 0, 2: 1, 5: 2}"
    )
    (tmp_path / "classes.yaml").write_text(text.partition(":\n")[2])  # what it says works
    assert opened(tmp_path).split("train")[0].target().tolist() == [[0, 1, 2, 255]]


def test_masks_of_0_and_255_answer_with_the_file_to_write(tmp_path):
    one_mask(tmp_path, [0, 255])
    text = refused(tmp_path)
    assert text.startswith("the masks hold only 0 and 255, and 255 means ignore; if 255 is the object, write ")
    (tmp_path / "classes.yaml").write_text(text.partition(":\n")[2])
    assert opened(tmp_path).split("train")[0].target().tolist() == [[0, 1]]


def test_a_map_fills_the_gaps_without_a_file(tmp_path):
    one_mask(tmp_path, [0, 255])
    data = opened(tmp_path, map=("255:1",))
    assert data.split("train")[0].target().tolist() == [[0, 1]]


def test_colour_masks_answer_with_the_file_to_write(tmp_path):
    image(tmp_path / "train/images/a.png")
    mask(tmp_path / "train/masks/a.png", np.array([[[0, 0, 0], [255, 0, 0]]] * 3, np.uint8))
    text = refused(tmp_path)
    assert text.startswith("the masks are colour pictures with 2 colours; write ")
    (tmp_path / "classes.yaml").write_text(text.partition(":\n")[2])
    assert opened(tmp_path).split("train")[0].target().tolist() == [[0, 1]] * 3


def test_masks_from_which_no_classes_can_be_told(tmp_path):
    one_mask(tmp_path, [0, 0])
    assert refused(tmp_path) == "the masks hold only 0: a second class is missing"
    mask(tmp_path / "train/masks/a.png", np.arange(300 * 3).reshape(20, 15, 3).astype(np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    mask(tmp_path / "train/masks/a.png", noise)
    assert "different colours, but a mask has one colour or one grey value a class" in refused(tmp_path)
    one_mask(tmp_path, [0])
    sparse = Image.fromarray((np.arange(400, dtype=np.uint16) * 3).reshape(20, 20))
    sparse.save(tmp_path / "train/masks/a.png")
    assert "the masks hold 400 values with gaps, 0 to 1197" in refused(tmp_path)


def test_a_root_that_is_empty_missing_or_a_file(tmp_path):
    assert refused("") == "data.root is empty; write the folder with the images and masks, or `scenes`"
    assert refused(tmp_path / "no").startswith(f"{tmp_path}/no does not exist; data.root is the folder that holds")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file is not a folder" in refused(tmp_path / "file")


def test_a_folder_without_known_subfolders_says_what_was_looked_for(tmp_path):
    image(tmp_path / "photos/a.png")
    assert refused(tmp_path) == (
        f"{tmp_path} holds photos/, but train/images and train/masks (val and test likewise), or images and masks, "
        "or a published data set (ADE20K, Pascal Context, Cityscapes, Pascal VOC, CamVid) were looked for; "
        "rename the folders"
    )


def test_no_images(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/images/a.npy").write_text("")
    assert refused(tmp_path) == (
        f"{tmp_path}/train/images holds a.npy, but no images (png, jpg, jpeg, webp, tif, tiff, bmp)"
    )


def test_images_without_masks_and_masks_without_images(tmp_path):
    flat(tmp_path, ["a"])
    for i in range(7):
        image(tmp_path / f"images/x{i}.png")
    assert refused(tmp_path) == (
        f"7 of 8 images in {tmp_path}/images have no mask of the same name in {tmp_path}/masks: "
        "x0, x1, x2, x3, x4, ...; rename or add the masks, or remove the images"
    )
    for i in range(7):
        (tmp_path / f"images/x{i}.png").rename(tmp_path / f"masks/x{i}.png")
    assert refused(tmp_path) == (
        f"7 of 8 masks in {tmp_path}/masks have no image of the same name in {tmp_path}/images: "
        "x0, x1, x2, x3, x4, ...; rename or add the images, or remove the masks"
    )


def test_two_files_of_one_name(tmp_path):
    flat(tmp_path, ["a"])
    image(tmp_path / "images/a.jpg")
    assert refused(tmp_path) == (
        f"{tmp_path}/images/a.jpg and {tmp_path}/images/a.png have the same name, by which files are paired: remove one"
    )


def test_a_split_in_two_places(tmp_path):
    for folder in ("val", "valid"):
        image(tmp_path / folder / "images/a.png")
        mask(tmp_path / folder / "masks/a.png")
    assert refused(tmp_path) == f"{tmp_path} holds the val images twice, once in {tmp_path}/valid/images; remove one"


def test_only_the_test_split_may_lack_its_masks_folder(tmp_path):
    image(tmp_path / "train/images/a.png")
    mask(tmp_path / "train/masks/a.png")
    image(tmp_path / "test/images/b.png")
    data = opened(tmp_path)
    sample = data.split("test")[0]
    assert sample.target_path is None
    with pytest.raises(UserError, match=r"b\.png has no mask: it can be predicted, but not learnt from or scored"):
        sample.target()
    with pytest.raises(UserError, match=r"there is no split 'val' in .*train 1, test 1 images"):
        data.split("val")
    image(tmp_path / "val/images/c.png")
    assert refused(tmp_path).endswith(f"{tmp_path}/val/images need masks there")


def test_sizes_that_differ_name_both_files(tmp_path):
    image(tmp_path / "train/images/a.png", (4, 5))
    mask(tmp_path / "train/masks/a.png")
    sample = opened(tmp_path).split("train")[0]
    with pytest.raises(UserError) as error:
        sample.target()
    folder = f"{tmp_path}/train"
    assert str(error.value) == (
        f"{folder}/images/a.png is 4 x 5 (height x width), but its mask {folder}/masks/a.png is 3 x 2; "
        "export the mask at the image's size"
    )
    image(tmp_path / "train/images/a.png", (2, 3))
    with pytest.raises(UserError, match=r"turn the mask \(the image is taken upright, as its EXIF rotation says\)"):
        sample.target()
