"""Proves that the published data sets are recognised as they are unpacked, with their classes, labels and splits."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from segmenter import config
from segmenter.data.annotations.formats import FORMATS
from segmenter.data.check import check_labels
from segmenter.data.layouts import open_labels
from segmenter.data.samples import DataSet
from segmenter.data.sets.named_classes import CITYSCAPES_IDS, named_classes
from segmenter.data.sets.named_layouts import LAYOUTS
from segmenter.errors import UserError

COUNTS = {"ade20k": 150, "pascal_context": 60, "pascal_context_59": 59, "cityscapes": 19, "voc": 21, "camvid": 11}


def image(path: Path, size: tuple[int, int] = (1, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(path)


def mask(path: Path, *values: int, palette: bool = False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array([values], np.uint8))
    if palette:
        picture.putpalette([9] * 768)
    picture.save(path)


def listed(path: Path, *names: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def opened(root: Path, **settings) -> DataSet:
    return open_labels(config.Data(root=str(root), **settings))


def refused(root: Path, **settings) -> str:
    with pytest.raises(UserError) as error:
        opened(root, **settings)
    return str(error.value)


def names(data: DataSet) -> dict[str, list[str]]:
    return {split: [sample.name for sample in samples] for split, samples in data.splits.items()}


def labels(data: DataSet, split: str, place: int = 0) -> list[int]:
    return data.split(split)[place].target()[0].tolist()


# ---- classes


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_number_of_classes(name, count):
    classes = named_classes(name)
    assert len(classes) == len(set(classes.names)) == count
    assert all(name == name.strip() for name in classes.names)


def test_every_layout_can_be_chosen():
    published = set(get_args(config.Layout)) - {"auto", "folder", "scenes", *FORMATS}
    assert {*LAYOUTS, "pascal_context_59"} == published == {*COUNTS}


def test_colours_of_ade20k():
    classes = named_classes("ade20k")
    colors = dict(zip(classes.names, classes.colors, strict=True))
    found = [colors[name] for name in ("wall", "building", "sky", "floor", "tree", "flag")]
    assert found == [(120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (92, 0, 255)]
    # The published palette has one colour twice.
    assert colors["road"] == colors["skyscraper"] == (140, 140, 140)
    assert len(set(classes.colors)) == 149


def test_colours_of_voc_follow_the_rule_of_its_bits():
    def color(label: int) -> tuple[int, ...]:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
        return tuple(channels)

    assert named_classes("voc").colors == tuple(map(color, range(21)))
    assert named_classes("voc").names[20] == "tvmonitor"


def test_pascal_context_is_in_the_order_of_its_label_files():
    with_background, without = named_classes("pascal_context"), named_classes("pascal_context_59")
    assert with_background.names[0] == "background"
    assert list(with_background.names[1:]) == sorted(with_background.names[1:])
    assert without.names == with_background.names[1:]
    assert without.colors == with_background.colors[1:]
    assert with_background.colors == named_classes("ade20k").colors[:60]


def test_classes_of_cityscapes():
    classes = named_classes("cityscapes")
    found = {name: (id, color) for name, id, color in zip(classes.names, CITYSCAPES_IDS, classes.colors, strict=True)}
    assert found["road"] == (7, (128, 64, 128))
    assert found["sky"] == (23, (70, 130, 180))
    assert found["bus"] == (28, (0, 60, 100))
    assert found["train"] == (31, (0, 80, 100))
    assert found["bicycle"] == (33, (119, 11, 32))


# ---- ADE20K


@pytest.fixture
def ade20k(tmp_path) -> Path:
    for split, short in (("training", "train"), ("validation", "val")):
        image(tmp_path / f"ADEChallengeData2016/images/{split}/ADE_{short}_00000001.jpg")
        mask(tmp_path / f"ADEChallengeData2016/annotations/{split}/ADE_{short}_00000001.png", 0, 1, 150, 255)
    return tmp_path


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_ade20k(ade20k, below):
    data = opened(ade20k / below)
    assert names(data) == {"train": ["ADE_train_00000001"], "val": ["ADE_val_00000001"]}
    assert labels(data, "train") == [255, 0, 149, 255]
    assert data.source == f"{ade20k / below} (ADE20K): train 1, val 1 images; 150 classes of the layout"


@pytest.mark.parametrize("folder", ["../release_test/testing", "release_test/testing", "images/testing"])
def test_test_images_of_ade20k_have_no_masks(ade20k, folder):
    image(ade20k / "ADEChallengeData2016" / folder / "ADE_test_00000001.jpg")
    data = opened(ade20k)
    assert names(data)["test"] == ["ADE_test_00000001"]
    with pytest.raises(UserError, match="has no mask: it can be predicted, but not learnt from or scored"):
        data.split("test")[0].target()
    assert data.labelled_split() == "val"


def test_own_data_in_the_arrangement_of_ade20k_keep_their_own_classes(tmp_path):
    for split in ("training", "validation"):
        image(tmp_path / f"images/{split}/photo.jpg")
        mask(tmp_path / f"annotations/{split}/photo.png", 0, 1, 1, 255)
    assert opened(tmp_path).classes.names == ("class 0", "class 1")
    assert len(opened(tmp_path, layout="ade20k").classes) == 150
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\n")  # comes with the published files
    assert len(opened(tmp_path).classes) == 150
    (tmp_path / "classes.yaml").write_text("classes: [a, b]")
    assert opened(tmp_path).classes.names == ("a", "b")


def test_a_map_goes_on_top_of_the_layouts(ade20k):
    assert labels(opened(ade20k, map=("150:0",)), "val") == [255, 0, 0, 255]


# ---- Pascal Context


@pytest.fixture
def context(tmp_path) -> Path:
    home = tmp_path / "VOCdevkit/VOC2010"
    for name in ("2008_000002", "2008_000003", "2008_000007"):
        image(home / f"JPEGImages/{name}.jpg")
        mask(home / f"SegmentationClassContext/{name}.png", 0, 1, 59, 255)
        mask(home / f"SegmentationClass/{name}.png", 0, 1, 20, 255, palette=True)
    for kind in ("Segmentation", "SegmentationContext"):
        listed(home / f"ImageSets/{kind}/train.txt", "2008_000007")
        listed(home / f"ImageSets/{kind}/val.txt", "2008_000002")
    return tmp_path


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2010"])
def test_pascal_context_with_background(context, below):
    data = opened(context / below)
    assert names(data) == {"train": ["2008_000007"], "val": ["2008_000002"]}
    assert labels(data, "train") == [0, 1, 59, 255]
    assert "(Pascal Context with background)" in data.source


def test_pascal_context_without_background(context):
    data = opened(context, layout="pascal_context_59")
    assert labels(data, "val") == [255, 0, 58, 255]
    assert data.classes.names[0] == "aeroplane"
    assert "(Pascal Context without background): train 1, val 1 images; 59 classes" in data.source


# ---- VOC


@pytest.fixture
def voc(tmp_path) -> Path:
    home = tmp_path / "VOCdevkit/VOC2012"
    for number in range(5):
        image(home / f"JPEGImages/2007_{number:06}.jpg")
    for number in range(2):
        mask(home / f"SegmentationClass/2007_{number:06}.png", 0, 1, 20, 255, palette=True)
    listed(home / "ImageSets/Segmentation/train.txt", "2007_000000")
    listed(home / "ImageSets/Segmentation/val.txt", "2007_000001")
    return tmp_path


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc(voc, below):
    data = opened(voc / below)
    assert names(data) == {"train": ["2007_000000"], "val": ["2007_000001"]}
    assert labels(data, "train") == [0, 1, 20, 255]  # the index, not the colour
    assert "(Pascal VOC): train 1, val 1 images; 21 classes of the layout" in data.source


def test_test_images_of_voc(voc):
    listed(voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt", "2008_000001", "2008_000002")
    assert list(opened(voc).splits) == ["train", "val"]  # a list without its images
    for number in (1, 2):
        image(voc / f"VOCdevkit/VOC2012/JPEGImages/2008_00000{number}.jpg")
    data = opened(voc)
    assert names(data)["test"] == ["2008_000001", "2008_000002"]
    assert data.split("test")[0].target_path is None


def test_more_masks_of_voc_join_train_but_never_those_of_val(voc):
    for number in range(4):
        mask(voc / f"VOCdevkit/VOC2012/SegmentationClassAug/2007_{number:06}.png", 2, 2, 2, 2)
    data = opened(voc)
    assert names(data) == {"train": ["2007_000000", "2007_000002", "2007_000003"], "val": ["2007_000001"]}
    assert labels(data, "train") == [0, 1, 20, 255]  # VOC's own mask goes first
    assert labels(data, "train", 1) == [2, 2, 2, 2]
    assert "(Pascal VOC with SegmentationClassAug): train 3, val 1 images" in data.source


def test_own_data_in_the_arrangement_of_voc_has_own_classes(tmp_path):
    image(tmp_path / "JPEGImages/photo.jpg")
    mask(tmp_path / "SegmentationClass/photo.png", 0, 1, 1, 0)
    listed(tmp_path / "ImageSets/Segmentation/train.txt", "photo")
    assert opened(tmp_path).classes.names == ("class 0", "class 1")
    (tmp_path / "classes.yaml").write_text("classes: [ground, object]")
    for layout in ("auto", "voc"):
        data = opened(tmp_path, layout=layout)
        assert names(data) == {"train": ["photo"]}
        assert data.classes.names == ("ground", "object")


def test_two_data_sets_in_one_folder(context, voc):
    assert context == voc
    assert refused(voc) == (f"{voc} holds Pascal Context and Pascal VOC; choose --data.layout pascal_context or voc")
    assert len(opened(voc, layout="voc").classes) == 21
    assert len(opened(voc, layout="pascal_context").classes) == 60


# ---- Cityscapes


@pytest.fixture
def cityscapes(tmp_path) -> Path:
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau"), ("test", "berlin")):
        name = f"{split}/{city}/{city}_000000_000019"
        image(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png")
        mask(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", 3, 7, 31, 33)
        image(tmp_path / f"gtFine/{name}_gtFine_color.png")
        mask(tmp_path / f"gtFine/{name}_gtFine_instanceIds.png", 3, 7, 31, 33)
        (tmp_path / f"gtFine/{name}_gtFine_polygons.json").write_text("{}")
    return tmp_path


def test_cityscapes_by_label_ids(cityscapes):
    data = opened(cityscapes)
    assert names(data) == {
        "train": [f"{city}/{city}_000000_000019_leftImg8bit" for city in ("aachen", "bochum")],
        "val": ["lindau/lindau_000000_000019_leftImg8bit"],
        "test": ["berlin/berlin_000000_000019_leftImg8bit"],
    }
    assert labels(data, "train") == [255, 0, 16, 18]
    assert data.split("test")[0].target_path is None  # its files of labels hold nothing
    assert data.labelled_split() == "val"


def test_every_label_id_of_cityscapes_has_a_meaning(cityscapes):
    everything = np.arange(34, dtype=np.uint8)[None]
    found = opened(cityscapes).classes.decode(everything, "mask.png")[0]
    assert [int(id) for id in np.flatnonzero(found != 255)] == list(CITYSCAPES_IDS)
    assert found[list(CITYSCAPES_IDS)].tolist() == list(range(19))


def test_cityscapes_by_train_ids_where_all_are_there(cityscapes):
    for split, city in (("train", "aachen"), ("train", "bochum")):
        mask(cityscapes / f"gtFine/{split}/{city}/{city}_000000_000019_gtFine_labelTrainIds.png", 255, 0, 16, 18)
    assert opened(cityscapes).split("val")[0].target_path.name.endswith("labelIds.png")
    mask(cityscapes / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelTrainIds.png", 255, 0, 16, 18)
    data = opened(cityscapes)
    assert data.split("train")[0].target_path.name.endswith("_labelTrainIds.png")
    assert labels(data, "val") == [255, 0, 16, 18]


def test_images_of_cityscapes_without_masks_are_named(cityscapes):
    (cityscapes / "gtFine/train/bochum/bochum_000000_000019_gtFine_labelIds.png").unlink()
    assert refused(cityscapes) == (
        f"1 of 2 images in {cityscapes}/leftImg8bit/train have no *_gtFine_labelIds.png in {cityscapes}/gtFine/train: "
        "bochum/bochum_000000_000019_leftImg8bit; unpack gtFine_trainvaltest.zip there"
    )


# ---- all of them


@pytest.mark.parametrize("layout", sorted(COUNTS))
def test_a_chosen_layout_that_is_not_there_says_what_it_needs(tmp_path, layout):
    image(tmp_path / "photos/a.png")
    text = refused(tmp_path, layout=layout)
    known = LAYOUTS[layout.removesuffix("_59")]
    assert all(f"{folder}/" in known.expected for folder in known.folders)
    assert text == (
        f"{tmp_path} holds photos/, but {known.title} has {known.expected}; give the folder that it was unpacked into"
    )


def test_a_chosen_layout_without_its_lists(voc):
    (voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").unlink()
    (voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    assert "but Pascal VOC has JPEGImages/, SegmentationClass/ and lists in" in refused(voc, layout="voc")


@pytest.mark.parametrize("name", ["ade20k", "context", "voc", "cityscapes"])
def test_the_check_reads_them_all(request, name):
    data = opened(request.getfixturevalue(name))
    report = check_labels(data)
    report.refuse_errors()
    assert sum("no training mask holds class" in text for text in report.warnings) == len(data.classes) - len(
        set(labels(data, "train")) - {255}
    )
    assert report.pixel_counts["val"].sum() == sum(label != 255 for label in labels(data, "val"))
