"""Proves that `explain` shows what was asked for, says what it cannot, and writes the published script's maps."""

import json

import numpy as np
import pytest
import tiny_models
import torch
from matplotlib import colormaps
from PIL import Image

import segmenter
from segmenter.inspection.captured import capturing
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of small models with each decoder that matters here; the training's crop is 64 x 96."""
    root = tmp_path_factory.mktemp("models")
    for decoder in ("mask_transformer", "linear"):
        model = tiny_models.small_model(decoder)
        tiny_models.stir(model)
        model.save(root / decoder)
    return root


@pytest.fixture
def photo(tmp_path):
    """A photo of 130 x 100 pixels."""
    path = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (100, 130, 3)).astype(np.uint8)).save(path)
    return path


def test_what_was_looked_at_is_told(saved, photo, command, tmp_path):
    told = command(
        "explain", saved / "mask_transformer", photo, "--out", tmp_path / "out", "--native", "--at", "120,80"
    )
    assert told.status == 0, told.err
    lines = told.out.splitlines()
    assert lines[0] == f"{photo}: 4 sheets in {tmp_path / 'out' / 'street'}"
    assert lines[1].startswith("  point 1: x 120, y 80 (c")
    assert lines[1].endswith(", window 4 of 4 (row 2 of 2, column 2 of 2): x 34 to 130, y 36 to 100")
    told = command(
        "explain", saved / "linear", photo, "--out", tmp_path / "more", "--json", "--class", "c1", "--at", "3,4"
    )
    (entry,) = json.loads(told.out)
    assert [(point["x"], point["y"]) for point in entry["points"]] == [(3, 4)]
    assert [found["class"] for found in entry["classes"]] == ["c1"]
    assert "the linear decoder has no class embeddings" in entry["note"]
    assert len(entry["files"]) == 3


def test_options_that_are_repeated_add_up(saved, photo, command, tmp_path):
    asked = ("--at", "1,2", "--at", "3,4", "--class", "c0", "--class", "c2", "--layers", "1", "--json")
    (entry,) = json.loads(command("explain", saved / "mask_transformer", photo, "--out", tmp_path / "out", *asked).out)
    assert [(point["x"], point["y"]) for point in entry["points"]] == [(1, 2), (3, 4)]
    assert [found["class"] for found in entry["classes"]] == ["c0", "c2"]


