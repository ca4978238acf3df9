"""Proves that what is kept of every image is what prediction answers for it, in any order, and adds up to the total."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmenter import config
from segmenter.data.classes import Classes
from segmenter.data.layouts import open_labels
from segmenter.data.samples import FileSample, SceneSample
from segmenter.data.tasks import open_data
from segmenter.errors import UserError
from segmenter.evaluation import kept_folder
from segmenter.evaluation.boundaries import count_boundaries
from segmenter.evaluation.evaluate import evaluate, totals
from segmenter.evaluation.kept_labels import BINS
from segmenter.evaluation.object_sizes import count_objects
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(64, 64), (90, 131), (40, 37), (64, 64), (50, 170), (64, 64), (91, 131)]


@pytest.fixture(scope="module")
def model(disc_run):
    return load(disc_run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, discs, draw) -> Path:
    """Images of several sizes, which wait for others of their size, partly ignored; one has no labels."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for kind in ("images", "masks"):
        (root / "test" / kind).mkdir(parents=True)
    for i, size in enumerate(SIZES):
        image, mask = draw(generator, size)
        mask[: size[0] // 5] = 255
        mask[:, :3] = 255
        if i == 3:
            mask[:] = 255
        Image.fromarray(image).save(root / "test" / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "test" / "masks" / f"{i}.png")
    shutil.copy(discs / "classes.yaml", root)
    return root


@pytest.fixture(scope="module")
def samples(photos):
    return open_labels(config.Data(root=str(photos))).split("test")


@pytest.mark.parametrize(("multiscale", "workers"), [(False, 0), (False, 2), (True, 0)])
def test_counts_are_those_of_every_prediction(model, samples, multiscale, workers, tmp_path):
    scores = evaluate(model, samples, multiscale, workers=workers, show=False, out=tmp_path, areas=(30, 300))
    kept = kept_folder.read(tmp_path)
    assert kept.names == tuple(sample.name for sample in samples) == tuple("0123456")
    assert kept.sizes.tolist() == [list(size) for size in SIZES]
    for place, sample in enumerate(samples):
        result, truth = predict(model, sample.image_path, multiscale=multiscale), sample.target()
        expected, known = np.zeros((3, 3), int), truth != 255
        np.add.at(expected, (truth[known], result.labels[known]), 1)
        assert kept.confusion_of(place).tolist() == expected.tolist()
        confidence, right = result.probabilities().max(0)[known], (result.labels == truth)[known]
        bins = kept.calibration[place]
        assert bins[:, 0].sum() == known.sum()
        assert bins[:, 2].sum() == right.sum()
        assert bins[:, 1].sum() == pytest.approx(confidence.sum(), rel=1e-5)
        tables = {
            "objects": count_objects(truth, result.labels, 255, (30, 300)),
            "boundaries": count_boundaries(truth, result.labels, 255, 0.02),
        }
        for name, table in tables.items():
            rows = getattr(kept, name)
            rows = rows[rows["image"] == place]
            rows["image"] = 0
            assert rows.tolist() == table.tolist()
    total = totals(model, samples, multiscale, show=False).numpy()
    assert scores.confusion.tolist() == kept.confusion.tolist() == total.tolist()
    assert sum(kept.confusion_of(place) for place in range(len(kept))).tolist() == total.tolist()


def test_bins_are_those_of_a_loop_over_pixels(model, samples, tmp_path):
    evaluate(model, samples[:1], show=False, out=tmp_path)
    result, truth = predict(model, samples[0].image_path), samples[0].target()
    confidence = result.confidence()
    wanted = np.zeros((BINS, 3))
    for true, found, sure in zip(truth.ravel(), result.labels.ravel(), confidence.ravel(), strict=True):
        if true != 255:
            place = min(int(np.ceil(sure * BINS)) - 1, BINS - 1)
            wanted[place] += (1, sure, true == found)
    np.testing.assert_allclose(kept_folder.read(tmp_path).calibration[0], wanted, rtol=1e-5)


def test_what_was_evaluated_is_written_down(model, photos, tmp_path):
    evaluate(model, photos, native=True, show=False, out=tmp_path, boundary=0.05, source="runs/first")
    about = json.loads((tmp_path / "scores.json").read_text())
    assert about["images"] == 7
    assert (about["areas"], about["boundary"]) == ([1024, 9216], 0.05)
    about = about["about"]
    assert (about["model"], about["split"], about["data"]["root"]) == ("runs/first", "test", str(photos))
    assert (about["multiscale"], about["precision"], about["temperature"]) == (False, "float32", 1.0)
    assert about["inference"] == {"window": [64, 64], "stride": [48, 48], "batch": 4, "enlarge": False, "native": True}
    assert kept_folder.read(tmp_path).about == about


def test_the_temperature_of_a_model_changes_its_bins_alone(disc_run, samples, tmp_path):
    model = load(disc_run)
    for place, temperature in (("one", 1.0), ("two", 2.0)):
        model.temperature = temperature
        evaluate(model, samples, show=False, out=tmp_path / place)
    one, two = (kept_folder.read(tmp_path / place) for place in ("one", "two"))
    assert np.array_equal(one.confusions, two.confusions)
    assert np.nanmean(two.confidence) < np.nanmean(one.confidence)
    assert two.about["temperature"] == 2


def test_an_evaluation_is_not_replaced_by_mistake(model, samples, tmp_path, monkeypatch):
    evaluate(model, samples[:1], show=False, out=tmp_path)
    before = (tmp_path / "scores.json").read_bytes()
    monkeypatch.setattr(type(model), "forward", None)  # it is refused before any work
    with pytest.raises(UserError, match="holds an evaluation; choose another --out, or add --overwrite to replace it"):
        evaluate(model, samples, show=False, out=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "scores.json").read_bytes() == before
    evaluate(model, samples, show=False, out=tmp_path, overwrite=True)
    assert len(kept_folder.read(tmp_path)) == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"areas": (10, 20)}, r"areas is set, but is only for what out writes; give a folder \(--out\), or lea"),
        ({"overwrite": True}, "overwrite is set, but is only for what out writes"),
        ({"boundary": 0.01}, "boundary is set, but is only for what out writes"),
        ({"out": "new", "areas": (20, 10)}, "areas are 20 10, but no object has 20 pixels or more and 10 or fewer"),
        ({"out": "new", "boundary": 0}, "boundary is 0; write a value above 0 and at most 1"),
        ({"out": "new", "areas": (0, 10)}, "areas is 0 10; write a value from 1 to"),
        ({"out": "new", "alignment": "median"}, "alignment is 'median', but the model predicts labels"),
    ],
)
def test_settings_that_mean_nothing_are_refused(model, samples, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        evaluate(model, samples, show=False, **options)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_a_sentence_and_spares_the_old_evaluation(model, samples, tmp_path, monkeypatch):
    evaluate(model, samples[:1], show=False, out=tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match=r"could not write .*images.npz \(No space left on device\): make room there"):
        evaluate(model, samples, show=False, out=tmp_path, overwrite=True)
    assert len(kept_folder.read(tmp_path)) == 1


# Instances


def test_objects_are_instances_where_there_is_a_map(model, samples, photos, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "test" / "instances").mkdir()
    halves = np.zeros((64, 64), np.uint16)
    halves[:, 20:32], halves[:, 32:50] = 7, 300  # cuts what lies there in two
    Image.fromarray(halves).save(root / "test" / "instances" / "0.png")
    for place, data in (("without", photos), ("with", root)):
        evaluate(model, data, show=False, out=tmp_path / place, areas=(30, 300))
    without, found = (kept_folder.read(tmp_path / place) for place in ("without", "with"))
    rows = found.objects[found.objects["image"] == 0]
    truth, labels = samples[0].target(), predict(model, samples[0].image_path).labels
    assert rows.tolist() == count_objects(truth, labels, 255, (30, 300), halves.astype(int)).tolist()
    assert rows["objects"].sum() > without.objects[without.objects["image"] == 0]["objects"].sum()
    assert np.array_equal(found.objects[found.objects["image"] > 0], without.objects[without.objects["image"] > 0])
    Image.fromarray(halves[:, :50]).save(root / "test" / "instances" / "0.png")
    expected = r"the instance map of 0 is 64 x 50 \(height x width\), but the mask is 64 x 64 .*; export both at one"
    with pytest.raises(UserError, match=expected):
        evaluate(model, root, show=False, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_instance_maps_of_published_data_sets(tmp_path):
    def sample(mask: str, instances: str, values: np.ndarray) -> np.ndarray:
        for name in (mask, instances):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / instances)
        return FileSample("a", tmp_path / "a.png", tmp_path / mask, None).instances().tolist()

    stem = "gtFine/val/lindau/lindau_000000_000019_gtFine"
    values = np.array([[7, 26, 26001, 24000]], np.uint16)  # a road, a group of cars, a car, a person
    for mask in ("labelTrainIds", "labelIds"):
        assert sample(f"{stem}_{mask}.png", f"{stem}_instanceIds.png", values) == [[0, 0, 26001, 24000]]
    values = np.array([[0, 1, 2, 255]], np.uint8)
    assert sample("SegmentationClass/1.png", "SegmentationObject/1.png", values) == [[0, 1, 2, 0]]
    assert sample("masks/val/b/1.png", "instances/val/b/1.png", values) == [[0, 1, 2, 255]]
    assert FileSample("a", tmp_path / "a.png", tmp_path / "masks" / "none.png", None).instances() is None
    assert FileSample("a", tmp_path / "a.png", tmp_path / "SegmentationClassAug" / "1.png", None).instances() is None
    assert FileSample("a", tmp_path / "a.png", None, None).instances() is None


def test_scenes_know_their_things():
    sample = open_data("scenes").split("test")[4]
    assert isinstance(sample, SceneSample)
    things = sample.instances()
    assert things.shape == sample.target().shape
    assert len(np.unique(things)) > 3


def test_samples_of_others_need_no_instances(model, samples, tmp_path):
    class Mine:
        """A sample as the protocol says, and no more."""

        name, labelled = "mine", True
        image, target = samples[0].image, samples[0].target

    evaluate(model, [Mine()], show=False, out=tmp_path)
    assert kept_folder.read(tmp_path).names == ("mine",)


def test_many_classes(tmp_path, tiny_recipe):
    torch.manual_seed(0)
    classes = Classes(tuple(f"c{i}" for i in range(300)), ((0, 0, 0),) * 300)
    model = Segmenter(tiny_recipe(tmp_path), classes).eval()

    class Wide:
        """A sample with labels of 16 bits, of which torch has none."""

        name, labelled = "wide", True

        def image(self) -> np.ndarray:
            return np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)

        def target(self) -> np.ndarray:
            labels = np.random.default_rng(1).integers(0, 300, (40, 50)).astype(np.uint16)
            labels[:10] = 65535
            return labels

    scores = evaluate(model, [Wide()], show=False, out=tmp_path / "kept")
    kept = kept_folder.read(tmp_path / "kept")
    assert kept.confusion.sum() == 30 * 50
    assert np.array_equal(totals(model, [Wide()], show=False).numpy(), scores.confusion)
    assert kept.objects["class"].max() > 255
