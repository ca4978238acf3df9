"""Proves that the vectors of classes are those that decide, and lie on the axes as they lie in space."""

import numpy as np
import pytest
import torch
from tiny_models import classes, noise, recipe, small_model, stir

import segmenter
from segmenter.errors import UserError
from segmenter.inspection.class_embeddings import class_embeddings
from segmenter.model.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSIFIERS = ("linear", "setr_naive", "setr_pup", "setr_mla", "dpt")
ENCODERS = (
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "beit_base_patch16_224",
)


def photo(seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("decoder", [*CLASSIFIERS, "mask_transformer"])
def test_classes_of_one_vector_have_one_mask(decoder):
    """So the vectors are those of the last layer that tells classes apart, not of an auxiliary one."""
    model = small_model(decoder, depth=4)
    stir(model)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name in model.decoder.class_dependent and name.endswith("bias"):
                parameter.zero_()
            if name == "mask_norm.weight":
                parameter.fill_(1)
        model.decoder.class_vectors()[3] = model.decoder.class_vectors()[1]
        logits = model(noise(1, 3, 64, 96))[0]
    torch.testing.assert_close(logits[3], logits[1])
    assert not torch.allclose(logits[2], logits[1])
    vectors = class_embeddings(model)[0].vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    np.testing.assert_allclose(vectors[3], vectors[1])
    assert class_embeddings(model)[0].nearest(1)[3] == [(1, pytest.approx(1.0))]


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_after_the_decoder_are_the_mean_over_images(name):
    model = small_model("mask_transformer", name=name)
    stir(model)
    images = [photo(1), photo(2)]
    with torch.inference_mode():
        pixels = model.normalize(torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]))
        each = model.decoder.compared([model.encoder(pixels)])[1].double().numpy()  # 2 K D
    before, after = segmenter.class_embeddings(model, images)
    mean = each.mean(0)
    assert (before.title, after.title) == ("class embeddings before the decoder", "class embeddings after the decoder")
    assert before.steadiness is None
    np.testing.assert_allclose(after.steadiness, np.linalg.norm(mean, axis=1), rtol=1e-5)
    np.testing.assert_allclose(after.vectors, mean / np.linalg.norm(mean, axis=1)[:, None], atol=1e-6)
    assert (after.steadiness < 1 - 1e-9).all()
    alone = class_embeddings(model, images[:1])[1]
    np.testing.assert_allclose(alone.steadiness, 1, rtol=1e-6)


def placed(vectors) -> segmenter.class_embeddings:
    """The class embeddings of a model with these vectors (K 48, filled up with zeros)."""
    vectors = torch.tensor(vectors, dtype=torch.float32)
    model = small_model("mask_transformer", count=len(vectors))
    with torch.no_grad():
        model.decoder.class_embeddings.zero_()[0, :, : vectors.shape[1]] = vectors
    return class_embeddings(model)[0]


def test_what_lies_on_a_plane_is_drawn_as_it_lies():
    angles = np.radians([0, 10, 100, 250])
    found = placed(np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [5], [0.1], [2]])
    assert sum(found.shares) == pytest.approx(1)
    expected = np.abs(np.exp(1j * angles)[:, None] - np.exp(1j * angles))
    np.testing.assert_allclose(np.linalg.norm(found.points[:, None] - found.points, axis=-1), expected, atol=1e-6)
    np.testing.assert_allclose(found.points.mean(0), 0, atol=1e-6)
    assert (found.points[np.abs(found.points).argmax(0), [0, 1]] > 0).all()
    assert found.nearest(2) == [
        [(1, pytest.approx(np.cos(np.radians(10)), abs=1e-6)), (2, pytest.approx(np.cos(np.radians(100)), abs=1e-6))],
        [(0, pytest.approx(np.cos(np.radians(10)), abs=1e-6)), (2, pytest.approx(0, abs=1e-6))],
        [(1, pytest.approx(0, abs=1e-6)), (0, pytest.approx(np.cos(np.radians(100)), abs=1e-6))],
        [(0, pytest.approx(np.cos(np.radians(110)), abs=1e-6)), (1, pytest.approx(np.cos(np.radians(120)), abs=1e-6))],
    ]


def test_the_axes_are_the_widest_and_their_shares_are_of_all_the_variance():
    found = placed([[1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [0, 0, 0.001, 0]])
    squares = np.square(found.points).sum(0)
    total = np.square(found.vectors - found.vectors.mean(0)).sum()
    np.testing.assert_allclose(squares / total, found.shares)
    assert squares[0] >= squares[1] > 0
    assert sum(found.shares) < 1


@pytest.mark.parametrize("vectors", [[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 1], [1, 0]]])
def test_two_classes_equal_ones_and_zeros_have_their_places(vectors):
    found = placed(vectors)
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.shares).all()
    assert [len(others) for others in found.nearest()] == [len(vectors) - 1] * len(vectors)


def test_a_depth_model_has_no_classes():
    with pytest.raises(UserError, match=r"a model of depth has no classes \(dpt_depth\); give a model that"):
        class_embeddings(small_model("dpt_depth", depth=4))


def test_one_class_is_compared_with_none():
    with pytest.raises(UserError, match="the model has one class, which can be compared with no other; give one with"):
        class_embeddings(Segmenter(recipe(), classes(1)))


@pytest.mark.parametrize("decoder", CLASSIFIERS)
def test_images_are_refused_where_they_change_nothing(decoder):
    text = f"^the {decoder} decoder has the same class vectors for every image .*; leave the images out$"
    with pytest.raises(UserError, match=text):
        class_embeddings(small_model(decoder, depth=4), [photo()])


def test_broken_weights_are_refused():
    model = small_model()
    torch.nn.init.constant_(model.decoder.head.weight, torch.nan)
    with pytest.raises(UserError, match="hold values that are not finite"):
        class_embeddings(model)
