"""Proves that sliding windows, scales and mirror images, the ADE20K evaluation and its scores are the recorded ones."""

from dataclasses import replace

import numpy as np
import pytest
import recorded
import torch
import yaml
from PIL import Image
from recorded import largest, note, tensors

from segmenter import upsample
from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.data.transforms import target_size
from segmenter.evaluation.evaluate import evaluate
from segmenter.evaluation.metrics import Scores
from segmenter.inference.passes import MULTISCALE, many_passes, one_pass, scaled
from segmenter.inference.windows import window_logits

pytestmark = pytest.mark.usefixtures("one_thread")

NEAR_TIE = 1e-4
# The records are float32 themselves, up to 9e-6 from the truth. Computed in float64, the whole difference is theirs
# on any machine; in float32 our own rounding, as large as theirs, comes on top.
FLOAT32 = 2e-5


def short(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def probabilities(passes) -> torch.Tensor:
    """K H W from all bands."""
    return torch.cat([part for _, part in upsample.mean_probabilities(passes)], 1)


def assert_same_labels(found: torch.Tensor, expected: torch.Tensor, margin: torch.Tensor) -> None:
    """Labels differ only where the recorded best two classes are nearly equal."""
    assert found.shape == expected.shape
    assert not ((found != expected) & (margin >= NEAR_TIE)).any()


def margin(probs: torch.Tensor) -> torch.Tensor:
    """Best minus second best probability (H W)."""
    best = probs.topk(2, 0).values
    return best[0] - best[1]


# ---- sliding windows

WINDOWS = [(case, tag) for case in recorded.cases("sliding") for tag in recorded.tags(case, "sliding.safetensors")]


@pytest.mark.parametrize(("case", "tag"), WINDOWS, ids=lambda value: value if isinstance(value, str) else value.name)
@torch.inference_mode()
def test_sliding_windows(case, tag):
    stored, settings = tensors(case / "sliding.safetensors"), recorded.about(case)["inference"][tag]
    model = recorded.with_windows(recorded.original(case), settings["window"], settings["stride"], settings["bs"])
    logits, geometry = window_logits(model, stored[f"{tag}.input"][0], model.recipe.inference)
    corners = [[row, column] for row in geometry.windows[0] for column in geometry.windows[1]]
    assert corners == stored[f"{tag}.anchors_yx"].tolist()
    geometry = replace(geometry, final=tuple(settings["ori_shape"]), mirrored=settings.get("flip", False))
    exact = window_logits(model.double(), stored[f"{tag}.input"][0].double(), model.recipe.inference)[0]
    expected = stored[f"{tag}.probs"]
    for scores, precision, limit in ((exact, "float64", 1e-5), (logits, "float32", FLOAT32)):
        found = probabilities([(scores, geometry)])
        note(case, f"probabilities, windows {tag}, {precision}", largest(found, expected), limit)
        assert_same_labels(found.argmax(0), expected.argmax(0), margin(expected))
        assert_same_labels(upsample.labels(scores, geometry)[0], expected.argmax(0), margin(expected))


# ---- scales and mirror images


@pytest.mark.parametrize("case", recorded.cases("multiscale"), ids=recorded.name)
@torch.inference_mode()
def test_scales_and_mirror_images(case):
    stored, settings = tensors(case / "multiscale.safetensors"), recorded.about(case)["multiscale"]
    model = recorded.with_windows(recorded.original(case), settings["window"], settings["stride"], settings["bs"])
    size, expected = tuple(settings["ori_shape"]), stored["probs"]
    for precision, limit in ((torch.float32, FLOAT32), (torch.float64, 1e-5)):
        model, passes = model.to(precision), []
        for ratio in settings["ratios"]:
            image = stored[f"scale_{ratio}.input"][0].to(precision)
            passes.append(one_pass(model, image, size, model.recipe.inference))
            if (key := f"probs_single_scale_{ratio}") in stored:
                error = largest(probabilities(passes[-1:]), stored[key])
                note(case, f"probabilities, scale {ratio} alone, {short(precision)}", error, limit)
            logits, geometry = one_pass(model, image.flip(-1), size, model.recipe.inference)
            passes.append((logits, replace(geometry, mirrored=True)))
        found = probabilities(passes)
        note(case, f"probabilities, scales and mirror images, {short(precision)}", largest(found, expected), limit)
        assert_same_labels(found.argmax(0), stored["argmax"], margin(expected))
        assert_same_labels(upsample.labels_of_mean(passes), stored["argmax"], margin(expected))


# ---- the evaluation of ADE20K

PIPELINE = recorded.cases("pipeline")
pipeline = pytest.mark.parametrize("case", PIPELINE, ids=recorded.name)


def image_names(case) -> list[str]:
    keys, end = recorded.names_in(case / "data.safetensors"), ".image_rgb_u8"
    return [key.removesuffix(end) for key in keys if key.endswith(end)]


@pytest.fixture
def ade20k(tmp_path):
    """Writes a case's images and masks as the ADE20K folder has them."""

    def write(case) -> Data:
        stored = tensors(case / "data.safetensors")
        for name in image_names(case):
            for kind, key in (("images", "image_rgb_u8"), ("annotations", "annotation_u8")):
                folder = tmp_path / kind / "validation"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(stored[f"{name}.{key}"].numpy()).save(folder / f"{name}.png")
        count = recorded.about(case)["net_kwargs"]["n_cls"]
        content = {"classes": [f"class {i}" for i in range(count)], "map": {0: 255} | {i + 1: i for i in range(count)}}
        (tmp_path / "classes.yaml").write_text(yaml.dump(content))
        return Data(root=str(tmp_path))

    return write


def evaluated_model(case):
    """The case's model, set as its evaluation was."""
    facts = recorded.about(case)
    model = recorded.original(case)
    model.recipe.inference = recorded.windows(facts["window_size"], facts["window_stride"])
    model.recipe.augment.short_side, model.recipe.augment.max_ratio = facts["im_size"], float(facts["max_ratio"])
    return model


@pipeline
def test_files_become_the_recorded_labels_and_network_inputs(case, ade20k):
    stored, facts, model = tensors(case / "data.safetensors"), recorded.about(case), evaluated_model(case)
    for values, found in zip(facts["normalization_values"].values(), (model.mean, model.std), strict=True):
        assert [value / 255 for value in values] == pytest.approx(found, abs=1e-9)
    grey = max(1 / 255 / value for value in model.std)
    for sample in open_labels(ade20k(case)).split("val"):
        assert np.array_equal(sample.target(), stored[f"{sample.name}.gt_eval"].numpy())
        image = sample.image()
        found = model.normalize(scaled(image, model.recipe.augment)[None])[0]
        error = largest(found, stored[f"{sample.name}.val_tensor"]) / grey
        note(case, f"grey levels of {sample.name}", error, 1 + 1e-3)
        small = scaled(image, model.recipe.augment, ratio=MULTISCALE[0])
        for index, picture in enumerate((small, small.flip(-1))):
            if (key := f"{sample.name}.ms_tensor.{index}") in stored:
                error = largest(model.normalize(picture[None])[0], stored[key]) / grey
                note(case, f"grey levels of {sample.name} at {MULTISCALE[0]}", error, 1 + 1e-3)


@pipeline
def test_sizes_of_all_scales(case):
    facts, stored = recorded.about(case), tensors(case / "data.safetensors")
    for name in image_names(case):
        recorded_sample = next(v for key, v in facts["samples"].items() if key.partition(".")[0] == name)
        size = tuple(stored[f"{name}.image_rgb_u8"].shape[:2])
        sizes = [target_size(size, facts["im_size"], facts["max_ratio"], ratio) for ratio in MULTISCALE]
        assert [list(s) for s in sizes for _ in range(2)] == [shape[2:] for shape in recorded_sample["shapes"]]
        assert recorded_sample["flips"] == [False, True] * len(sizes)


@pipeline
@torch.inference_mode()
def test_labels_of_the_recorded_network_inputs(case):
    stored, model = tensors(case / "data.safetensors"), evaluated_model(case)
    model.normalize = lambda images: images  # they are normalised
    for name in image_names(case):
        expected = stored[f"{name}.pred_ss"]
        logits, geometry = one_pass(model, stored[f"{name}.val_tensor"], tuple(expected.shape), model.recipe.inference)
        found = upsample.labels(logits, geometry)[0]
        assert_same_labels(found, expected, stored[f"{name}.pred_margin_ss"])
        note(case, f"share of other labels in {name}, same input", (found != expected).float().mean().item(), 1e-3)


@pipeline
@pytest.mark.parametrize("kind", ["ss", "ms"])
@torch.inference_mode()
def test_labels_and_scores_of_the_recorded_images(case, kind):
    # Our resizing is within a grey level of OpenCV's, which moves the probabilities of these random networks by
    # some 1e-3: the labels may differ where the best two classes are nearer than that.
    stored, facts, model = tensors(case / "data.safetensors"), recorded.about(case), evaluated_model(case)
    total = 0
    for name in image_names(case):
        image = stored[f"{name}.image_rgb_u8"].numpy()
        if kind == "ss":
            small = scaled(image, model.recipe.augment)
            found = upsample.labels(*one_pass(model, small, image.shape[:2], model.recipe.inference))[0]
        else:
            found = upsample.labels_of_mean(many_passes(model, image, model.recipe.inference))
        other = found != stored[f"{name}.pred_{kind}"]
        note(case, f"share of other labels in {name}, {kind}", other.float().mean().item(), 0.05)
        worst = (stored[f"{name}.pred_margin_{kind}"] * other).max().item()
        note(case, f"margin of other labels in {name}, {kind}", worst, 5e-3)
        total += upsample.count(found, stored[f"{name}.gt_eval"].long(), len(model.classes))
    assert_percents(Scores(total.numpy(), model.classes.names), facts["scores"][kind])


@pipeline
def test_scores_of_the_recorded_predictions(case):
    facts, stored = recorded.about(case), tensors(case / "data.safetensors")
    count, expected = facts["net_kwargs"]["n_cls"], facts["scores_noisy_pred"]
    total = 0
    for name in image_names(case):
        total += upsample.count(stored[f"{name}.noisy_pred"], stored[f"{name}.gt_eval"].long(), count)
    scores = Scores(total.numpy(), tuple(map(str, range(count))))
    assert_percents(scores, expected)
    for found, iou in zip(scores.iou, expected["cat_iou"], strict=True):
        assert (iou is None) == bool(np.isnan(found))
        assert iou is None or found == pytest.approx(iou, abs=5e-5)


def assert_percents(scores: Scores, expected: dict) -> None:
    """To two decimals."""
    for key in ("pixel_accuracy", "mean_accuracy", "mean_iou"):
        assert round(100 * getattr(scores, key), 2) == expected[key], key


@pipeline
def test_scores_of_the_folder(case, ade20k):
    scores = evaluate(evaluated_model(case), ade20k(case), split="val")
    assert_percents(scores, recorded.about(case)["scores"]["ss"])
