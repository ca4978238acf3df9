"""Proves that `explain --area` and `explain --classes` write pictures of the model with their numbers beside."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tiny_models
from PIL import Image

import segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

DECODERS = ("mask_transformer", "linear", "dpt", "dpt_depth")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of small models; the training's crop is 64 x 96."""
    root = tmp_path_factory.mktemp("models")
    for decoder in DECODERS:
        model = tiny_models.small_model(decoder, **({"depth": 4} if "dpt" in decoder else {}))
        tiny_models.stir(model)
        model.save(root / decoder)
    return root


@pytest.fixture
def photos(tmp_path):
    """A folder with two photos, one larger than a window."""
    for name, width in (("first", 96), ("second", 160)):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(width).integers(0, 256, (64, width, 3)).astype(np.uint8)).save(path)
    return path.parent


def svg_texts(path) -> list[str]:
    """The pieces of text in an SVG."""
    return [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_area_writes_what_the_function_gives(saved, photos, command, tmp_path):
    out = tmp_path / "out"
    told = command("explain", saved / "mask_transformer", photos, "--area", "--out", out)
    assert told.status == 0, told.err
    assert {path.name for path in out.iterdir()} == {"area.png", "area.svg", "area.json", "explained.jsonl"}
    content = json.loads((out / "area.json").read_text())
    found = segmenter.attended_area(segmenter.load(saved / "mask_transformer"), sorted(photos.iterdir()))
    assert content["images"] == [str(photos / "first.png"), str(photos / "second.png")]
    assert content["windows"] == [{"height": 64, "width": 96, "count": 3}]
    assert [(block["part"], block["block"]) for block in content["blocks"]] == [
        ("encoder", 0),
        ("encoder", 1),
        ("decoder", 0),
        ("decoder", 1),
    ]
    for block, expected in zip(content["blocks"], found.blocks, strict=True):
        np.testing.assert_allclose(block["heads"], expected.distances.mean(0), atol=1e-4)
        np.testing.assert_allclose(block["elsewhere"], expected.elsewhere.mean(0), atol=1e-4)
    fields = content["receptive_fields"]["ResNet-50"]
    assert [field["side"] for field in fields] == [7, 35, 99, 291, 483]
    assert fields[-1]["mean_distance"] == content["uniform"]  # cut at the border of the image
    lines = told.out.splitlines()
    assert lines[1].split()[:2] == ["encoder", "0"]
    assert lines[-1] == ", ".join(str(out / f"area.{kind}") for kind in ("png", "svg", "json"))
    width, height = Image.open(out / "area.png").size
    assert width > height > 600
    texts = svg_texts(out / "area.svg")
    assert "mask_transformer (vit_tiny_patch16_224, mask_transformer)" in texts
    assert texts.count("conv3: 99 px") == 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_area_takes_models_of_every_task(decoder, saved, photos, command, tmp_path):
    told = command("explain", saved / decoder, photos / "first.png", "--area", "--out", tmp_path / "out", "--json")
    assert told.status == 0, told.err
    content = json.loads(told.out)
    assert content == json.loads((tmp_path / "out" / "area.json").read_text())
    assert content["decoder"] == decoder


def test_classes_of_a_mask_transformer_before_and_after(saved, photos, command, tmp_path):
    before = command("explain", saved / "mask_transformer", "--classes", "--out", tmp_path / "before", "--json")
    assert [one["title"] for one in json.loads(before.out)["embeddings"]] == ["class embeddings before the decoder"]
    told = command("explain", saved / "mask_transformer", photos, "--classes", "--out", tmp_path / "both")
    assert told.status == 0, told.err
    content = json.loads((tmp_path / "both" / "classes.json").read_text())
    found = segmenter.class_embeddings(segmenter.load(saved / "mask_transformer"), sorted(photos.iterdir()))
    for one, expected in zip(content["embeddings"], found, strict=True):
        assert one["title"] == expected.title
        np.testing.assert_allclose([entry["at"] for entry in one["classes"]], expected.points, atol=1e-4)
        for entry, nearest in zip(one["classes"], expected.nearest(), strict=True):
            assert [other["name"] for other in entry["nearest"]] == [expected.names[i] for i, _ in nearest]
    assert "steadiness" not in content["embeddings"][0]["classes"][0]
    assert 0 < content["embeddings"][1]["classes"][0]["steadiness"] <= 1
    sizes = [Image.open(tmp_path / folder / "classes.png").size for folder in ("before", "both")]
    assert sizes[1][0] > 1.8 * sizes[0][0]
    assert told.out.startswith("class embeddings before the decoder (axes: ")
    assert "\n  c0: c" in told.out


def test_every_class_has_its_name_on_the_map(command, tmp_path):
    model = tiny_models.small_model("linear", count=150)
    model.save(tmp_path / "model")
    told = command("explain", tmp_path / "model", "--classes", "--out", tmp_path / "out")
    assert told.status == 0, told.err
    texts = svg_texts(tmp_path / "out" / "classes.svg")
    assert {f"c{i}" for i in range(150)} <= set(texts)
    assert not any("have no room" in text for text in texts)


def test_names_in_all_letters_and_signs_are_drawn_and_pictures_are_the_same_again(command, tmp_path):
    names = ("道路", "$a_b$", "небо", "  two\nlines ")
    segmenter.create("vit_tiny_patch16_224", "linear", list(names), image_size=32).save(tmp_path / "модель")
    for out in ("first", "second"):
        told = command("explain", tmp_path / "модель", "--classes", "--out", tmp_path / out)
        assert (told.status, told.err) == (0, "")
    assert {"道路", "$a_b$", "небо", r"two\nlines"} <= set(svg_texts(tmp_path / "first" / "classes.svg"))
    for kind in ("png", "svg"):
        first, second = ((tmp_path / out / f"classes.{kind}").read_bytes() for out in ("first", "second"))
        assert first == second


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        ("linear --area", 1, "no images were named; give files, folders or globs"),
        ("linear PHOTOS --classes", 1, "the linear decoder has the same class vectors for every image"),
        ("dpt_depth --classes", 1, "a model of depth has no classes (dpt_depth); give a model that predicts labels"),
        ("linear PHOTOS --area --classes", 2, "--area and --classes are two pictures; ask for one at a time"),
        ("linear PHOTOS --area --at 1,2", 2, "--area and --classes show the whole model; leave out --at"),
        ("linear PHOTOS --area --published", 2, "--area and --classes show the whole model; leave out --at"),
        ("linear none.png --area", 1, "there is no image at none.png"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(asked, status, text, saved, photos, command, tmp_path):
    model, *words = asked.replace("PHOTOS", str(photos)).split()
    told = command("explain", saved / model, *words, "--out", tmp_path / "out")
    assert (told.status, told.out) == (status, "")
    assert text in told.err
    assert not (tmp_path / "out").exists()


def test_earlier_pictures_are_kept_unless_told(saved, photos, command, tmp_path):
    asked = ("explain", saved / "linear", "--classes", "--out", tmp_path / "out")
    assert command(*asked).status == 0
    told = command(*asked)
    assert told.status == 1
    assert "holds 3 results of an earlier explain; choose another --out, or add --overwrite" in told.err
    assert command(*asked, "--overwrite").status == 0
    assert command("explain", saved / "linear", photos, "--area", "--out", tmp_path / "out").status == 0
