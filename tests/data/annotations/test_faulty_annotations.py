"""Files of annotations with one fault each, some made to harm: each is named in a sentence, and costs little."""

import base64
import json
import os
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_annotation_formats import (
    SIZE,
    coco_content,
    cvat_content,
    label_studio_result,
    labelme_content,
    labelme_shape,
    picture,
    png,
    square,
    supervisely,
    write,
    yolo_row,
)

from segmenter import open_data
from segmenter.data.annotations.unpacked import unpacked
from segmenter.errors import UserError

MOST_MEMORY = 64 * 2**20  # bytes that reading a hostile file may take: none of the files has more than 2 MB
Fault = Callable[[Path], object]


def of_coco(change: Callable[[dict], object], segmentation: object = None) -> Fault:
    """COCO's JSON with one thing changed."""

    def make(root: Path) -> None:
        picture(root / "a.jpg")
        content = coco_content([(3, segmentation or [square(0, 0, 9, 9)], 0)])
        change(content)
        write(root / "x.json", content)

    return make


def with_segmentation(segmentation: object) -> Fault:
    return of_coco(lambda content: content["annotations"][0].update(segmentation=segmentation))


def with_text(content: str | bytes, name: str = "x.json", others: Fault | None = None) -> Fault:
    """A file of exactly this content beside a picture."""

    def make(root: Path) -> None:
        picture(root / "a.jpg")
        if others:
            others(root)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def of_yolo(row: str, yaml: str = "names: [cat, dog]") -> Fault:
    def make(root: Path) -> None:
        picture(root / "images/a.jpg")
        write(root / "labels/a.txt", row)
        write(root / "data.yaml", yaml)

    return make


def of_labelme(shape: object, image: str = "a.jpg") -> Fault:
    def make(root: Path) -> None:
        picture(root / "a.jpg")
        write(root / "b.json", labelme_content([shape], image))

    return make


