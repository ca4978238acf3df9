"""Proves that the sheets show each map at its place on the photo, and that files are named and kept rightly."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
from PIL import Image

import segmenter
from segmenter.errors import UserError
from segmenter.inspection.places import windows_on
from segmenter.views import explanations
from segmenter.views.asked import POINTS, overview, what_to_look_at
from segmenter.views.attention_sheets import seen
from segmenter.views.explanations import explain_files, paper_layers
from segmenter.views.heat import MARK, Scale, color_bar, heat, mark, own_scale, shared_scale, spoken
from segmenter.views.sheets import CELL_WIDTHS, Cell, Sheet, cell_size, draw_sheet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    """Windows of 64 x 96, patches of 16, classes c0 to c4."""
    model = tiny_models.small_model("mask_transformer")
    tiny_models.stir(model)
    return model


@pytest.fixture
def photo(tmp_path):
    """Writes a photo of noise."""

    def write(name="street.png", size=(64, 96)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
        return str(path)

    return write


def brightness(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float64).sum(2)


# ---- the heat


@pytest.mark.parametrize("size", [(64, 96), (70, 100), (128, 192), (33, 50)])
def test_a_map_lies_at_its_place_on_the_photo(model, size):
    """A single patch glows; its middle is found again in the picture, where the patch lies on the photo."""
    pixels = np.full((*size, 3), 100, np.uint8)
    for window in windows_on(model, pixels, native=True):
        values = np.zeros(window.grid)
        row, column = window.grid[0] - 2, window.grid[1] - 2
        values[row, column] = 10
        box, shape = window.patch_box(row, column), (window.box.bottom - window.box.top, window.box.right)
        picture = seen(pixels, window.box, cell_size(3, (shape[0], shape[1] - window.box.left)))
        scale = picture.width / (window.box.right - window.box.left)
        glow = brightness(heat(picture, values, window, Scale(1, 10)))
        rows, columns = np.nonzero(glow > glow.max() - 1)
        found = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        wanted = [
            (side - start) * scale for side, start in zip(box, (window.box.top, window.box.left) * 2, strict=True)
        ]
        np.testing.assert_allclose(found, wanted, atol=1.5)


def test_what_gets_no_more_than_the_even_share_stays_a_dim_photo(model):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    (window,) = windows_on(model, pixels)
    picture = np.asarray(heat(Image.fromarray(pixels), np.full(window.grid, 0.9), window, Scale(1, 10)))
    assert (picture == picture[..., :1]).all()  # grey
    assert picture.max() < 140
    assert picture.std() > 10  # and still a photo


def test_the_asked_patch_is_marked_where_it_lies(model):
    (window,) = windows_on(model, np.zeros((64, 96, 3), np.uint8))
    picture = Image.new("RGB", (384, 256))
    mark(picture, window.patch_box(1, 2), window.box)
    rows, columns = np.nonzero((np.asarray(picture) == MARK).all(2))
    np.testing.assert_allclose([rows.min(), rows.max(), columns.min(), columns.max()], [64, 128, 128, 192], atol=5)


def test_scales_show_differences_of_every_size():
    peaked = np.array([0.01, 1, 3, 200.0])
    assert shared_scale(peaked).shades(peaked)[0] == 0
    assert np.all(np.diff(shared_scale(peaked).shades(peaked)[1:]) > 0.1)
    flat = np.array([0.9, 1, 1.1])
    np.testing.assert_allclose(own_scale(flat).shades(flat), [0, 0.5, 1], atol=0.02)
    assert np.isfinite(own_scale(np.ones(3)).shades(np.ones(3))).all()
    assert np.isfinite(shared_scale(np.zeros(3)).shades(np.zeros(3))).all()
    for high in (1.5, 3, 40, 900, 50_000):
        ticks = Scale(1, high).ticks()
        assert 2 <= len(ticks) <= 7
        assert ticks == sorted(ticks)
        color_bar(Scale(1, high), 400, 16)


# ---- the sheet


@pytest.mark.parametrize("columns", [1, 4, 13, 17])
@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (10, 400), (400, 10)])
def test_cells_keep_the_shape_of_their_window(columns, shape):
    width, height = cell_size(columns, shape)
    assert 1 <= width <= CELL_WIDTHS[1]
    assert abs(height - width * shape[0] / shape[1]) <= 0.5 or min(width, height) == 1
    assert width * height < 500**2


def test_a_sheet_has_every_cell_once():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    cells = [Cell(Image.new("RGB", (50, 30), color), "a caption that is much too long for it") for color in colors]
    rows = [("one\ntwo", [cells[0], None]), ("", [cells[1], cells[2]])]
    sheet = draw_sheet(
        Sheet("A title " * 30, "Words " * 60, ["first", "second"], rows, inset=Image.new("RGB", (90, 60)))
    )
    pixels = np.asarray(sheet)
    places = []
    for color in colors:
        where = np.nonzero((pixels == color).all(2))
        assert len(where[0]) == 50 * 30
        places.append((where[0].min(), where[1].min()))
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] < places[1][0] == places[2][0]


@pytest.mark.parametrize(
    ("depth", "layers"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (12, [1, 4, 8, 11]), (24, [2, 8, 17, 23])]
)
def test_the_layers_shown_lie_where_those_of_the_paper_lie(depth, layers):
    assert paper_layers(depth) == layers


# ---- the files


def test_a_photo_has_its_folder_of_sheets(model, photo, tmp_path):
    (entry,) = explain_files(model, [photo()], tmp_path / "out", at=[(10, 20)], class_names=["c3"])
    names = ["overview", "point1", "class_c3", "classes", "decided"]
    assert entry["files"] == [str(tmp_path / "out" / "street" / f"{name}.jpg") for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["explained.jsonl", "street"]
    for file in entry["files"]:
        assert min(Image.open(file).size) > 150
    (point,) = entry["points"]
    label = segmenter.predict(model, photo()).labels[10, 20]
    assert point == {"x": 20, "y": 10, "class": f"c{label}", "window": "the whole photo"}
    assert entry["classes"] == [{"class": "c3", "window": "the whole photo"}]
    json.dumps(entry)


def test_without_points_and_classes_the_widest_regions_are_looked_at(model, photo, tmp_path):
    path = photo(size=(64, 200))
    (entry,) = explain_files(model, [path], tmp_path / "out", native=True)
    labels = segmenter.predict(model, path, native=True).labels
    present = [f"c{label}" for label in np.unique(labels)]
    assert len(entry["points"]) == min(len(present), POINTS)
    assert len({point["class"] for point in entry["points"]}) == len(entry["points"])
    for point in entry["points"]:
        assert point["class"] == f"c{labels[point['y'], point['x']]}"
        assert point["window"].startswith("window ")
    assert {entry["class"] for entry in entry["classes"]} == set(present)


def test_the_overview_frames_the_windows_that_are_looked_at(model):
    """The frame is white, and nothing else of a black photo is."""
    pixels, at = np.zeros((64, 300, 3), np.uint8), (50, 250)
    asked = what_to_look_at(model, pixels, segmenter.predict(model, pixels, native=True), [at], [], native=True)
    asked.shown.clear()
    scale = overview(asked, asked.points[0]).width / 300
    white = (np.asarray(overview(asked, asked.points[0])) == 255).all(2)
    rows, columns = (np.flatnonzero(white.sum(side) > 20) for side in (1, 0))
    top, left, bottom, right = asked.points[0].window.box
    assert left <= at[1] < right
    found = np.array([rows.min(), columns.min(), rows.max(), columns.max()]) / scale
    np.testing.assert_allclose(found, [top, left, bottom, right], atol=1)


def test_a_decoder_without_embeddings_has_no_sheets_of_classes(photo, tmp_path):
    model = tiny_models.small_model("linear")
    (entry,) = explain_files(model, [photo()], tmp_path / "out", class_names=["c1"])
    assert [file.rpartition("/")[2] for file in entry["files"]] == ["overview.jpg", "decided.jpg"]
    assert "no class embeddings" in explanations.summary([entry])


def test_a_model_of_depth_is_looked_at_in_the_middle(photo, tmp_path):
    model = tiny_models.small_model("dpt_depth", depth=4)
    (entry,) = explain_files(model, [photo()], tmp_path / "out")
    assert entry["points"] == [{"x": 48, "y": 32, "window": "the whole photo"}]
    assert [file.rpartition("/")[2] for file in entry["files"]] == ["overview.jpg", "point1.jpg", "decided.jpg"]


def test_a_class_name_that_no_file_can_have(photo, tmp_path):
    model = tiny_models.small_model("mask_transformer")
    model.classes = replace(model.classes, names=("a/b", "..", "a b", "c3", "c" * 90))
    names = ["a/b", "..", "a b", "c" * 90, "a/b"]
    (entry,) = explain_files(model, [photo()], tmp_path / "out", class_names=names)
    folder = tmp_path / "out" / "street"
    files = {file.removeprefix(f"{folder}/") for file in entry["files"]}
    assert {"class_a_b.jpg", "class__.jpg", "class_a_b_2.jpg", f"class_{'c' * 60}.jpg"} <= files
    assert len(files) == len(entry["files"]) == 7


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2)])
def test_photos_of_any_shape(model, photo, tmp_path, size):
    (entry,) = explain_files(model, [photo(size=size)], tmp_path / "out", native=True)
    assert len(entry["points"]) >= 1
    for file in entry["files"]:
        assert max(Image.open(file).size) < 5000


def test_what_speaks_against_an_answer_is_blue(model):
    (window,) = windows_on(model, np.full((64, 96, 3), 90, np.uint8))
    values = np.zeros(window.grid)
    values[0, 0], values[3, 5] = 2.0, -2.0
    picture = np.asarray(spoken(Image.new("RGB", (96, 64), (90, 90, 90)), values, window), int)
    red, _, blue = picture[8, 8]
    assert red > 200 > blue + 20
    red, _, blue = picture[56, 88]
    assert blue > 200 > red + 20
    assert (picture[32, 48] == picture[32, 48, 0]).all()  # nothing: the dim photo


def test_earlier_sheets_are_overwritten_only_where_that_is_asked_for(model, photo, tmp_path):
    out, path = tmp_path / "out", photo()
    explain_files(model, [path], out, at=[(10, 20)])
    with pytest.raises(UserError, match="results of an earlier explain; choose another --out, or add --overwrite"):
        explain_files(model, [path], out, at=[(10, 20)])
    explain_files(model, [path], out, at=[(30, 20)], overwrite=True)
    mine = out / "street" / "decided.jpg"
    mine.write_text("mine")
    with pytest.raises(UserError, match="that explain did not write, or that were changed since"):
        explain_files(model, [path], out, at=[(10, 20)], overwrite=True)
    assert mine.read_text() == "mine"


def test_nothing_is_written_where_a_point_or_a_class_is_wrong(model, photo, tmp_path):
    for asked in ({"at": [(64, 0)]}, {"class_names": ["c9"]}, {"layers": [2]}):
        with pytest.raises(UserError):
            explain_files(model, [photo()], tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()
