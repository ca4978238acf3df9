"""Proves that photos of every kind and size get labels at their own upright size; others are refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import segmenter
from segmenter.config import Inference
from segmenter.data.classes import Classes, default_colors
from segmenter.errors import UserError
from segmenter.inference.passes import MULTISCALE, scaled
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")
ROTATED = 6  # EXIF: the camera was turned, the picture has to be turned by 90 degrees


@pytest.fixture(scope="module")
def model(disc_run):
    return load(disc_run)


@pytest.fixture(scope="module")
def photo(draw) -> np.ndarray:
    """A picture (H W 3) that is higher than wide."""
    return draw(np.random.default_rng(8), (80, 60))[0]


def saved(picture: Image.Image, path, **options):
    picture.save(path, **options)
    return path


def rotated(photo: np.ndarray, path):
    """The photo as a camera on its side stores it."""
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    return saved(Image.fromarray(np.rot90(photo).copy()), path, exif=exif)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_of_a_picture(model, photo, tmp_path, mode):
    picture = Image.fromarray(photo).convert(mode)
    path = saved(picture, tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png"))
    labels = predict(model, path).labels
    assert labels.shape == (80, 60)
    assert labels.dtype == np.uint8
    assert labels.max() < 3
    assert np.array_equal(labels, predict(model, picture).labels)
    assert np.array_equal(labels, predict(model, np.array(picture.convert("RGB"))).labels)


def test_grey_of_16_bits_is_grey_of_8_bits(model, photo, tmp_path):
    grey = np.array(Image.fromarray(photo).convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    path = saved(deep, tmp_path / "deep.png")
    expected = predict(model, Image.fromarray(grey)).labels
    assert np.array_equal(predict(model, path).labels, expected)
    assert np.array_equal(predict(model, deep).labels, expected)


def test_a_rotated_photo_gets_upright_labels(model, photo, tmp_path):
    path = rotated(photo, tmp_path / "turned.png")
    expected = predict(model, photo).labels
    assert np.array_equal(predict(model, path).labels, expected)
    assert np.array_equal(predict(model, Image.open(path)).labels, expected)
    assert segmenter.overlay(path, predict(model, path), legend=False).size == (60, 80)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (7, 61), (64, 64), (65, 63), (130, 300)])
def test_labels_have_the_photos_own_size(model, size, native):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    result = predict(model, image, native=native)
    assert result.labels.shape == size
    assert result.probabilities().shape == (3, *size)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (90, 131)])
def test_probabilities_of_many_scales_sum_to_one_and_their_largest_is_the_label(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    result = predict(model, image, multiscale=True)
    probabilities = result.probabilities()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(0), result.labels)
    bands = list(result.probability_bands())
    assert np.array_equal(np.concatenate([part for _, part in bands], 1), probabilities)
    assert bands[0][0].start == 0
    assert bands[-1][0].stop == size[0]


def test_the_scale_is_the_trainings_or_the_photos(model):
    augment = model.recipe.augment  # short side 64, at most four times longer
    image = np.zeros((100, 150, 3), np.uint8)
    assert scaled(image, augment).shape == (3, 64, 96)
    assert scaled(image, augment, native=True).shape == (3, 100, 150)
    assert scaled(image, augment, ratio=0.5).shape == (3, 32, 48)
    assert scaled(image, augment, native=True, ratio=0.5).shape == (3, 50, 75)
    assert scaled(np.zeros((10, 1000, 3), np.uint8), augment).shape == (3, 3, 256)


@pytest.mark.parametrize("size", [(7, 61), (61, 7), (7, 122), (49, 4903), (1, 1)])
def test_native_never_resizes(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    pixels = scaled(image, model.recipe.augment, native=True)
    assert torch.equal(pixels, torch.from_numpy(image).permute(2, 0, 1))


def test_a_photo_twice_as_large_has_the_same_labels_only_at_the_trainings_scale(model, draw):
    small = draw(np.random.default_rng(2), (64, 64))[0]
    large = np.kron(small, np.ones((4, 4, 1), np.uint8))
    expected = np.kron(predict(model, small).labels, np.ones((4, 4), np.uint8))
    trained = (predict(model, large).labels == expected).mean()
    native = (predict(model, large, native=True).labels == expected).mean()
    assert trained > 0.97 > native


def test_many_scales_are_six_and_their_mirror_images(model, photo):
    assert len(MULTISCALE) == 6
    assert len(predict(model, photo, multiscale=True)._passes) == 12


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_other_arrays_are_refused_with_a_sentence(model, array):
    with pytest.raises(UserError, match=r"the array is .*; give uint8 of shape \(height, width, 3\)"):
        predict(model, array)


def test_other_pictures_are_refused_with_a_sentence(model, tmp_path):
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(UserError, match=r"pixels of the kind 'F'; give grey \(8 or 16 bits\) or RGB"):
        predict(model, floats)
    with pytest.raises(UserError, match=r"floats.tif has pixels of the kind 'F'.*save it as an 8-bit RGB"):
        predict(model, saved(floats, tmp_path / "floats.tif"))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png is not a readable picture"):
        predict(model, tmp_path / "text.png")
    with pytest.raises(UserError, match=r"none.png does not exist"):
        predict(model, tmp_path / "none.png")


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_labels_of_more_than_255_classes_have_16_bits(tiny_recipe, count, dtype):
    classes = Classes(tuple(f"class {i}" for i in range(count)), default_colors(count))
    model = Segmenter(tiny_recipe("", decoder={"name": "linear"}), classes).eval()
    with torch.no_grad():
        model.decoder.head.bias[-1] = 100  # the last class wins everywhere
    labels = predict(model, np.zeros((5, 4, 3), np.uint8)).labels
    assert labels.dtype == dtype
    assert (labels == np.full((5, 4), count - 1)).all()


class Large(TorchDispatchMode):
    """The types of all tensors that are made with so many elements or more."""

    def __init__(self, elements: int):
        super().__init__()
        self.elements, self.dtypes = elements, set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        tensors = [tensor for tensor in tree_leaves(made) if isinstance(tensor, torch.Tensor)]
        self.dtypes |= {tensor.dtype for tensor in tensors if tensor.numel() >= self.elements}
        return made


def test_a_large_photo_is_never_held_in_real_numbers(model):
    photo = np.random.default_rng(0).integers(0, 256, (700, 900, 3)).astype(np.uint8)
    with Large(700 * 900) as large:
        predict(model, photo, native=True)
    assert torch.uint8 in large.dtypes
    assert not any(dtype.is_floating_point for dtype in large.dtypes)


def some_photos(*sizes: tuple[int, int]) -> list[np.ndarray]:
    generator = np.random.default_rng(4)
    return [generator.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.mark.parametrize("multiscale", [False, True])
def test_many_photos_are_answered_in_order_as_each_alone(model, multiscale):
    photos = some_photos((30, 40), (64, 64), (80, 60), (30, 41), (64, 64), (64, 64), (30, 40))
    results = list(predict(model, iter(photos), multiscale=multiscale, native=True))
    assert len(results) == len(photos)
    for photo, result in zip(photos, results, strict=True):
        alone = predict(model, photo, multiscale=multiscale, native=True)
        assert result.labels.shape == photo.shape[:2]
        assert (result.labels == alone.labels).mean() > 0.999  # windows in other company are rounded otherwise
        np.testing.assert_allclose(result.probabilities(), alone.probabilities(), atol=1e-5)


def test_photos_share_passes_and_are_taken_as_they_are_needed(model):
    taken, sizes = [], []
    handle = model.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    results = predict(model, ((taken.append(0), photo)[1] for photo in some_photos(*[(64, 64)] * 9)))
    assert not taken
    next(results)
    assert (len(taken), sizes) == (model.recipe.inference.batch, [model.recipe.inference.batch])
    assert len(list(results)) == 8
    handle.remove()


def test_photos_before_a_broken_one_are_answered(model, tmp_path, photo):
    results = predict(model, [photo, photo, tmp_path / "none.png", photo])
    assert [next(results).labels.shape for _ in range(2)] == [(80, 60)] * 2
    with pytest.raises(UserError, match=r"none.png does not exist"):
        next(results)


def test_settings_are_taken_instead_of_the_recipes(model, photo):
    sizes = []
    handle = model.register_forward_pre_hook(lambda _, images: sizes.append(tuple(images[0].shape)))
    settings = Inference(window=(32, 32), stride=(32, 32), batch=3, native=True)
    before = model.recipe.inference
    assert predict(model, photo, inference=settings).labels.shape == (80, 60)
    handle.remove()
    assert sizes == [(3, 3, 32, 32), (3, 3, 32, 32)]
    assert model.recipe.inference is before