def of_label_studio(**value) -> Fault:
    def make(root: Path) -> None:
        picture(root / "a.jpg")
        result = label_studio_result("brushlabels", "dog", **value)
        write(root / "x.json", [{"id": 5, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": [result]}]}])

    return make


def of_cvat(*shapes: str, name: str = "a.jpg") -> Fault:
    return with_text(cvat_content(*shapes, name=name), "annotations.xml")


def of_supervisely(**bitmap) -> Fault:
    found = {"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"origin": [0, 0]} | bitmap}
    return lambda root: supervisely(root, [found])


def bomb(size: int) -> str:
    """A zlib stream of zeros in base64, of which a gigabyte would be a megabyte."""
    return base64.b64encode(zlib.compress(bytes(size), 9)).decode()


def wide_png() -> bytes:
    """A small file that would be a picture of 900 million pixels."""
    content = bytearray(png(np.zeros((2, 2), np.uint8)))
    content[16:24] = (30000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def lines_of(number: int) -> str:
    return "[" * number + "]" * number


ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
    "<annotations><image name='&b;'/></annotations>"
)
OUTSIDE = (
    '<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<annotations><image name='a.jpg'><box label='&a;'/></image></annotations>"
)
DEEP = "<annotations>" + "<image>" * 5000 + "</image>" * 5000 + "</annotations>"
HUGE_LENGTHS = {"size": [10**6, 10**6], "counts": [10**12]}


def masks(root: Path) -> None:
    """A mask for the picture a.jpg."""
    Image.new("L", SIZE[::-1]).save(root / "a_mask.png")


def bitmap(content: bytes) -> dict:
    """A bitmap of labelme in a box of 4 x 4."""
    return labelme_shape("x", [[0, 0], [3, 3]], "mask", mask=base64.b64encode(content).decode())


FAULTS: dict[str, tuple[Fault, str]] = {
    "category missing": (
        of_coco(lambda content: content["annotations"][0].update(category_id=99)),
        "annotation 0 has the category 99, but `categories` has the ids 3, 11",
    ),
    "image of an annotation missing": (
        of_coco(lambda content: content["annotations"][0].update(image_id="x")),
        "annotation 0 belongs to the image 'x', but `images` has no such id",
    ),
    "picture missing": (
        of_coco(lambda content: content["images"][0].update(file_name="gone.jpg")),
        "image 7 is 'gone.jpg', which does not lie below",
    ),
    "path that leads outside": (
        of_coco(lambda content: content["images"][0].update(file_name="../../../../etc/hostname.jpg")),
        "image 7 is '../../../../etc/hostname.jpg', which does not lie below",
    ),
    "name that is no text": (
        of_coco(lambda content: content["images"][0].update(file_name={"a": 1})),
        "image 7 is {'a': 1}, which does not lie below",
    ),
    "image twice": (
        of_coco(lambda content: content["images"].append(dict(content["images"][0]))),
        "image 7 stands there twice; give each image an id of its own",
    ),
    "picture of two images": (
        of_coco(lambda content: content["images"].append(content["images"][0] | {"id": 8})),
        "image 8 is 'a.jpg', which is also an image of",
    ),
    "category twice": (
        of_coco(lambda content: content["categories"].append({"id": 3, "name": "bird"})),
        "two categories have the id 3; renumber one",
    ),
    "category without a name": (
        of_coco(lambda content: content["categories"].append({"id": 5})),
        "the category {'id': 5} needs an id and a name",
    ),
    "odd number of coordinates": (
        with_segmentation([[0, 0, 9, 0, 9, 9, 5]]),
        "annotation 0 has 7 coordinates, an odd number, but each point has two, x and y",
    ),
    "coordinate NaN": (
        with_segmentation([[0, 0, 9, 0, 9, float("nan")]]),
        "annotation 0 has the coordinate nan, which is no number of pixels",
    ),
    "coordinate infinite": (
        with_text(json.dumps(coco_content([(3, [[0, 0, 9, 0, 9, 9]], 0)])).replace("[[0,", "[[1e999,")),
        "annotation 0 has the coordinate inf, which is no number of pixels",
    ),
    "coordinate huge": (
        with_segmentation([[0, 0, 1e300, 0, 9, 9]]),
        "annotation 0 has the coordinate 1e+300, but no picture has as many pixels",
    ),
    "number of a thousand digits": (
        with_text(json.dumps(coco_content([(3, [[0, 0, 9, 0, 9, 9]], 0)])).replace("[[0,", f"[[{'9' * 1000},")),
        "has more than 64 bits",
    ),
    "coordinate that is text": (
        with_segmentation([[0, 0, "9", 0, 9, 9]]),
        "annotation 0 has the coordinate '9'; write a number",
    ),
    "outline outside of its picture": (
        with_segmentation([square(70, 50, 80, 60)]),
        "annotation 0 lies from (70, 50) to (80, 60), outside its picture of 40 x 60 (height x width)",
    ),
    "outline far beyond its picture": (
        with_segmentation([square(0, 0, 9e5, 9e5)]),
        "annotation 0 reaches or runs far beyond its picture of 40 x 60",
    ),
    "run lengths of another size": (
        with_segmentation({"size": [60, 40], "counts": [2400]}),
        "annotation 0 has a bitmap of 60 x 40 (height x width), but its picture has 40 x 60",
    ),
    "run lengths that make too few pixels": (
        with_segmentation({"size": list(SIZE), "counts": [100, 100]}),
        "annotation 0 has run lengths for 200 pixels, but 60 x 40 has 2400",
    ),
    "run lengths below zero": (
        with_segmentation({"size": list(SIZE), "counts": [2500, -100]}),
        "annotation 0 has the run length -100, but none can be below 0",
    ),
    "run lengths for a terabyte": (with_segmentation(HUGE_LENGTHS), "has a bitmap of 1000000 x 1000000"),
    "compressed run lengths that are none": (
        with_segmentation({"size": list(SIZE), "counts": "PQ\u00e9\n"}),
        "which are not COCO's compressed text",
    ),
    "picture of another size than was annotated": (
        of_coco(lambda content: content["images"][0].update(height=60, width=40)),
        "turn the mask",
    ),
    "deep nesting": (with_text(lines_of(100_000)), "it has more than 64 levels"),
    "deep nesting in a key": (with_text('{"images":' * 70 + "1" + "}" * 70), "it has more than 64 levels"),
    "JSON cut off": (with_text(json.dumps(coco_content([]))[:-9]), "cannot be read as JSON: line 1"),
    "key twice": (with_text('{"images": [], "images": []}'), "the key 'images' stands there twice"),
    "UTF-16": (with_text(json.dumps(coco_content([])).encode("utf-16")), "byte 0 is not UTF-8"),
    "Latin 1": (
        with_text(json.dumps(coco_content([], [{"id": 3, "name": "Tür"}]), ensure_ascii=False).encode("latin-1")),
        "is not UTF-8; export it again, in UTF-8",
    ),
    "lists of other things": (
        with_text('{"images": 3, "annotations": [], "categories": []}'),
        "images is 3; write a list",
    ),
    "YOLO class without a name": (
        of_yolo(yolo_row(2, 0, 0, 9, 0, 9, 9)),
        "line 1 has the class 2, but the names end with 1",
    ),
    "YOLO odd number": (of_yolo("0 0 0 0.5 0 0.5 0.5 0.1\n"), "line 1 has 7 coordinates, an odd number"),
    "YOLO words": (of_yolo("\ncat 0 0 0.5 0 0.5 0.5\n"), "line 2 holds 'cat 0 0 0.5 0 0.5 0.5'; write numbers"),
    "YOLO NaN": (of_yolo("0 0 0 nan 0 0.5 0.5\n"), "line 1 holds nan, which is no share of a picture"),
    "YOLO in pixels": (of_yolo("0 0 0 50 0 50 30\n"), "has the coordinate 50; write shares of the picture's width"),
    "YOLO boxes alone": (of_yolo("0 0.5 0.5 0.1 0.1\n"), "all 1 rows are boxes"),
    "YOLO names with gaps": (
        of_yolo("0 0 0 1 0 1 1", "names: {0: a, 2: b}"),
        "names has the numbers [0, 2]; write 0 to 1",
    ),
    "YOLO binary": (of_yolo("\x00\x01\x02"), "line 1 holds"),
    "labelme picture missing": (
        of_labelme(labelme_shape("x", [[0, 0], [9, 0], [9, 9]]), "/home/me/gone.jpg"),
        "is about '/home/me/gone.jpg', which does not lie below",
    ),
    "labelme bitmap that is no base64": (
        of_labelme(labelme_shape("x", [[0, 0], [3, 3]], "mask", mask="$$$")),
        "has the bitmap '$$$', which is not base64",
    ),
    "labelme bitmap that is no PNG": (
        of_labelme(labelme_shape("x", [[0, 0], [3, 3]], "mask", mask="AAAA")),
        "has a bitmap that is no readable PNG",
    ),
    "labelme bitmap of another size": (
        of_labelme(bitmap(png(np.ones((9, 9), np.uint8)))),
        "has a mask of 9 x 9 in a box of 4 x 4",
    ),
    "labelme bitmap of 900 million pixels": (
        of_labelme(bitmap(wide_png())),
        "has a bitmap",
    ),
    "labelme point of three": (of_labelme(labelme_shape("x", [[0, 0, 0]])), "has the point [0, 0, 0]; write [x, y]"),
    "labelme without a label": (of_labelme(labelme_shape(None, [[0, 0]])), "has the label None; write a name"),
    "labelme shape that is none": (of_labelme(3), "shape 0 has the label None"),
    "Label Studio brush for a gigabyte": (
        of_label_studio(format="rle", rle=[255, 255, 255, 255, 0x38, 0, 0, 0, 0]),
        "has brush strokes for 1073741823 pixels",
    ),
    "Label Studio brush cut off": (
        of_label_studio(format="rle", rle=[0, 0, 0x25, 0x80, 0x38, 0, 0, 0, 0]),
        "has brush strokes that are cut off or wrong",
    ),
    "CVAT entities": (with_text(ENTITIES, "annotations.xml"), "it declares a document type"),
    "CVAT file outside": (with_text(OUTSIDE, "annotations.xml"), "it declares a document type"),
    "CVAT deep nesting": (with_text(DEEP, "annotations.xml"), "it has more than 32 levels"),
    "CVAT cut off": (with_text(cvat_content()[:-20], "annotations.xml"), "cannot be read as XML"),
    "CVAT mask of another size": (
        of_cvat('<mask label="cat" rle="1, 2" left="0" top="0" width="4" height="2"/>'),
        "has run lengths for 3 pixels, but 2 x 4 has 8",
    ),
    "CVAT mask for a terabyte": (
        of_cvat('<mask label="cat" rle="1000000000000" left="0" top="0" width="1000000" height="1000000"/>'),
        "has a mask of 1000000 x 1000000, but its picture has 40 x 60",
    ),
    "CVAT points that are none": (of_cvat('<polygon label="cat" points="1,2;x"/>'), "write x,y;x,y;..."),
    "CVAT number that is none": (
        of_cvat('<box label="cat" xtl="a" ytl="0" xbr="9" ybr="9"/>'),
        "has xtl 'a'; write a number",
    ),
    "CVAT picture missing": (of_cvat(name="gone/z.jpg"), "image 'gone/z.jpg' does not lie below"),
    "CVAT for video": (
        with_text("<annotations><track id='0' label='cat'/></annotations>", "annotations.xml"),
        'export the task as "CVAT for images 1.1"',
    ),
    "Supervisely class missing": (
        lambda root: supervisely(root, [{"classTitle": "bird", "geometryType": "polygon"}]),
        "has the class 'bird', which meta.json does not have",
    ),
    "Supervisely zlib bomb": (of_supervisely(data=bomb(2**28)), "has a bitmap that unpacks to more than"),
    "Supervisely stream that is none": (of_supervisely(data="AAAA"), "has a bitmap that is broken or no zlib stream"),
    "Supervisely origin missing": (of_supervisely(origin=None), "has the origin None; write [left, top]"),
    "table with a colour twice": (
        with_text("a:1,1,1::\nb:1,1,1::\n", "labelmap.txt", masks),
        "labelmap.txt: 'a' and 'b' have the colour [1, 1, 1]; change one",
    ),
    "table that is none": (
        with_text("name,r,g,b\na,red\n", "class_dict.csv", masks),
        "holds the row ['a', 'red']; write, for example, name,255,0,0",
    ),
}


def read_all(root: Path) -> None:
    """Opens a folder and draws all its labels."""
    for split in open_data(root).splits.values():
        for sample in split:
            sample.target()


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_and_costs_little(name, tmp_path):
    make, sentence = FAULTS[name]
    make(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as refused:
            read_all(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert sentence in text
    assert len(text) < 3000
    assert most < MOST_MEMORY


def test_all_faults_are_told_at_once_and_can_be_left_out(tmp_path, caplog):
    picture(tmp_path / "a.jpg")
    found = [(3, [square(0, 0, 9, 9)], 0), (99, [square(0, 0, 60, 40)], 0), (3, [[0, 0, 1]], 0)]
    found.append((11, [square(70, 0, 80, 9)], 0))
    write(tmp_path / "x.json", coco_content(found))
    with pytest.raises(UserError) as refused:
        open_data(tmp_path)
    assert "has 2 faults" in str(refused.value)
    assert "annotation 1 " in str(refused.value)
    assert "annotation 2 " in str(refused.value)
    data = open_data(tmp_path, skip_faults=True)
    wanted = np.zeros(SIZE, int)
    wanted[:9, :9] = 1
    assert (data.split("train")[0].target() == wanted).all()
    assert "annotation 3 lies from" in caplog.text
    assert "2 faults are left out" in data.notes[0]


def test_nothing_outside_the_folder_is_opened(tmp_path):
    picture(tmp_path / "outside/secret.jpg")
    root = tmp_path / "data"
    picture(root / "a.jpg")
    for name in ("../outside/secret.jpg", str(tmp_path / "outside/secret.jpg"), "file:///../outside/secret.jpg"):
        write(root / "x.json", coco_content([(3, [square(0, 0, 9, 9)], 0)], file=name))
        with pytest.raises(UserError, match=r"secret.jpg', which does not lie below"):
            open_data(root)


def test_a_pipe_in_the_place_of_annotations_is_not_waited_for(tmp_path):
    picture(tmp_path / "a.jpg")
    for name in ("x.json", "annotations.xml", "data.yaml"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UserError):
        open_data(tmp_path)


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"../evil.json": b"{}"}, "leads outside the folder"),
        ({"/etc/evil.json": b"{}"}, "leads outside the folder"),
        ({"C:\\evil.json": b"{}"}, "leads outside the folder"),
        ({"zeros.json": bytes(2**27)}, "which no data set does"),
    ],
)
def test_zips_that_harm_are_refused_before_anything_is_written(tmp_path, files, sentence):
    archive = packed(tmp_path / "a.zip", files)
    with pytest.raises(UserError, match=sentence), unpacked(archive, tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_a_zip_that_is_none_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="broken or incomplete"), unpacked(tmp_path / "a.zip", tmp_path / "out"):
        pass
