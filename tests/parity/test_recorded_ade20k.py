"""Proves that a published file, evaluated on ADE20K as it is unpacked, gets the recorded labels and scores, by the
commands alone, without a list of classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import recorded
import torch
from PIL import Image
from recorded import tensors
from safetensors.torch import load_file

from segmenter import upsample
from segmenter.config import Data
from segmenter.data.layouts import open_labels
from segmenter.data.sets.named_classes import named_classes
from segmenter.evaluation.metrics import Scores

CASES = [case for case in recorded.cases("pipeline") if recorded.about(case)["net_kwargs"]["n_cls"] == 150]
ENDS = {"images": ".image_rgb_u8", "annotations": ".annotation_u8"}
over_cases = pytest.mark.parametrize("case", CASES, ids=recorded.name)


@pytest.fixture
def ade20k(tmp_path):
    """Writes a case's images and masks as ADE20K's archive has them; lossless, whatever the suffix."""

    def write(case) -> Path:
        root = tmp_path / "ADEChallengeData2016"
        for key, pixels in tensors(case / "data.safetensors").items():
            for kind, end in ENDS.items():
                if key.endswith(end):
                    folder = root / kind / "validation"
                    folder.mkdir(parents=True, exist_ok=True)
                    path = folder / f"ADE_val_{key.removesuffix(end)}.{'jpg' if kind == 'images' else 'png'}"
                    Image.fromarray(pixels.numpy()).save(path, "PNG")
        return root

    return write


@over_cases
def test_images_and_labels(case, ade20k):
    data, stored = open_labels(Data(root=str(ade20k(case)))), tensors(case / "data.safetensors")
    assert "(ADE20K)" in data.source
    assert data.classes.names == named_classes("ade20k").names
    for sample in data.split("val"):
        name = sample.name.removeprefix("ADE_val_")
        assert np.array_equal(sample.image(), stored[f"{name}.image_rgb_u8"].numpy())
        assert np.array_equal(sample.target(), stored[f"{name}.gt_eval"].numpy())


@over_cases
def test_scores_of_the_recorded_predictions(case, ade20k):
    data, stored = open_labels(Data(root=str(ade20k(case)))), tensors(case / "data.safetensors")
    total = 0
    for sample in data.split("val"):
        predicted = stored[f"{sample.name.removeprefix('ADE_val_')}.noisy_pred"].long()
        total += upsample.count(predicted, torch.from_numpy(sample.target()).long(), len(data.classes))
    assert_percents(Scores(total.numpy(), data.classes.names).to_dict(), recorded.about(case)["scores_noisy_pred"])


@pytest.fixture
def published(tmp_path):
    """Writes a case's model as the original's training on ADE20K does."""

    def write(case) -> Path:
        facts, folder = recorded.about(case), tmp_path / "model"
        folder.mkdir()
        recorded.write_original(
            folder,
            load_file(case / "weights.safetensors"),
            facts["net_kwargs"],
            dataset_kwargs={"dataset": "ade20k", "image_size": facts["im_size"]},
            inference_kwargs={"window_size": facts["window_size"], "window_stride": facts["window_stride"]},
        )
        return folder

    return write


@over_cases
@pytest.mark.parametrize("kind", ["ss", "ms"])
def test_the_command_evaluate(case, ade20k, published, command, kind, caplog):
    root, multiscale = ade20k(case), ["--multiscale"] if kind == "ms" else []
    told = command("evaluate", published(case), root, "--json", "--workers", 0, *multiscale)
    assert told.status == 0
    assert f"{root} has no test images with masks: scored on val" in caplog.text
    scores = json.loads(told.out)
    assert_percents(scores, recorded.about(case)["scores"][kind])
    assert [entry["name"] for entry in scores["classes"]] == list(named_classes("ade20k").names)
    truth = [labels.numpy().ravel() for key, labels in tensors(case / "data.safetensors").items() if "gt_eval" in key]
    counts = np.bincount(np.concatenate(truth).astype(int), minlength=256)[:150]
    assert [entry["pixels"] for entry in scores["classes"]] == counts.tolist()


@over_cases
def test_the_command_predict_for_the_server(case, ade20k, published, tmp_path, command):
    images, out, stored = ade20k(case) / "images", tmp_path / "out", tensors(case / "data.safetensors")
    told = command("predict", published(case), images, "--out", out, "--format", "ade20k", "--no-overlays")
    assert told.status == 0
    for path in sorted(images.rglob("*.jpg")):
        name = path.stem.removeprefix("ADE_val_")
        found = torch.from_numpy(np.array(Image.open(out / f"labels/{path.stem}.png"))).long() - 1
        other = found != stored[f"{name}.pred_ss"]
        # Our resizing is within a grey level of OpenCV's, which turns labels where two classes are nearly equal.
        recorded.note(case, f"share of other labels in {name}, as a file", other.float().mean().item(), 0.05)
        worst = (stored[f"{name}.pred_margin_ss"] * other).max().item()
        recorded.note(case, f"margin of other labels in {name}, as a file", worst, 5e-3)


def assert_percents(scores: dict, expected: dict) -> None:
    """To two decimals."""
    for key in ("pixel_accuracy", "mean_accuracy", "mean_iou"):
        assert round(100 * scores[key], 2) == expected[key], key
