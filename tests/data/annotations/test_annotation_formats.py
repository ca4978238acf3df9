"""Each format of annotations as its tool writes it: which pixels, classes, splits and names come of it."""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.data.samples import DataSet

SIZE = (40, 60)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Writes a plain picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 120, 40)).save(path)
    return path


def write(path: Path, content: object) -> Path:
    """Writes JSON, or a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def opened(root: Path, **settings) -> DataSet:
    return open_labels(Data(str(root), **settings))


def labels_of(data: DataSet, name: str) -> np.ndarray:
    """The labels of a picture, wherever it was dealt to."""
    return next(sample.target() for split in data.splits.values() for sample in split if sample.name == name)


def names_of(data: DataSet) -> dict[str, list[str]]:
    return {split: [sample.name for sample in samples] for split, samples in data.splits.items()}


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def expected(*squares: tuple[int, int, int, int, int], rest: int = 0) -> np.ndarray:
    """Labels with (left, top, right, bottom, value) drawn one after the other."""
    labels = np.full(SIZE, rest)
    for left, top, right, bottom, value in squares:
        labels[top:bottom, left:right] = value
    return labels


def coco_content(segmentations: list, categories: list | None = None, file: str = "a.jpg", **more) -> dict:
    """COCO's JSON with one image; a segmentation may come with its category and whether it is a crowd."""
    annotations = []
    for number, (category, segmentation, crowd) in enumerate(segmentations):
        annotations.append(
            {"id": number, "image_id": 7, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
        )
    categories = categories or [{"id": 3, "name": "cat"}, {"id": 11, "name": "dog"}]
    images = [{"id": 7, "file_name": file, "height": SIZE[0], "width": SIZE[1]}]
    return {"images": images, "annotations": annotations, "categories": categories} | more


def ring_mask() -> np.ndarray:
    """A square with a hole (H W, uint8)."""
    pixels = np.zeros(SIZE, np.uint8)
    pixels[5:35, 20:50] = 1
    pixels[15:25, 30:40] = 0
    return pixels


def test_coco_polygons_run_lengths_and_crowds(tmp_path):
    picture(tmp_path / "photos/a.jpg")
    packed = coco.encode(np.asfortranarray(ring_mask()))
    packed = {"size": list(SIZE), "counts": packed["counts"].decode()}
    lengths = np.diff(np.flatnonzero(np.diff(np.pad(ring_mask().T.ravel(), 1, constant_values=(1, 2)).astype(int))))
    plain = {"size": list(SIZE), "counts": lengths.tolist()}
    parts = [square(0, 0, 10, 10), square(12, 0, 14, 40)]
    for number, run_lengths in enumerate((packed, plain)):
        found = [(11, run_lengths, 0), (3, parts, 0), (3, [square(0, 0, 60, 40)], 1)]
        write(tmp_path / "annotations.json", coco_content(found))
        data = opened(tmp_path)
        assert data.classes.names == ("background", "cat", "dog")
        wanted = np.where(ring_mask() == 1, 2, 1)  # the crowd lies below all else, in holes too
        assert (labels_of(data, "a") == wanted).all(), number


def test_coco_later_annotations_cover_earlier_ones_and_the_rest_may_be_ignored(tmp_path):
    picture(tmp_path / "a.jpg")
    found = [(3, [square(0, 0, 30, 30)], 0), (11, square(20, 20, 50, 40), 0)]
    write(tmp_path / "x.json", coco_content(found))
    assert (labels_of(opened(tmp_path), "a") == expected((0, 0, 30, 30, 1), (20, 20, 50, 40, 2))).all()
    ignored = opened(tmp_path, unlabelled="ignore")
    assert ignored.classes.names == ("cat", "dog")
    assert (labels_of(ignored, "a") == expected((0, 0, 30, 30, 0), (20, 20, 50, 40, 1), rest=255)).all()
    mapped = opened(tmp_path, map=("2:255",))
    assert (labels_of(mapped, "a") == expected((0, 0, 30, 30, 1), (20, 20, 50, 40, 255))).all()


def test_coco_as_roboflow_exports_it(tmp_path):
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "dog", "supercategory": "animals"},
    ]
    for split in ("train", "valid", "test"):
        picture(tmp_path / split / "a.jpg")
        content = coco_content([(2, [square(0, 0, 9, 9)], 0), (1, [], 0)], categories)
        write(tmp_path / split / "_annotations.coco.json", content)
    data = opened(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert names_of(data) == {"train": ["a"], "val": ["a"], "test": ["a"]}
    assert (labels_of(data, "a") == expected((0, 0, 9, 9, 2))).all()
    assert len(data.notes) == 1
    assert data.notes[0].startswith("3 annotations are boxes without an outline, and are left out")


def test_coco_splits_of_the_published_names_leave_other_tasks_out(tmp_path):
    for split in ("train2017", "val2017"):
        picture(tmp_path / split / f"{split}.jpg")
        content = coco_content([(3, [square(0, 0, 9, 9)], 0)], file=f"{split}.jpg")
        write(tmp_path / f"annotations/instances_{split}.json", content)
        write(tmp_path / f"annotations/person_keypoints_{split}.json", content)
    assert names_of(opened(tmp_path)) == {"train": ["train2017"], "val": ["val2017"]}


def test_own_classes_keep_their_order_and_what_is_called_background_is_the_rest(tmp_path):
    picture(tmp_path / "a.jpg")
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "Background"}, {"id": 3, "name": "dog"}]
    write(tmp_path / "x.json", coco_content([(3, [square(0, 0, 9, 9)], 0)], categories))
    data = opened(tmp_path)
    assert data.classes.names == ("cat", "Background", "dog")
    assert (labels_of(data, "a") == expected((0, 0, 9, 9, 2), rest=1)).all()
    own = write(tmp_path.parent / "own.yaml", "classes: [Background, dog, bird, cat]")
    data = opened(tmp_path, classes=str(own))
    assert data.classes.names == ("Background", "dog", "bird", "cat")
    assert (labels_of(data, "a") == expected((0, 0, 9, 9, 1))).all()


