"""Proves that masks become the labels that classes.yaml says, and that every mistake in it is named with its cure."""

import json
from pathlib import Path

import numpy as np
import pytest

from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    return path


def plain(count: int) -> Classes:
    return Classes(tuple(f"c{i}" for i in range(count)), default_colors(count))


def test_reads_names_colours_ids_and_map(tmp_path):
    path = written(
        tmp_path,
        """
        ignore: 11
        map: {7: 255, 9: 0}
        classes:
          - {name: road, color: [128, 64, 128], id: 1}
          - {name: sky, color: "#80ff00", id: 0}
          - grass
        """,
    )
    classes = Classes.read(path)
    assert classes.names == ("sky", "road", "grass")
    assert classes.colors[:2] == ((128, 255, 0), (128, 64, 128))
    assert classes.ignore == 255
    labels = classes.decode(np.array([[0, 1, 2], [7, 9, 11], [255, 255, 0]], np.uint8), "m.png")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1, 2], [255, 0, 255], [255, 255, 0]]


def test_reads_the_bare_list_that_segmenter_published(tmp_path):
    grey = "color: [140, 140, 140]"  # they gave two classes this one
    entries = f"- {{{grey}, id: 0, isthing: 0, name: road}}\n- {{{grey}, id: 1, isthing: 0, name: skyscraper}}"
    classes = Classes.read(written(tmp_path, entries))
    assert classes.names == ("road", "skyscraper")
    assert classes.colors == ((140, 140, 140),) * 2


def test_colour_masks_become_labels(tmp_path):
    path = written(
        tmp_path,
        """
        masks: colors
        ignore: "#e0e0c0"
        classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [255, 0, 0]}]
        """,
    )
    classes = Classes.read(path)
    mask = np.array([[[0, 0, 0], [255, 0, 0], [224, 224, 192]]], np.uint8)
    assert classes.decode(mask, "m.png").tolist() == [[0, 1, 255]]
    mask[0, 0] = 1, 2, 3
    with pytest.raises(UserError) as error:
        classes.decode(mask, "m.png")
    assert str(error.value) == (
        "m.png holds the colour #010203, but none of the 2 classes has it; add the class to classes.yaml "
        "or map it: --data.map '#010203:255'"
    )
    assert classes.with_map(("#010203:1",)).decode(mask, "m.png").tolist() == [[1, 1, 255]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_value_without_class_is_named_with_the_map_that_mends_it(dtype):
    mask = np.array([[0, 4], [7, 255]], dtype)
    with pytest.raises(UserError) as error:
        plain(5).decode(mask, "masks/0012.png")
    assert str(error.value) == (
        "masks/0012.png holds the value 7, but there are 5 classes (0 to 4); add the class to classes.yaml "
        "or map it: --data.map 7:255"
    )
    assert plain(5).with_map(("7:255",)).decode(mask, "m").tolist() == [[0, 4], [255, 255]]


def test_255_can_be_mapped_to_a_class():
    assert plain(2).with_map(("255:1",)).decode(np.array([[0, 255]], np.uint8), "m").tolist() == [[0, 1]]


def test_a_map_is_applied_once_and_not_in_a_chain():
    classes = plain(3).with_map(("0:1", "1:2", "2:0"))
    assert classes.decode(np.array([[0, 1, 2]], np.uint8), "m").tolist() == [[1, 2, 0]]


def test_more_than_255_classes_take_16_bits_and_ignore_65535():
    classes = plain(300)
    labels = classes.decode(np.array([[255, 299, 65535]], np.int32), "m")
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[255, 299, 65535]]
    assert plain(255).ignore == 255
    with pytest.raises(ValueError, match="300 classes"):
        classes.palette()


def test_survives_json():
    classes = plain(3).with_map(("9:255",))
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_palette_has_the_colours_first_and_black_for_ignore():
    palette = Classes(("a", "b"), ((1, 2, 3), (4, 5, 6))).palette()
    assert len(palette) == 768
    assert palette[:9] == [1, 2, 3, 4, 5, 6, 0, 0, 0]
    assert palette[-3:] == [0, 0, 0]


