"""Records what other libraries write and rasterise: tests/goldens/annotations/NAME.zip and NAME.npz.

Run by hand, in an environment of its own, as these libraries need many others:
    pip install datumaro==1.13.12 supervision==0.31.2 labelme==6.3.1
    pip install --no-deps label-studio-sdk==2.1.2 ijson
    python tests/data/annotations/recording.py tests/goldens/annotations
A zip is a data folder; the npz holds `names`, the classes (0 is what no shape covers), and the labels of each picture.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import datumaro as dm
import numpy as np
import supervision as sv
from label_studio_sdk.converter.brush import decode_rle, encode_rle
from labelme._label_file import ShapeDict, write_label_file
from labelme.utils import img_arr_to_b64, shapes_to_label
from PIL import Image

SIZE = (960, 1280)  # an edge takes a share of the pixels that grows as pictures shrink
NAMES = ("background", "car", "tree", "road")
COLORS = {
    name: [color, [], []]
    for name, color in zip(NAMES, ((0, 0, 0), (9, 0, 142), (10, 200, 7), (128, 64, 128)), strict=True)
}


def blobs(seed: int, count: int = 3) -> list[np.ndarray]:
    """Star-shaped polygons (N 2) with a decimal, no two of equal class, some across the picture's border."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        middle, corners = generator.uniform(0, 1, 2) * SIZE[::-1], generator.integers(4, 12)
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        radius = generator.uniform(20, 90, corners)
        ring = middle + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        found.append(np.round(ring.clip(0, SIZE[::-1]), 1))
    return found


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """A ring (H W, bool): a disc with a hole."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(columns - x, rows - y)
    return (distance < radius) & (distance > radius / 3)


def pictures(folder: Path, count: int = 3) -> list[str]:
    """Writes plain pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", SIZE[::-1], (40 * i, 90, 120)).save(folder / f"p{i}.png")
    return [f"p{i}" for i in range(count)]


def of_datumaro(root: Path, form: str, masks: bool, **options) -> dict[str, np.ndarray]:
    """A data set in one of datumaro's formats, and its own masks of it."""
    source = Path(tempfile.mkdtemp())
    items, truth = [], {}
    for i, name in enumerate(pictures(source)):
        shapes = [dm.Polygon(ring.ravel().tolist(), label=k, id=10 * i + k + 1, group=10 * i + k + 1, z_order=k)
                  for k, ring in enumerate(blobs(i))]  # fmt: skip
        if masks:
            # datumaro writes bitmaps as crowds, which lie below all else in COCO's files.
            shapes.insert(0, dm.Mask(disc(320, 240, 60), label=1, id=10 * i + 9, group=10 * i + 9, z_order=-1))
        labels = np.zeros(SIZE, np.uint8)
        for shape in shapes:
            pixels = shape.image if isinstance(shape, dm.Mask) else polygon_mask(shape)
            labels[pixels.astype(bool)] = shape.label + 1
        if form == "voc_segmentation":
            shapes = [dm.Mask(labels == k + 1, label=k + 1, group=k + 1, id=k + 1) for k in range(3)]
        truth[name] = labels
        picture = dm.Image.from_file(path=str(source / f"{name}.png"))
        items.append(dm.DatasetItem(name, subset=("train", "val", "test")[i], media=picture, annotations=shapes))
    names = NAMES if form == "voc_segmentation" else NAMES[1:]
    data = dm.Dataset.from_iterable(items, categories=list(names))
    data.export(str(root), form, save_media=True, **options)
    return truth


def polygon_mask(shape: dm.Polygon) -> np.ndarray:
    """As datumaro makes polygons into masks."""
    from datumaro.util.mask_tools import rles_to_mask

    return rles_to_mask([shape.points], *SIZE[::-1])


def of_supervision(root: Path, form: str) -> dict[str, np.ndarray]:
    """A data set of polygons as supervision writes it, and its masks as it reads it again."""
    source = root / "source"
    paths, annotations = [], {}
    for i, name in enumerate(pictures(source)):
        path = str(source / f"{name}.png")
        masks = np.array([sv.polygon_to_mask(ring.round().astype(int), SIZE[::-1]) > 0 for ring in blobs(20 + i)])
        paths.append(path)
        annotations[path] = sv.Detections(sv.mask_to_xyxy(masks), mask=masks, class_id=np.arange(3))
    data = sv.DetectionDataset(classes=list(NAMES[1:]), images=paths, annotations=annotations)
    images, labels = root / "images", root / "labels"
    if form == "yolo":
        data.as_yolo(str(images), str(labels), str(root / "data.yaml"))
        again = sv.DetectionDataset.from_yolo(str(images), str(labels), str(root / "data.yaml"), force_masks=True)
    elif form == "voc":
        data.as_pascal_voc(str(images), str(labels))
        again = sv.DetectionDataset.from_pascal_voc(str(images), str(labels), force_masks=True)
    else:
        data.as_coco(str(images), str(root / "annotations.json"))
        again = sv.DetectionDataset.from_coco(str(images), str(root / "annotations.json"), force_masks=True)
    shutil.rmtree(source)
    truth = {}
    for path, _, found in again:
        labels = np.zeros(SIZE, np.uint8)
        for mask, label in zip(found.mask, found.class_id, strict=True):
            labels[mask] = NAMES.index(again.classes[label])
        truth[Path(path).stem] = labels
    return truth