def yolo_row(label: int, *corners: float) -> str:
    """A row of a polygon in pixels."""
    shares = np.array(corners).reshape(-1, 2) / SIZE[::-1]
    return f"{label} {' '.join(f'{share:.6f}' for share in shares.ravel())}\n"


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}"])
def test_yolo_in_roboflows_folders(tmp_path, names):
    write(tmp_path / "data.yaml", f"train: ../train/images\nval: ../valid/images\nnc: 2\nnames: {names}\n")
    for split in ("train", "valid"):
        picture(tmp_path / split / "images/a.jpg")
        rows = [yolo_row(0, *square(0, 0, 30, 30)), yolo_row(1, *square(20, 20, 50, 40)), "1 0.5 0.5 0.1 0.1\n"]
        write(tmp_path / split / "labels/a.txt", "".join(rows))
    picture(tmp_path / "train/images/empty.jpg")
    write(tmp_path / "train/labels/empty.txt", "")
    picture(tmp_path / "train/images/without.jpg")
    data = opened(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert names_of(data) == {"train": ["a", "empty"], "val": ["a"]}
    assert (labels_of(data, "a") == expected((0, 0, 30, 30, 1), (20, 20, 50, 40, 2))).all()
    assert not labels_of(data, "empty").any()
    assert [note.partition(" (")[0] for note in data.notes] == [
        "2 rows are boxes without an outline, and are left out",
        "1 pictures have no file of labels, and are left out",
    ]


def test_yolo_splits_by_folders_that_data_yaml_names(tmp_path):
    write(tmp_path / "data.yaml", "path: /home/me/set\ntrain: images/one\nval: [images/two]\nnames: [cat]\n")
    for folder, name in (("one", "a"), ("two", "b")):
        picture(tmp_path / "images" / folder / f"{name}.png")
        write(tmp_path / "labels" / folder / f"{name}.txt", yolo_row(0, 0, 0, 60, 0, 0, 40))
    assert names_of(opened(tmp_path)) == {"train": ["a"], "val": ["b"]}


def test_yolo_without_yaml_and_flat(tmp_path):
    write(tmp_path / "classes.txt", "cat\ndog\n")
    picture(tmp_path / "a.png")
    write(tmp_path / "a.txt", yolo_row(1, *square(0, 0, 6, 4)))
    data = opened(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert (labels_of(data, "a") == expected((0, 0, 6, 4, 2))).all()


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def labelme_content(shapes: list, image: str = "a.jpg") -> dict:
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None,
            "imageHeight": SIZE[0], "imageWidth": SIZE[1]}  # fmt: skip


def labelme_shape(label: str, points: list, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def test_labelme_polygons_boxes_bitmaps_and_ignored_parts(tmp_path):
    picture(tmp_path / "pictures/a.jpg")
    bitmap = base64.b64encode(png(np.eye(5, 4, dtype=np.uint8) * 255)).decode()
    shapes = [
        labelme_shape("dog", [[0, 0], [30, 0], [30, 30], [0, 30]]),
        labelme_shape("cat", [[50, 40], [20, 20]], "rectangle"),
        labelme_shape("__ignore__", [[0, 30], [10, 30], [10, 40], [0, 40]]),
        labelme_shape("_background_", [[0, 0], [5, 0], [5, 5], [0, 5]]),
        labelme_shape("dog", [[55, 0], [58, 4]], "mask", mask=bitmap),
        labelme_shape("dog", [[1, 1], [9, 9]], "line"),
        labelme_shape("dog", [[1, 1], [9, 9]]),
    ]
    write(tmp_path / "json/a.json", labelme_content(shapes, "..\\pictures\\a.jpg"))
    data = opened(tmp_path)
    assert data.classes.names == ("_background_", "cat", "dog")
    wanted = expected((0, 0, 30, 30, 2), (20, 20, 50, 40, 1), (0, 30, 10, 40, 255), (0, 0, 5, 5, 0))
    wanted[0:5, 55:59][np.eye(5, 4, dtype=bool)] = 2
    assert (labels_of(data, "a") == wanted).all()
    assert [note.partition(" (")[0] for note in data.notes] == [
        "1 shapes are lines or points without an area, and are left out",
        "1 outlines have fewer than three points, and are left out",
    ]


def test_labelme_names_in_the_order_of_labels_txt(tmp_path):
    write(tmp_path / "labels.txt", "__ignore__\n_background_\ndog\nbird\ncat\n")
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.json", labelme_content([labelme_shape("cat", [[0, 0], [9, 0], [9, 9], [0, 9]])]))
    data = opened(tmp_path)
    assert data.classes.names == ("_background_", "dog", "bird", "cat")
    assert (labels_of(data, "a") == expected((0, 0, 9, 9, 3))).all()


def label_studio_result(kind: str, label: str, **value) -> dict:
    return {"type": kind, "from_name": "tag", "to_name": "image", "original_width": SIZE[1],
            "original_height": SIZE[0], "value": {kind: [label]} | value}  # fmt: skip


def percent(*corners: float) -> list[list[float]]:
    return (np.array(corners).reshape(-1, 2) / SIZE[::-1] * 100).tolist()


def test_label_studio_polygons_boxes_ellipses_and_whose_annotation_counts(tmp_path):
    picture(tmp_path / "images/a.jpg")
    polygon = label_studio_result("polygonlabels", "dog", points=percent(*square(0, 0, 30, 30)))
    box = label_studio_result(
        "rectanglelabels", "cat", x=20 / 0.6, y=20 / 0.4, width=30 / 0.6, height=20 / 0.4, rotation=0
    )
    other = label_studio_result("polygonlabels", "bird", points=percent(*square(0, 0, 60, 40)))
    keypoint = label_studio_result("keypointlabels", "dog", x=1, y=1, width=1)
    task = {
        "id": 1,
        "data": {"note": "by hand", "image": "http://localhost:8080/data/upload/3/1f2e3d4c-a.jpg?x=1"},
        "annotations": [
            {"id": 1, "result": [other]},
            {"id": 2, "ground_truth": True, "result": [polygon, box, keypoint]},
            {"id": 3, "was_cancelled": True, "result": [other]},
            {"id": 4, "result": [other]},
        ],
    }
    write(tmp_path / "project.json", [task, {"id": 2, "data": {"image": "b.jpg"}, "annotations": []}])
    data = opened(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert (labels_of(data, "a") == expected((0, 0, 30, 30, 2), (20, 20, 50, 40, 1))).all()
    assert len(data.notes) == 2


def test_label_studio_json_min_and_local_files(tmp_path):
    picture(tmp_path / "set/a b.jpg")
    value = {"points": percent(*square(0, 0, 30, 30)), "polygonlabels": ["dog"], "original_width": 60,
             "original_height": 40}  # fmt: skip
    task = {"image": "/data/local-files/?d=set/a%20b.jpg", "id": 1, "tag": [value], "annotator": 1, "annotation_id": 1}
    write(tmp_path / "min.json", [task])
    assert (labels_of(opened(tmp_path), "a b") == expected((0, 0, 30, 30, 1))).all()


def cvat_content(*shapes: str, name: str = "a.jpg", more: str = "") -> str:
    labels = "<labels><label><name>cat</name><color>#ff0000</color></label><label><name>dog</name></label></labels>"
    image = f'<image id="0" name="{name}" width="60" height="40"{more}>{"".join(shapes)}</image>'
    version = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    return f"{version}<meta><job>{labels}</job></meta>{image}</annotations>"


def test_cvat_shapes_in_their_order(tmp_path):
    picture(tmp_path / "images/a.jpg")
    shapes = [
        '<polygon label="dog" points="0,0;30,0;30,30;0,30" z_order="1"/>',
        '<box label="cat" xtl="20" ytl="20" xbr="50" ybr="40" z_order="0"><attribute name="x">1</attribute></box>',
        '<mask label="cat" rle="1, 2, 3, 2" left="52" top="4" width="4" height="2" z_order="2"/>',
        '<ellipse label="dog" cx="50" cy="10" rx="0.9" ry="0.9" z_order="0"/>',
        '<polyline label="dog" points="0,0;30,0"/>',
    ]
    write(tmp_path / "annotations.xml", cvat_content(*shapes))
    data = opened(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert data.classes.colors[1] == (255, 0, 0)
    wanted = expected((20, 20, 50, 40, 1), (0, 0, 30, 30, 2), (49, 9, 51, 11, 2))
    wanted[4:6, 52:56] = [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert (labels_of(data, "a") == wanted).all()
    assert data.notes[0].startswith("1 shapes are of the kind polyline, and are left out")


def test_cvat_subsets_are_splits(tmp_path):
    for name, subset in (("a", "Train"), ("b", "Validation")):
        picture(tmp_path / f"images/{subset}/{name}.jpg")
        shape = '<polygon label="dog" points="0,0;30,0;30,30;0,30"/>'
        content = cvat_content(shape, name=f"{name}.jpg", more=f' subset="{subset}"')
        write(tmp_path / f"{name}/annotations.xml", content)
    assert names_of(opened(tmp_path)) == {"train": ["a"], "val": ["b"]}


def supervisely_bitmap(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    content = io.BytesIO()
    image.save(content, "PNG", transparency=0)
    return base64.b64encode(zlib.compress(content.getvalue())).decode()


def supervisely(root: Path, objects: list, split: str = "train") -> Path:
    classes = [{"title": "dog", "shape": "any", "color": "#00FF00"}, {"title": "cat", "shape": "polygon"}]
    write(root / "meta.json", {"classes": classes, "tags": []})
    picture(root / split / "img/a.jpg")
    content = {"description": "", "size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects}
    write(root / split / "ann/a.jpg.json", content)
    return root


def test_supervisely_polygons_with_holes_and_bitmaps(tmp_path):
    hole = [[10, 10], [20, 10], [20, 20], [10, 20]]
    objects = [
        {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[0, 0], [60, 40]], "interior": []}},
        {"classTitle": "dog", "geometryType": "polygon",
         "points": {"exterior": [[0, 0], [30, 0], [30, 30], [0, 30]], "interior": [hole]}},
        {"classTitle": "dog", "geometryType": "bitmap",
         "bitmap": {"origin": [50, 30], "data": supervisely_bitmap(np.eye(6, 8))}},
        {"classTitle": "dog", "geometryType": "point", "points": {"exterior": [[0, 0]], "interior": []}},
    ]  # fmt: skip
    for split in ("train", "val"):
        supervisely(tmp_path, objects, split)
    data = opened(tmp_path)
    assert data.classes.names == ("background", "dog", "cat")
    assert data.classes.colors[1] == (0, 255, 0)
    assert names_of(data) == {"train": ["a"], "val": ["a"]}
    wanted = expected((0, 0, 60, 40, 2), (0, 0, 30, 30, 1), (10, 10, 20, 20, 2))
    wanted[30:36, 50:58][np.eye(6, 8, dtype=bool)] = 1
    assert (labels_of(data, "a") == wanted).all()


COLORED = np.zeros((*SIZE, 3), np.uint8)
COLORED[:10] = (200, 10, 10)
COLORED[30:] = (0, 0, 99)
IN_WORDS = expected((0, 0, 60, 10, 1), (0, 30, 60, 40, 2))


@pytest.mark.parametrize("palette", [False, True])
def test_a_labelmap_gives_the_colours_of_rgb_and_palette_masks(tmp_path, palette):
    picture(tmp_path / "JPEGImages/a.jpg")
    table = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:200,10,10::\nroad:0,0,99:a,b:\nvoid:1,1,1::\n"
    write(tmp_path / "labelmap.txt", table)
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "SegmentationObject").mkdir()
    mask = COLORED.copy()
    mask[20, :5] = (224, 224, 192)
    mask[20, 5:9] = (1, 1, 1)
    image = Image.fromarray(mask)
    (image.quantize(16) if palette else image).save(tmp_path / "SegmentationClass/a.png")
    image.save(tmp_path / "SegmentationObject/a.png")
    data = opened(tmp_path)
    assert data.classes.names == ("background", "roof", "road")
    wanted = IN_WORDS.copy()
    wanted[20, :9] = 255
    assert (labels_of(data, "a") == wanted).all()


def test_roboflows_masks_with_classes_csv(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "a_jpg.rf.12.jpg")
        Image.fromarray((IN_WORDS * 3).astype(np.uint8)).save(tmp_path / split / "a_jpg.rf.12_mask.png")
        write(tmp_path / split / "_classes.csv", "Pixel Value, Class\n0, background\n3, roof\n6, road\n")
    data = opened(tmp_path)
    assert data.classes.names == ("background", "roof", "road")
    assert list(data.splits) == ["train", "val"]
    sample = data.split("val")[0]
    assert (sample.target() == IN_WORDS).all()


def test_a_class_dict_and_folders_of_labels(tmp_path):
    write(tmp_path / "class_dict.csv", "name,r,g,b\nroof,200,10,10\nroad,0,0,99\nVoid,0,0,0\n")
    for split in ("train", "val"):
        picture(tmp_path / split / "a.png")
        (tmp_path / f"{split}_labels").mkdir()
        Image.fromarray(COLORED).save(tmp_path / f"{split}_labels/a_L.png")
    data = opened(tmp_path)
    assert data.classes.names == ("roof", "road")
    for split in ("train", "val"):
        assert (data.split(split)[0].target() == np.where(IN_WORDS == 0, 255, IN_WORDS - 1)).all()


def test_a_folder_of_pascal_voc_with_own_classes_and_without_lists(tmp_path):
    for name in "abcdefghijkl":
        picture(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        path = tmp_path / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"
        path.parent.mkdir(exist_ok=True)
        mask = Image.fromarray(IN_WORDS.astype(np.uint8))
        mask.putpalette([0, 0, 0, 200, 10, 10, 0, 0, 99])
        mask.save(path)
    data = opened(tmp_path)
    assert data.classes.names == ("class 0", "class 1", "class 2")
    assert data.classes.colors == ((0, 0, 0), (200, 10, 10), (0, 0, 99))
    assert sum(map(len, data.splits.values())) == 12
    lists = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    write(lists / "train.txt", "a\nb\n")
    write(lists / "val.txt", "c\n")
    data = opened(tmp_path)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 2, "val": 1}
    assert data.notes[0].startswith("9 pictures are in no list, and are left out")


def test_masks_that_are_there_come_before_shapes(tmp_path, write_data):
    root = write_data(tmp_path / "discs")
    (root / "classes.yaml").unlink()
    write(root / "annotations.json", coco_content([(3, [square(0, 0, 9, 9)], 0)], file="train0.png"))
    assert "image and mask folders" in opened(root).source
    with pytest.raises(ValueError, match="64 x 64"):
        opened(root, layout="coco").split("train")[0].target()