def test_default_colours_are_distinct_and_do_not_depend_on_their_number():
    colors = default_colors(60)
    assert colors[:7] == default_colors(7)
    distances = np.abs(np.array(colors)[:, None] - np.array(colors)).sum(-1)
    assert distances[~np.eye(60, dtype=bool)].min() >= 40
    assert len(set(default_colors(1000))) == 1000


def test_colours_that_lack_differ_from_those_given(tmp_path):
    taken = list(default_colors(1)[0])
    classes = Classes.read(written(tmp_path, f"classes: [a, {{name: b, color: {taken}}}, c]"))
    assert len(set(classes.colors)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: []", "has no list `classes:`; write one line a class below it, such as `  - road`"),
        ("", "has no list `classes:`"),
        ("classes: [a", "cannot be read as YAML"),
        ("clases: [a]", "has the unknown key `clases`; did you mean `classes`?"),
        ("classes: [{name: a, colour: [1, 2, 3]}]", "class 0 has the unknown key `colour`; did you mean `color`?"),
        ("classes: [a]\nzzz: 1", "unknown key `zzz`; the keys are classes, masks, ignore, map"),
        ("classes: [a, no]", 'class 1 has the name False; names are text: put it in quotes, "False"'),
        ("classes: [a, a]", "two classes have the name 'a'; rename one"),
        ("classes: [{name: a, id: 0}, {name: b, id: 0}]", "'a' and 'b' have the same id 0; renumber one"),
        ("classes: [{name: a, id: x}]", "class 0 (a) has the id 'x'; ids are whole numbers from 0"),
        (
            "classes: [{name: a, id: 1}, {name: b, id: 2}]",
            "no class has the id 0, but 2 classes need the ids 0 to 1; leave the ids out and write "
            "`map: {1: 0, 2: 1}` for mask values that differ",
        ),
        ("classes: [{name: a, color: [1, 2]}]", "class 0 (a) has the color [1, 2]; write [red, green, blue]"),
        ("classes: [{name: a, color: [1, 2, 256]}]", "from 0 to 255"),
        (
            "classes: [{name: a, color: [1, 2, 3]}, {name: b, color: '#010203'}]\nmasks: colors",
            "'a' and 'b' have the same color [1, 2, 3]; change one",
        ),
        ("classes: [a]\nmasks: rgb", "masks is 'rgb'; write `masks: values` or `masks: colors`"),
        ("classes: [a]\nmasks: colors", "class 'a' has no color, but with `masks: colors` every class needs one"),
        ("classes: [a, b]\nignore: -0.0", "ignore is -0.0; write a value of the masks, such as 255"),
        ("classes: [a, b]\nignore: true", "ignore is True; write a value of the masks, such as 255"),
        ("classes: [a, b]\nignore: 1", "ignore is 1, which is the id of class 'b'; write a value that is not a class"),
        ("classes: [a, b]\nmap: 7", "map is 7; write mask values and class ids, as in `map: {7: 255}`"),
        (
            "classes: [a, b]\nmap: {7: 2}",
            "map sends 7 to 2, which is neither a class (0 to 1) nor the ignore value 255",
        ),
        ("classes: [a, b]\nmap: {x: 1}", "map holds 'x': 1; write whole numbers, as in 7: 255"),
        ("classes: [a, b]\nmap: {'#ff0000': 1}", "map holds #ff0000, but the masks hold plain values"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        Classes.read(written(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "classes.yaml"))
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.yaml does not exist; data\.classes is the path of a classes\.yaml"):
        Classes.read(tmp_path / "no.yaml")


@pytest.mark.parametrize("pair", ["7", "7:", "a:b", "7:-1"])
def test_a_malformed_map_is_named(pair):
    with pytest.raises(UserError) as error:
        plain(2).with_map((pair,))
    assert str(error.value) == f"data.map holds {pair!r}; write `from:to` with two values, for example 7:255"


def test_a_map_to_no_class_is_named():
    with pytest.raises(UserError, match=r"data\.map sends 7 to 9, which is neither a class \(0 to 1\) nor the ignore"):
        plain(2).with_map(("7:9",))
