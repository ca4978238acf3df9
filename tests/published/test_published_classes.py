"""Proves that a published checkpoint has the classes of its data set, by name and in their colours."""

import pytest
import yaml
from tiny_models import small_model

import segmenter
from segmenter.data.sets.named_classes import named_classes
from segmenter.published import original
from segmenter.published.loading import load_published


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a small checkpoint with as many classes, trained on a data set, as the original's training writes it."""

    def write(count: int, data: str):
        model = small_model("linear", count, crop=(64, 64), norm_eps=1e-5)
        original.write(model, tmp_path)
        path = tmp_path / "variant.yml"
        content = yaml.load(path.read_text(), Loader=yaml.FullLoader)
        del content["vit_segmenter"]
        content["dataset_kwargs"]["dataset"] = data
        path.write_text(yaml.dump(content))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("data", "count", "name"),
    [
        ("ade20k", 150, "ade20k"),
        ("pascal_context", 60, "pascal_context"),
        ("pascal_context", 59, "pascal_context_59"),
        ("cityscapes", 19, "cityscapes"),
    ],
)
def test_original(checkpoint, data, count, name):
    assert segmenter.load(checkpoint(count, data)).classes == named_classes(name)


@pytest.mark.parametrize(("data", "count"), [("ade20k", 8), ("mine", 19)])
def test_another_number_or_data_set_has_no_names(checkpoint, data, count):
    model, report = load_published(checkpoint(count, data) / original.CHECKPOINT)
    assert model.classes.names == tuple(f"class {i}" for i in range(count))
    assert f"{count} classes without names" in report.assumed


@pytest.mark.parametrize(
    ("name", "data"),
    [("ade20k", "ade20k"), ("pascal_context", "pascal_context"), ("pascal_context_59", "pascal_context"),
     ("cityscapes", "cityscapes"), ("camvid", None)],
)  # fmt: skip
def test_the_data_set_that_is_written_is_that_of_the_classes(name, data, tmp_path):
    classes = named_classes(name)
    model = small_model("linear", len(classes), crop=(64, 64), norm_eps=1e-5)
    model.classes = classes
    original.write(model, tmp_path)
    path = tmp_path / "variant.yml"
    content = yaml.load(path.read_text(), Loader=yaml.FullLoader)
    assert content["dataset_kwargs"].get("dataset") == data
    assert segmenter.load(tmp_path).classes == classes
    del content["vit_segmenter"]  # what the original's own files have not
    path.write_text(yaml.dump(content))
    found = segmenter.load(tmp_path).classes
    assert found == classes if data else found.names == tuple(f"class {i}" for i in range(len(classes)))
