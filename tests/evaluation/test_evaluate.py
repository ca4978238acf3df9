"""Proves that evaluation equals a naive computation at full size, and refuses what cannot be scored."""

import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segmenter import config
from segmenter.data.layouts import open_labels
from segmenter.errors import UserError
from segmenter.evaluation.evaluate import evaluate, totals
from segmenter.inference.labels import Result
from segmenter.inference.passes import at_scales, passes_at
from segmenter.inference.predict import predict
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(disc_run):
    return load(disc_run)


def naive_probabilities(model, image: np.ndarray, short_side: int, mirrored: bool = False) -> torch.Tensor:
    """Probabilities (K H W) as the published code computes them: everything at full size."""
    height, width = image.shape[:2]
    scale = min(int(4 * short_side) / max(height, width), short_side / min(height, width))
    size = [int(side * scale + 0.5) for side in (height, width)]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear").round()
    pixels = (pixels / 255 - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
    pixels = pixels.flip(-1) if mirrored else pixels
    (window_h, window_w), (stride_h, stride_w) = model.recipe.inference.window, model.recipe.inference.stride
    window_h, window_w = min(window_h, size[0]), min(window_w, size[1])
    total, count = torch.zeros(1, len(model.classes), *size), torch.zeros(size)
    for y in [*range(0, size[0] - window_h, stride_h), size[0] - window_h]:
        for x in [*range(0, size[1] - window_w, stride_w), size[1] - window_w]:
            place = (..., slice(y, y + window_h), slice(x, x + window_w))
            total[place] += model.pixel_logits(pixels[place])
            count[place] += 1
    logits = F.interpolate(total / count, (height, width), mode="bilinear")
    logits = logits.flip(-1) if mirrored else logits
    return logits.softmax(1)[0]


def naive_counts(model, samples, multiscale: bool) -> np.ndarray:
    counts = np.zeros((len(model.classes),) * 2, int)
    for sample in samples:
        passes = [(64, False)]
        if multiscale:
            passes = [(int(64 * r), m) for r in (0.5, 0.75, 1, 1.25, 1.5, 1.75) for m in (False, True)]
        image, labels = sample.image(), sample.target()
        with torch.inference_mode():
            mean = sum(naive_probabilities(model, image, side, m) for side, m in passes) / len(passes)
        predicted = mean.argmax(0).numpy()
        for true, found in zip(labels.ravel(), predicted.ravel(), strict=True):
            if true != 255:
                counts[true, found] += 1
    return counts


@pytest.fixture(scope="module")
def photos(tmp_path_factory, discs, draw):
    """Images larger, smaller and longer than a window, partly ignored."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    for kind in ("images", "masks"):
        (root / "test" / kind).mkdir(parents=True)
    for i, size in enumerate([(64, 64), (90, 131), (40, 37), (50, 170)]):
        image, mask = draw(generator, size)
        mask[: size[0] // 5, :] = 255
        Image.fromarray(image).save(root / "test" / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "test" / "masks" / f"{i}.png")
    shutil.copy(discs / "classes.yaml", root)
    return root


@pytest.mark.parametrize(("multiscale", "workers"), [(False, 0), (True, 1)])
def test_counts_are_those_of_the_naive_full_size_computation(model, photos, multiscale, workers):
    samples = open_labels(config.Data(root=str(photos))).split("test")
    found = totals(model, samples, multiscale, workers=workers, show=False).numpy()
    expected = naive_counts(model, samples, multiscale)
    assert found.sum() == expected.sum() == sum((sample.target() != 255).sum() for sample in samples)
    # The photos are resized to whole grey levels, and there a pixel at the border of two classes may differ.
    assert np.abs(found - expected).sum() <= 0.004 * found.sum()
    assert evaluate(model, samples, multiscale, show=False).confusion.tolist() == found.tolist()


def test_evaluation_scores_what_prediction_answers(model, photos):
    samples = open_labels(config.Data(root=str(photos))).split("test")
    expected = np.zeros((3, 3), int)
    for sample in samples:
        labels = sample.target()
        found = predict(model, sample.image_path).labels
        np.add.at(expected, (labels[labels != 255], found[labels != 255]), 1)
    assert totals(model, samples, show=False).tolist() == expected.tolist()


def test_multiscale_prediction_of_the_mirror_image_is_the_mirror_image(model, draw):
    # Whole patches and a single window at every scale: nothing in it knows left from right.
    image = draw(np.random.default_rng(5), (64, 128))[0]
    model = copy.deepcopy(model)
    model.recipe.inference.window = model.recipe.inference.stride = (112, 224)
    scales = list(at_scales(image, model.recipe.augment))
    # Resizing rounds to whole grey levels, here up and there down; which, depends on the machine.
    for scale, other in zip(scales, at_scales(image[:, ::-1].copy(), model.recipe.augment), strict=True):
        assert (scale.int() - other.flip(-1)).abs().max() <= 1
    straight, mirrored = (
        Result(passes_at(model, images, (64, 128), model.recipe.inference), model.classes)
        for images in (scales, [scale.flip(-1) for scale in scales])
    )
    np.testing.assert_allclose(straight.probabilities(), mirrored.probabilities()[..., ::-1], atol=1e-5)
    top = np.sort(straight.probabilities(), 0)
    certain = top[-1] - top[-2] > 1e-4
    assert certain.mean() > 0.99
    assert np.array_equal(straight.labels[certain], mirrored.labels[:, ::-1][certain])
    assert len(np.unique(straight.labels)) == 3


def test_a_split_without_masks_is_refused(model, disc_folder):
    root = disc_folder()
    shutil.rmtree(root / "test" / "masks")
    with pytest.raises(UserError, match=r"test0.png has no mask: it can be predicted"):
        evaluate(model, config.Data(root=str(root)), split="test")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_in_one_line(model, disc_folder, workers):
    root = disc_folder()
    image = root / "test" / "images" / "test1.png"
    image.write_bytes(image.read_bytes()[:1000])
    expected = r"test1.png is broken or incomplete .*copy it again or remove it"
    with pytest.raises(UserError, match=expected) as error:
        evaluate(model, config.Data(root=str(root)), split="test", workers=workers)
    assert "\n" not in str(error.value)


def test_a_split_that_does_not_exist_is_refused(model, disc_folder):
    root = disc_folder()
    shutil.rmtree(root / "test")
    with pytest.raises(UserError, match="there is no split 'test' in"):
        evaluate(model, config.Data(root=str(root)), split="test")
    with pytest.raises(UserError, match="there are no images to evaluate on; choose another split"):
        evaluate(model, [])


def test_other_classes_than_the_models_are_refused(model, disc_folder):
    root = disc_folder()
    (root / "classes.yaml").write_text("classes: [ground, red, green, blue]")
    expected = r"has the classes 4 \(ground, red, green ...\), the model 3 .*: --data.classes FILE"
    with pytest.raises(UserError, match=expected):
        evaluate(model, config.Data(root=str(root)), split="test")
