"""Proves that a page is one whole file: nothing from outside, nothing of data as markup, readable without scripts."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from report_examples import CLASSES, Parsed, depth_evaluation, label_evaluation, write_log

from segmenter.evaluation import bootstrap
from segmenter.views.report.comparing import comparison
from segmenter.views.report.curves import read_history
from segmenter.views.report.labels import colored
from segmenter.views.report.layers import color_layer, drawn_size, marked_layer, photo_at, photo_layer, sampled
from segmenter.views.report.page import (
    Cell,
    Code,
    Facts,
    Gallery,
    Layer,
    Page,
    Picture,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    render,
)
from segmenter.views.report.plotting import drawing
from segmenter.views.report.running import curves_section
from segmenter.views.report.tasks import TASKS

EVIL = "<script>alert('x')</script>\" onerror=\"alert(1)' --><!--"


def sections_of(kept: dict, found: dict) -> list[Section]:
    task = TASKS[next(iter(kept.values())).task]
    sections = task.sections(kept, found, CLASSES)
    return [Section("Comparison", comparison(kept, found, task.measures, CLASSES)), *sections]


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory) -> str:
    """A page of every kind of block, with texts that try to be more."""
    history = read_history(
        write_log(tmp_path_factory.mktemp("runs") / "run", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    )
    picture = photo_layer(EVIL, Image.new("RGB", (40, 30)))
    blocks = [
        Text(f"{EVIL} and `{EVIL}`", "warning"),
        Tiles([Tile(EVIL, EVIL, EVIL)]),
        Table(EVIL, [EVIL, EVIL], [[Cell(EVIL, color=(1, 2, 3)), Cell(EVIL, EVIL, (0.5, 0.4, 0.6), note=EVIL)]], EVIL),
        Table(EVIL, [EVIL], [[Cell(EVIL, heat=0.5)]], folded=True, matrix=True, sortable=False, foot=[Cell(EVIL)]),
        Gallery(EVIL, [Picture(EVIL, [picture, Layer(EVIL, picture.source, True)], (30, 40), EVIL)], EVIL),
        Facts(EVIL, [(EVIL, EVIL)]),
        Code(EVIL, EVIL),
    ]
    both = {EVIL: history, "other": history}
    return render(Page(EVIL, EVIL, [Section(EVIL, blocks, EVIL), curves_section(both)], refresh=15))


@pytest.fixture(scope="module")
def whole_page() -> str:
    kept = {"first": label_evaluation(), "second": label_evaluation(skill=0.6, seed=3)}
    found = {name: bootstrap.intervals(one, 50) for name, one in kept.items()}
    return render(Page("two", "", sections_of(kept, found)))


def test_what_data_says_is_never_markup(evil_page):
    page = Parsed(evil_page)
    assert len(page.named("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert EVIL in page.text.replace("\u202f", " ")
    assert "<!--" not in evil_page


def test_no_address_leads_out_of_the_file(evil_page, whole_page):
    for html in (evil_page, whole_page):
        for _, attributes in Parsed(html).elements:
            for name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", html)


def test_the_page_allows_itself_its_own_script_alone(evil_page):
    page = Parsed(evil_page)
    script = re.search(r"<script>(.*?)</script>", evil_page, re.DOTALL).group(1)
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_names_of_parts_are_unique_and_those_pointed_to_are_there(evil_page, whole_page):
    for html in (evil_page, whole_page):
        names = [attributes["id"] for _, attributes in Parsed(html).elements if "id" in attributes]
        assert len(names) == len(set(names))
        pointed = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
        assert {one or other for one, other in pointed} <= set(names)


def test_who_cannot_see_or_point_is_told(evil_page, whole_page):
    for html in (evil_page, whole_page):
        page = Parsed(html)
        assert page.named("html")[0]["lang"] == "en"
        assert all(image.get("alt") for image in page.named("img"))
        assert all(slider.get("aria-label") for slider in page.named("input") if slider["type"] == "range")
        assert all(svg.get("aria-hidden") for svg in page.named("svg"))
        labelled = [attributes for _, attributes in page.elements if attributes.get("role") in ("img", "region")]
        assert all(attributes.get("aria-label") for attributes in labelled)


def test_without_scripts_everything_is_in_the_file(evil_page):
    """Sliders are hidden until a script shows them; pictures lie side by side until then."""
    page = Parsed(evil_page)
    controls = [attributes for _, attributes in page.elements if attributes.get("class") == "controls"]
    assert controls
    assert all("hidden" in attributes for attributes in controls)
    assert 'class="js"' not in evil_page
    assert any(meta.get("http-equiv") == "refresh" for meta in page.named("meta"))


def test_a_finished_page_is_not_read_again(whole_page):
    assert "refresh" not in {meta.get("http-equiv") for meta in Parsed(whole_page).named("meta")}
    assert "data-refresh" not in {name for _, attributes in Parsed(whole_page).elements for name in attributes}


def test_every_class_and_number_stands_in_the_table_of_one_evaluation():
    kept = label_evaluation()
    found = bootstrap.intervals(kept, 50)
    page = Parsed(render(Page("one", "", TASKS["labels"].sections({"run": kept}, {"run": found}, CLASSES))))
    for name, iou in zip(CLASSES.names, kept.scores.iou, strict=True):
        assert name in page.text
        assert f"{100 * iou:.1f}" in page.text
    assert f"{100 * kept.scores.mean_iou:.1f}" in page.text
    cells = [attributes for tag, attributes in page.elements if tag in ("td", "th") and "data-key" in attributes]
    bars = [float(re.search(r"--v:([\d.]+)", cell["style"]).group(1)) for cell in cells if "bar" in cell["class"]]
    assert all(0 <= bar <= 1 for bar in bars)


def test_classes_that_never_occur_have_no_number_and_sort_last():
    kept = label_evaluation().select([0])
    table = kept.confusions[(kept.confusions["true"] != 2) & (kept.confusions["predicted"] != 2)]
    kept = type(kept)(**{name: getattr(kept, name) for name in kept.__dataclass_fields__} | {"confusions": table})
    found = bootstrap.intervals(kept, 20)
    section = TASKS["labels"].sections({"run": kept}, {"run": found}, CLASSES)[0]
    absent = section.blocks[0].rows[2]
    assert [cell.text for cell in absent[1:4]] == ["-", "-", "-"]
    assert [cell.key for cell in absent[1:4]] == ["", "", ""]
    assert "neither in the truth nor in a prediction: 1" in section.blocks[0].note
    assert "nan" not in Parsed(render(Page("one", "", [section]))).text


def test_depth_is_told_by_distance():
    kept = {"near": depth_evaluation(), "far": depth_evaluation(seed=2)}
    found = {name: bootstrap.intervals(one, 50) for name, one in kept.items()}
    page = Parsed(render(Page("depth", "", sections_of(kept, found))))
    assert "0 to 10 m" in page.text
    assert "70 to 80 m" not in page.text  # where nothing was measured
    assert "alignment none" in page.text
    assert "nan" not in page.text


def test_plots_take_the_colours_and_letters_of_the_page():
    with drawing() as drawn:
        drawn.axes.plot([1, 2], [0.123456, 2], color="#3a3b01")
        drawn.axes.set_title("</svg> & 0.123456")
    assert "var(--series-1)" in drawn.svg
    assert "#3a3b01" not in drawn.svg
    assert "#2a2b2c" not in drawn.svg
    assert "&lt;/svg&gt; &amp; 0.123456" in drawn.svg  # what people read is not rounded
    assert not re.search(r"\.\d{3,}[^<]*>", re.sub(r">[^<]*<", "><", str(drawn.svg)))


def test_pictures_are_as_small_as_they_are_shown():
    assert drawn_size((360, 480)) == (360, 480)
    assert drawn_size((3000, 4000)) == (390, 520)
    assert drawn_size((10, 40000)) == (1, 520)
    photo = photo_at(np.zeros((3000, 4000, 3), np.uint8), (390, 520))
    assert photo.size == (520, 390)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)[:, None].repeat(60, 1)
    assert sampled(labels, (10, 6)).tolist() == [[i] * 6 for i in range(10)]


def test_pictures_hold_the_colours_of_the_classes_exactly():
    layer = colored("truth", np.array([[0, 1], [2, 255]], np.uint8), CLASSES)
    assert layer.source.startswith("data:image/png;base64,")
    file = base64.b64decode(layer.source.partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert found[0].tolist() == [[0, 0, 0], [220, 40, 40]]
    assert found[1].tolist() == [[40, 40, 220], [70, 70, 70]]
    many = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    file = base64.b64decode(color_layer("many", many).source.partition(",")[2])
    assert (np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) == many).all()


def test_errors_are_red_on_the_photo():
    marked = np.zeros((30, 40), bool)
    marked[:, 20:] = True
    layer = marked_layer("errors", Image.new("RGB", (40, 30), (90, 90, 90)), marked, (230, 30, 30))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(layer.source.partition(",")[2]))))
    assert np.ptp(shown[15, 5].astype(int)) < 12
    assert int(shown[15, 35, 0]) - int(shown[15, 35, 1]) > 80


def test_json_of_keys_is_not_needed_to_sort(whole_page):
    """Numbers to sort by stand in the file as JavaScript reads them."""
    keys = [attributes["data-key"] for _, attributes in Parsed(whole_page).elements if "data-key" in attributes]
    for key in keys:
        if re.fullmatch(r"-?[\d.]+(e-?\d+)?", key):
            assert np.isfinite(json.loads(key))
