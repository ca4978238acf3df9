"""Proves where windows lie and that their logits are those of the crops, averaged where they overlap."""

import itertools
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from segmenter import upsample
from segmenter.inference import windows
from segmenter.inference.windows import enlarged_size, logits_of_many, positions, window_logits, windows_of
from segmenter.published.loading import load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (683, 512, 512, (0, 171)),
        (683, 512, 171, (0, 171)),
        (683, 512, 480, (0, 171)),
        (2048, 768, 512, (0, 512, 1024, 1280)),
        (1024, 512, 512, (0, 512)),
        (1025, 512, 512, (0, 512, 513)),
        (512, 512, 480, (0,)),
        (300, 512, 480, (0,)),
        (1, 512, 480, (0,)),
    ],
)
def test_windows_start_at_multiples_of_the_stride_and_end_at_the_border(length, window, stride, expected):
    assert positions(length, window, stride) == expected


@pytest.mark.parametrize("length", [64, 65, 100, 111, 112, 113, 500])
@pytest.mark.parametrize("stride", [1, 16, 63, 64])
def test_every_pixel_lies_in_a_window(length, stride):
    starts = positions(length, 64, stride)
    assert starts[0] == 0
    assert starts[-1] == length - 64
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(starts))


def test_logits_are_those_of_the_windows_averaged_where_they_overlap(disc_run):
    model = load(disc_run)  # window 64, stride 48
    image = torch.randint(0, 256, (3, 70, 130), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, geometry = window_logits(model, image, model.recipe.inference)
        found = upsample.logits(logits, geometry)[0]
        total, count = torch.zeros(3, 70, 130), torch.zeros(70, 130)
        for y in (0, 6):
            for x in (0, 48, 66):
                crop = image[None, :, y : y + 64, x : x + 64]
                total[:, y : y + 64, x : x + 64] += model.pixel_logits(model.normalize(crop))[0]
                count[y : y + 64, x : x + 64] += 1
    assert len(logits) == 6
    torch.testing.assert_close(found, total / count, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 299), (513, 512)),
        ((299, 300), (512, 513)),
        ((375, 500), (512, 682)),
        ((512, 512), (512, 512)),
        ((512, 900), (512, 900)),
        ((600, 511), (601, 512)),
    ],
)
def test_small_images_are_enlarged_as_published(size, expected):
    assert enlarged_size(size, (512, 512)) == expected


def test_an_enlarged_image_is_answered_at_its_own_size(disc_run):
    model = load(disc_run)
    image = torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain, geometry = window_logits(model, image, model.recipe.inference)
        assert (len(plain), geometry.size) == (1, (30, 50))
        model.recipe.inference.enlarge = True
        logits, geometry = window_logits(model, image, model.recipe.inference)
        assert (len(logits), geometry.size) == (2, (30, 50))  # 64 x 106
        large = F.interpolate(image[None].float(), (64, 106), mode="bilinear")
        total, count = torch.zeros(1, 3, 64, 106), torch.zeros(106)
        for x in (0, 42):
            total[..., x : x + 64] += model.pixel_logits(model.normalize(large[..., x : x + 64]))
            count[x : x + 64] += 1
        expected = F.interpolate(total / count, (30, 50), mode="bilinear")
        torch.testing.assert_close(upsample.logits(logits, geometry), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 5])
def test_windows_in_a_pass_change_nothing(disc_run, batch):
    image = torch.randint(0, 256, (3, 70, 130), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    model = load(disc_run)
    with torch.inference_mode():
        expected, _ = window_logits(model, image, model.recipe.inference)
        model.recipe.inference.batch = batch
        found, _ = window_logits(model, image, model.recipe.inference)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def passes(disc_run):
    """A model, and the number of windows in each of its passes."""
    model = load(disc_run)  # window 64, stride 48
    model.recipe.inference.batch = 4
    sizes = []
    model.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    return model, sizes


def some_images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


@torch.inference_mode()
def test_windows_of_several_images_share_passes(passes):
    model, sizes = passes
    images = some_images((70, 130), (64, 64), (64, 100), (200, 64), (64, 64))  # 6, 1, 2, 4 and 1 windows
    expected = [window_logits(model, image, model.recipe.inference) for image in images]
    sizes.clear()
    found = list(logits_of_many(model, zip(images, "abcde", strict=True), model.recipe.inference))
    assert sizes == [4, 4, 4, 2]
    assert [name for _, _, name in found] == list("abcde")
    for (logits, geometry, _), (alone, same) in zip(found, expected, strict=True):
        assert geometry == same
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_images_wait_for_windows_of_their_own_size_only(passes):
    model, sizes = passes
    images = some_images((30, 40), (70, 130), (30, 40), (64, 100))
    found = [name for _, _, name in logits_of_many(model, zip(images, "abcd", strict=True), model.recipe.inference)]
    assert found == ["b", "d", "a", "c"]  # the small ones are whole only where no more can follow
    assert sizes == [4, 4, 2]


@torch.inference_mode()
def test_no_more_images_are_held_than_a_pass_needs(passes):
    model, _ = passes
    taken = []
    images = some_images(*[(64, 64)] * 9)
    stream = logits_of_many(model, ((image, taken.append(0)) for image in images), model.recipe.inference)
    next(stream)
    assert len(taken) == 4


@pytest.fixture
def live(monkeypatch) -> Callable[[], int]:
    """Counts the crops that are held, by queue or pass."""
    known: list[weakref.ref] = []

    def noting(*arguments):
        crops, geometry = windows_of(*arguments)
        known.extend(map(weakref.ref, crops))
        return crops, geometry

    monkeypatch.setattr(windows, "windows_of", noting)
    return lambda: sum(crop() is not None for crop in known)


@torch.inference_mode()
def test_images_of_many_sizes_do_not_all_wait_in_memory(passes, live, monkeypatch):
    model, _ = passes
    monkeypatch.setattr(windows, "WAITING", 5 * 40 * 40)
    images = some_images(*[(40, width) for width in range(20, 61)])  # smaller than a window: each is one of its own
    expected = [window_logits(model, image, model.recipe.inference) for image in images]
    held = []

    def stream():
        for place, image in enumerate(images):
            yield image, place
            held.append(live())

    found = list(logits_of_many(model, stream(), model.recipe.inference))
    assert max(held) < 12 < len(images)  # 5 x 40 x 40 pixels, and the crop that was just passed
    assert [place for _, _, place in found] == list(range(len(images)))  # the oldest first
    for (logits, geometry, _), (alone, same) in zip(found, expected, strict=True):
        assert geometry == same
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_no_image_is_overtaken_by_more_than_so_many_pixels(passes, monkeypatch):
    model, sizes = passes
    monkeypatch.setattr(windows, "WAITING", 6 * 64 * 64)
    images = some_images((30, 40), *[(64, 64)] * 20)
    found = [
        place for _, _, place in logits_of_many(model, zip(images, range(21), strict=True), model.recipe.inference)
    ]
    assert 4 <= found.index(0) <= 8
    assert sorted(found) == list(range(21))
    assert sizes == [4, 1, 4, 4, 4, 4]  # it goes alone, the others do not wait for it