@pytest.mark.parametrize(
    ("decoder", "asked", "status", "text"),
    [
        (
            "linear",
            "--at 130,5",
            1,
            "the point x 130, y 5 lies outside the photo, which is 130 pixels wide and 100 high",
        ),
        ("linear", "--at -1,5", 1, "the point x -1, y 5 lies outside the photo"),
        ("linear", "--at 5", 2, "at is '5'; write x and y with a comma between them, as in 120,80"),
        ("linear", "--at 5,5,5", 2, "at is '5,5,5'; write x and y"),
        ("linear", "--layers 0;1", 2, "layers is '0;1'; write whole numbers, as in 1,4,8,11"),
        ("linear", "--layers 0,2", 1, "block is 2, but the encoder has the blocks 0 to 1"),
        ("linear", "--class sky", 1, "the model has no class 'sky'; it has c0, c1, c2, c3, c4"),
        ("linear", "--published --class c1", 1, "the linear decoder has no class embeddings, whose attention could be"),
        ("linear", "--published --native", 2, "leave out --native or --published"),
        (
            "linear",
            "--published --at 100,5",
            1,
            "outside the square that the published script looks at; give x and y from",
        ),
        ("linear", "--published --layers 2", 1, "block is 2, but the encoder has the blocks 0 to 1"),
        ("mask_transformer", "--published --class c9", 1, "the model has no class 'c9'; perhaps"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(decoder, asked, status, text, saved, photo, command, tmp_path):
    told = command("explain", saved / decoder, photo, "--out", tmp_path / "out", *asked.split())
    assert told.status == status
    assert len(told.err.splitlines()) == 1
    assert text in told.err
    assert not (tmp_path / "out").exists()


def test_no_photo_is_a_sentence(saved, command, tmp_path):
    told = command("explain", saved / "linear", tmp_path / "none.png", "--out", tmp_path / "out")
    assert told.status == 1
    assert "there is no image at" in told.err
    told = command("explain", saved / "linear", "--out", tmp_path / "out")
    assert "no images were named" in told.err


def test_earlier_results_and_data_are_kept(saved, photo, command, disc_folder, tmp_path):
    asked = ("explain", saved / "linear", photo, "--at", "1,2")
    assert command(*asked, "--out", tmp_path / "out").status == 0
    told = command(*asked, "--out", tmp_path / "out")
    assert "holds 3 results of an earlier explain; choose another --out, or add --overwrite" in told.err
    assert command(*asked, "--out", tmp_path / "out", "--overwrite").status == 0
    told = command(*asked, "--out", disc_folder() / "train" / "masks")
    assert told.status == 1
    assert "choose another --out" in told.err


# ---- the published script's maps


def published(model, photo, layer: int) -> tuple[dict, np.ndarray]:
    """By its description: the matrices (heads T T) of a layer of each part, for the top left square of the photo."""
    picture = Image.open(photo).resize((int(130 * 64 / 100), 64), Image.Resampling.BILINEAR)  # the short side is 64
    square = np.asarray(picture)[:64, :64]
    images = (torch.from_numpy(square.copy()).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    found = {}
    with torch.inference_mode(), capturing(model, lambda c: found.update({(c.part, c.block): c.rows(slice(None))[0]})):
        model(images)
    return {part: matrices.numpy() for (part, block), matrices in found.items() if block == layer}, square


def drawn(row: np.ndarray) -> np.ndarray:
    """A row over 4 x 4 patches as the script draws it: 16 pixels a patch, from its smallest value to its largest."""
    map_ = row.reshape(4, 4).repeat(16, 0).repeat(16, 1)
    return colormaps["viridis"]((map_ - map_.min()) / (map_.max() - map_.min()), bytes=True)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_published_maps_are_as_described(layer, saved, photo, command, tmp_path):
    asked = ("--published", "--at", "70,20", "--layers", layer, "--class", "c3", "--json")
    told = command("explain", saved / "mask_transformer", photo, "--out", tmp_path / "out", *asked)
    model = load(saved / "mask_transformer")
    matrices, square = published(model, photo, layer)
    x, y = 70 * 64 // 100 // 16, 20 * 64 // 100 // 16
    patch = y * 4 + x
    wanted = {}
    for head in range(3):
        name = f"enc_layer{layer}_attn-head{head}"
        wanted[f"enc_layer{layer}/patch_{x}_{y}/{name}.png"] = drawn(matrices["encoder"][head, 1 + patch, 1:])
        wanted[f"enc_layer{layer}/cls/{name}_cls.png"] = drawn(matrices["encoder"][head, 0, 1:])
    for head in range(len(matrices["decoder"])):
        name = f"dec_layer{layer}_attn-head{head}"
        wanted[f"dec_layer{layer}/patch_{x}_{y}/{name}.png"] = drawn(matrices["decoder"][head, patch, :16])
        wanted[f"dec_layer{layer}/cls_3/{name}_3.png"] = drawn(matrices["decoder"][head, 16 + 3, :16])
    inputs = {f"{part}_layer{layer}/patch_{x}_{y}/input_img.png" for part in ("enc", "dec")}
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == wanted.keys() | inputs
    assert len(json.loads(told.out)[0]["files"]) == len(written)
    for name, pixels in wanted.items():
        # A value that falls between two of the 256 colours may take either.
        assert np.abs(np.asarray(Image.open(tmp_path / "out" / name)).astype(int) - pixels).max() <= 4, name
    picture = np.asarray(Image.open(tmp_path / "out" / min(inputs)).convert("RGB")).astype(int)
    assert (picture[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] == (255, 0, 0)).all()
    picture[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = 0
    rescaled = (square.astype(float) - square.min()) / (square.max() - square.min()) * 255
    rescaled[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = 0
    assert np.abs(picture - rescaled).max() <= 1


def test_without_a_point_the_script_looks_at_the_first_patch_and_all_classes(saved, photo, command, tmp_path):
    told = command("explain", saved / "mask_transformer", photo, "--out", tmp_path / "out", "--published")
    assert told.status == 0
    folders = {path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert folders == {
        "enc_layer0/patch_0_0", "enc_layer0/cls", "dec_layer0/patch_0_0", *(f"dec_layer0/cls_{i}" for i in range(5)),
    }  # fmt: skip
    assert told.out == f"{len(list((tmp_path / 'out').rglob('*.png')))} pictures in {tmp_path / 'out'}\n"


def test_the_script_takes_one_photo(saved, photo, command, tmp_path):
    Image.open(photo).save(tmp_path / "other.png")
    told = command("explain", saved / "linear", photo, tmp_path / "other.png", "--out", tmp_path / "out", "--published")
    assert told.status == 1
    assert "the published script looks at one photo, and 2 were named; name one" in told.err


def test_from_python(saved, photo):
    found = segmenter.attention(segmenter.load(saved / "mask_transformer"), photo, at=(80, 120))
    assert found.maps.shape == (2, 3, *found.window.grid)