def of_labelme(root: Path) -> dict[str, np.ndarray]:
    """Polygons, a box, a circle and a bitmap, as labelme keeps and draws them."""
    truth = {}
    box = np.zeros((61, 41), bool)
    box[5:50, 3:30] = True
    for i, name in enumerate(pictures(root)):
        shapes = [shape("polygon", NAMES[1 + k], ring.tolist()) for k, ring in enumerate(blobs(40 + i, 2))]
        shapes += [
            shape("rectangle", "road", [[20.0, 30.0], [90.0, 75.0]]),
            shape("circle", "car", [[500.0, 90.0], [530.0, 90.0]]),
            shape("mask", "tree", [[300.0, 200.0], [340.0, 260.0]], box),
        ]
        labels, _ = shapes_to_label((*SIZE, 3), shapes, {name: k for k, name in enumerate(NAMES)})
        truth[name] = labels.astype(np.uint8)
        write_labelme(root / f"{name}.json", shapes)
    return truth


def shape(kind: str, label: str, points: list, mask: np.ndarray | None = None) -> ShapeDict:
    """A shape as labelme has it."""
    return ShapeDict(
        label=label, points=points, shape_type=kind, flags={}, description="", group_id=None, mask=mask, other_data={}
    )


def write_labelme(path: Path, shapes: list) -> None:
    """A file as labelme writes it."""
    packed = [
        one | {"mask": None if one["mask"] is None else img_arr_to_b64(one["mask"].astype(np.uint8))} for one in shapes
    ]
    write_label_file(str(path), shapes=packed, image_path=f"{path.stem}.png", image_height=SIZE[0], image_width=SIZE[1])


def of_label_studio(root: Path) -> dict[str, np.ndarray]:
    """Brush strokes as Label Studio's SDK packs and unpacks them."""
    truth, tasks = {}, []
    for i, name in enumerate(pictures(root)):
        results, labels = [], np.zeros(SIZE, np.uint8)
        for k, mask in enumerate((disc(200, 150 + 30 * i, 80), disc(260, 200, 70), np.eye(*SIZE, dtype=bool))):
            rgba = np.repeat((mask * 255).astype(np.uint8).ravel(), 4)
            packed = [int(byte) for byte in encode_rle(rgba)]
            labels[decode_rle(packed).reshape(*SIZE, 4)[..., 3] > 0] = k + 1
            value = {"format": "rle", "rle": packed, "brushlabels": [NAMES[k + 1]]}
            results.append({"id": f"r{k}", "type": "brushlabels", "from_name": "tag", "to_name": "image",
                            "original_height": SIZE[0], "original_width": SIZE[1], "value": value})  # fmt: skip
        truth[name] = labels
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}.png"}
        tasks.append({"id": i, "data": data, "annotations": [{"id": i, "was_cancelled": False, "result": results}]})
    (root / "export.json").write_text(json.dumps(tasks))
    return truth


RECORDED = {
    "datumaro_coco": lambda root: of_datumaro(root, "coco_instances", True),
    "datumaro_cvat": lambda root: of_datumaro(root, "cvat", False),
    "datumaro_voc": lambda root: of_datumaro(root, "voc_segmentation", False, label_map=COLORS),
    "supervision_yolo": lambda root: of_supervision(root, "yolo"),
    "supervision_coco": lambda root: of_supervision(root, "coco"),
    "supervision_voc": lambda root: of_supervision(root, "voc"),
    "labelme": of_labelme,
    "label_studio": of_label_studio,
}


def main(out: Path, wanted: list[str]) -> None:
    """Records the cases."""
    for name in wanted or RECORDED:
        root = Path(tempfile.mkdtemp()) / "data"
        root.mkdir()
        truth = RECORDED[name](root)
        shutil.make_archive(str(out / name), "zip", root)
        np.savez_compressed(out / f"{name}.npz", names=np.array(NAMES), **truth)
        print(name, sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
