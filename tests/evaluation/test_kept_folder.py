"""Proves that an evaluation's folder reads as it was written, spares others' files, and is refused if damaged."""

import json
import shutil

import numpy as np
import pytest
from kept_examples import kept_labels, random_counts

from segmenter.errors import UserError
from segmenter.evaluation import kept_folder
from segmenter.evaluation.depth_metrics import METRICS
from segmenter.evaluation.kept_depth import DISTANCES, KeptDepth

LABELS = kept_labels(random_counts(3, 4, seed=0), names=("straße/a", "b", "c" * 200))
DEPTH = KeptDepth(
    names=("a", "b"),
    sizes=np.array([[3, 4], [5, 6]], np.int32),
    errors=np.random.default_rng(0).random((2, 1 + len(METRICS))),
    distances=np.random.default_rng(1).random((2, DISTANCES, 4)),
    edges=tuple(float(edge) for edge in range(DISTANCES + 1)),
    alignment="median",
    about={"model": "runs/depth"},
)


@pytest.mark.parametrize("kept", [LABELS, DEPTH], ids=["labels", "depth"])
def test_what_is_written_reads_the_same(kept, tmp_path):
    kept_folder.write(kept, tmp_path / "new" / "evaluation")
    found = kept_folder.read(tmp_path / "new" / "evaluation")
    assert type(found) is type(kept)
    for name in (*kept_folder.ARRAYS[kept.task], "names", "about"):
        assert np.array_equal(getattr(found, name), getattr(kept, name)), name
    assert found.definitions == kept.definitions
    assert sorted(path.name for path in (tmp_path / "new" / "evaluation").iterdir()) == ["images.npz", "scores.json"]


@pytest.mark.parametrize("kept", [LABELS, DEPTH], ids=["labels", "depth"])
def test_the_same_evaluation_is_the_same_bytes(kept, tmp_path):
    for name in ("one", "other"):
        kept_folder.write(kept, tmp_path / name)
    for name in ("scores.json", "images.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_scores_json_is_for_programs(tmp_path):
    kept_folder.write(LABELS, tmp_path)
    about = json.loads((tmp_path / "scores.json").read_text())
    assert about["scores"] == LABELS.scores.to_dict()
    measure = about["measures"]["mean_iou"]
    assert measure["value"] == pytest.approx(LABELS.scores.mean_iou)
    assert measure["low"] <= measure["value"] <= measure["high"]
    assert about["objects"]["small"] == {"objects": 12, "found": 6}
    assert about["confused"][0]["true"].startswith("class ")
    assert len(about["reliability"]) == 15
    assert about["reliability"][0] == [0, None, None]


def test_arrays_are_readable_without_pickle_and_without_us(tmp_path):
    kept_folder.write(LABELS, tmp_path)
    with np.load(tmp_path / "images.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == list(LABELS.names)
        table = arrays["confusions"]
        assert table["pixels"].sum() == LABELS.confusion.sum()
        assert table.dtype.names == ("image", "true", "predicted", "pixels")


def test_an_evaluation_is_replaced_only_if_asked(tmp_path):
    kept_folder.claim(tmp_path / "new", overwrite=False)
    kept_folder.write(LABELS, tmp_path / "new")
    with pytest.raises(UserError, match="holds an evaluation; choose another --out, or add --overwrite to replace it"):
        kept_folder.claim(tmp_path / "new", overwrite=False)
    kept_folder.claim(tmp_path / "new", overwrite=True)


def test_what_a_kill_left_of_a_pair_is_replaced(tmp_path):
    kept_folder.write(LABELS, tmp_path)
    (tmp_path / "scores.json").unlink()
    with pytest.raises(UserError, match="holds an evaluation; choose another --out, or add --overwrite"):
        kept_folder.claim(tmp_path, overwrite=False)
    kept_folder.claim(tmp_path, overwrite=True)
    kept_folder.write(DEPTH, tmp_path)
    (tmp_path / "images.npz").unlink()
    kept_folder.claim(tmp_path, overwrite=True)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_arrays_of_others_are_never_replaced(content, tmp_path):
    (tmp_path / "images.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"holds images.npz, which evaluate did not write; choose another --out"):
        kept_folder.claim(tmp_path, overwrite=True)
    np.savez(tmp_path / "images.npz", format=np.array(3), names=np.array(["a"]))
    with pytest.raises(UserError, match=r"holds images.npz, which evaluate did not write"):
        kept_folder.claim(tmp_path, overwrite=True)


@pytest.mark.parametrize("name", ["scores.json", "images.npz"])
def test_files_of_others_are_never_replaced(name, tmp_path):
    (tmp_path / name).write_text('{"format": "of somebody else"}')
    with pytest.raises(UserError, match=f"holds {name}, which evaluate did not write; choose another --out"):
        kept_folder.claim(tmp_path, overwrite=True)


def test_places_that_are_no_folder_for_results_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; choose another --out"):
        kept_folder.claim(tmp_path / "file", overwrite=True)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds data"):
        kept_folder.claim(tmp_path, overwrite=True)
    kept_folder.write(LABELS, tmp_path / "evaluation")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "scores.json").symlink_to(tmp_path / "evaluation" / "scores.json")
    with pytest.raises(UserError, match=r"holds scores.json, which evaluate did not write"):
        kept_folder.claim(tmp_path / "linked", overwrite=True)


def rewritten(place, **changed):
    about = json.loads((place / "scores.json").read_text())
    (place / "scores.json").write_text(json.dumps(about | changed))


def swap(place):
    kept_folder.write(DEPTH, place.parent / "other")
    shutil.copy(place.parent / "other" / "images.npz", place / "images.npz")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda place: (place / "images.npz").unlink(),
            r"has no images.npz, which `segmenter evaluate MODEL",
        ),
        (lambda place: (place / "scores.json").unlink(), r"has no scores.json, which"),
        (
            lambda place: (place / "images.npz").write_bytes(b"PK"),
            r"damaged \(images.npz is not the one that scores.json",
        ),
        (swap, r"damaged \(images.npz is not the one that scores.json was written with\); evaluate again with --overw"),
        (
            lambda place: rewritten(place, format="segmenter evaluation 9"),
            "format segmenter evaluation 9, and",
        ),
        (lambda place: rewritten(place, classes=["only one"]), r"damaged \(true of confusions goes from 0 to 3\)"),
        (lambda place: rewritten(place, task="depth"), r"damaged \('errors is not a file in the archive' is missing\)"),
        (lambda place: rewritten(place, areas=3), "damaged"),
        (lambda place: rewritten(place, boundary=10**400), "damaged"),
        (lambda place: rewritten(place, boundary=-1), r"damaged \(boundary is -1.0\)"),
        (lambda place: (place / "scores.json").write_text("[" * 100_000), "damaged"),
        (lambda place: (place / "scores.json").write_text("[]"), "has the format None"),
    ],
)
def test_what_is_damaged_is_said_in_a_sentence(spoil, said, tmp_path):
    kept_folder.write(LABELS, tmp_path / "place")
    spoil(tmp_path / "place")
    with pytest.raises(UserError, match=said):
        kept_folder.read(tmp_path / "place")
