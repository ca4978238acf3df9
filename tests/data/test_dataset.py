"""Proves that pictures of every kind are read exactly or refused, and a training sample depends on its draw alone."""

import itertools
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from segmenter import config
from segmenter.data.classes import Classes, default_colors
from segmenter.data.dataset import EndlessSampler, TrainingSamples
from segmenter.data.files import image_size, read_image, read_mask
from segmenter.data.samples import FileSample
from segmenter.errors import UserError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
CLASSES = Classes(("a", "b", "c", "d"), default_colors(4))


def saved(tmp_path: Path, picture: Image.Image, name: str = "x.png", **options) -> Path:
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def refused(read, *arguments) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments)
    return str(error.value)


def png(path: Path, kind: int, bits: int, width: int, rows: list[bytes]) -> Path:
    """A PNG of a kind (0 grey, 2 RGB) and depth that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
            crc = zlib.crc32(name + content)
            file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc))
    return path


def tiff(path: Path, bands: int):
    """A TIFF of 2 x 2 pixels with more bands than Pillow writes: red, green, blue and others."""
    pixels, bits = bytes(4 * bands), struct.pack(f"<{bands}H", *[8] * bands)
    extra = struct.pack(f"<{bands - 3}H", *[0] * (bands - 3))
    entries = [  # tag, type, count, value: width, height, bits, compression, RGB, place, bands, rows, bytes, others
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, bands, 8 + len(pixels)), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, bands), (278, 3, 1, 2), (279, 4, 1, len(pixels)),
        (338, 3, bands - 3, int.from_bytes(extra.ljust(4, b"\0"), "little")),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels + bits))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(head + pixels + bits + directory + bytes(4))


# Pictures


def test_grey_palette_alpha_and_one_bit_pictures_become_rgb(tmp_path):
    rgb = Image.fromarray(PICTURE)
    grey = np.array(rgb.convert("L"))
    alpha = Image.fromarray(RNG.integers(0, 256, (5, 7), dtype=np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    np.testing.assert_array_equal(read_image(saved(tmp_path, rgb)), PICTURE)
    np.testing.assert_array_equal(read_image(saved(tmp_path, rgba)), PICTURE)  # transparency is dropped
    grey_alpha = Image.merge("LA", (rgb.convert("L"), alpha))
    for picture in (rgb.convert("L"), grey_alpha):
        np.testing.assert_array_equal(read_image(saved(tmp_path, picture)), np.repeat(grey[..., None], 3, 2))
    palette = rgb.quantize(8)
    np.testing.assert_array_equal(read_image(saved(tmp_path, palette)), np.array(palette.convert("RGB")))
    bits = read_image(saved(tmp_path, rgb.convert("1")))
    assert set(np.unique(bits)) == {0, 255}
    cmyk = read_image(saved(tmp_path, rgb.convert("CMYK"), "x.tif"))
    np.testing.assert_array_equal(cmyk, PICTURE)


def test_sixteen_bit_grey_is_divided_by_257(tmp_path):
    values = np.array([[0, 257, 514, 65535, 30000]], np.uint16)
    for name in ("x.png", "x.tif"):
        image = read_image(saved(tmp_path, Image.fromarray(values), name))
        assert image[0, :, 1].tolist() == [0, 1, 2, 255, 117]
        assert image.shape == (1, 5, 3)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
def test_the_exif_rotation_is_applied(tmp_path, name):
    picture = Image.fromarray(np.repeat(np.repeat(PICTURE, 8, 0), 8, 1))  # 40 x 56
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    options = {"tiffinfo": {0x0112: 6}} if name == "x.tif" else {"exif": exif}
    path = saved(tmp_path, picture, name, **options)
    image = read_image(path)
    assert image.shape == (56, 40, 3)
    assert image_size(path) == (56, 40)
    difference = np.abs(image.astype(int) - np.rot90(np.array(picture), -1)).mean()
    assert difference < (1 if name in ("x.png", "x.tif") else 40)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    path = saved(tmp_path, frames[0], "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(path)[0, 0].tolist() == [255, 0, 0]


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "x.png"
    assert refused(read_image, path) == f"{path} does not exist"
    path.write_bytes(b"")
    assert refused(read_image, path) == f"{path} is empty (0 bytes); copy it again or remove it"
    path.write_text("no picture")
    assert refused(read_image, path) == f"{path} is not a readable picture (png, jpg, jpeg, webp, tif, tiff, bmp)"
    assert refused(image_size, path) == refused(read_image, path)
    assert refused(read_image, tmp_path) == f"{tmp_path} is a folder, not a picture"
    for name in ("y.png", "y.jpg"):
        cut = saved(tmp_path, Image.fromarray(np.repeat(np.repeat(PICTURE, 20, 0), 20, 1)), name)
        cut.write_bytes(cut.read_bytes()[:-300])
        for read in (read_image, lambda file: read_mask(file, CLASSES)):
            text = refused(read, cut)
            assert text.startswith(f"{cut} is broken or incomplete (")
            assert text.endswith("; copy it again or remove it")


def test_pictures_with_other_channels_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.ones((2, 2), np.float32)), "x.tif")
    assert refused(read_image, path) == (
        f"{path} has pixels of the kind 'F', which is neither grey (8 or 16 bits) nor RGB; "
        "save it as an 8-bit RGB picture"
    )
    path = saved(tmp_path, Image.fromarray(np.ones((2, 2), np.int32)), "x.tif")
    assert "has pixels of the kind 'I'" in refused(read_image, path)
    tiff(tmp_path / "bands.tif", 5)
    assert refused(read_image, tmp_path / "bands.tif") == (
        f"{tmp_path}/bands.tif has 5 channels, of which 3 can be used; save it as an RGB picture"
    )


# Masks


def test_masks_keep_their_stored_numbers(tmp_path):
    grey = Image.fromarray(LABELS)
    palette = grey.copy()
    palette.putpalette(list(range(60, 72)))
    for picture, name in (
        (grey, "x.png"),
        (palette, "x.png"),
        (Image.fromarray(LABELS.astype(np.uint16)), "x.png"),
        (Image.fromarray(LABELS.astype(np.uint16)), "x.tif"),
        (Image.fromarray(LABELS.astype(np.int32)), "x.tif"),
        (Image.merge("RGB", (grey, grey, grey)), "x.bmp"),
        (Image.merge("RGBA", (grey, grey, grey, Image.new("L", (7, 5), 9))), "x.png"),
        (Image.merge("LA", (grey, Image.new("L", (7, 5), 9))), "x.png"),
    ):
        labels = read_mask(saved(tmp_path, picture, name), CLASSES)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, LABELS)


def test_masks_of_few_bits_are_not_stretched(tmp_path):
    for bits in (2, 4):
        packed = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in LABELS]
        path = png(tmp_path / "x.png", 0, bits, 7, packed)
        np.testing.assert_array_equal(read_mask(path, CLASSES), LABELS)
    one = LABELS > 1
    np.testing.assert_array_equal(read_mask(saved(tmp_path, Image.fromarray(one)), CLASSES), one)


def test_masks_are_never_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(LABELS), exif=exif)
    np.testing.assert_array_equal(read_mask(path, CLASSES), LABELS)


def test_colour_masks_are_read_by_their_colours(tmp_path):
    classes = Classes(CLASSES.names, CLASSES.colors, values={c[0] << 16 | c[1] << 8 | c[2]: i for i, c in
                      enumerate(CLASSES.colors)}, by_color=True)  # fmt: skip
    picture = Image.fromarray(np.array(CLASSES.colors, np.uint8)[LABELS])
    palette = Image.fromarray(LABELS[::-1].copy())
    palette.putpalette(CLASSES.palette())
    np.testing.assert_array_equal(read_mask(saved(tmp_path, picture), classes), LABELS)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, palette), classes), LABELS[::-1])
    path = saved(tmp_path, picture)
    assert refused(read_mask, path, CLASSES) == (
        f"{path} is a colour picture, but masks hold class ids; if its colours are the classes, write "
        "`masks: colors` and each class's color in classes.yaml"
    )


def test_masks_that_cannot_be_exact_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(LABELS.astype(np.float32)), "x.tif")
    assert refused(read_mask, path, CLASSES) == (
        f"{path} has pixels of the kind 'F'; save the mask as 8-bit grey of class ids"
    )
    deep = png(tmp_path / "deep.png", 2, 16, 1, [struct.pack(">3H", 1, 1, 1)])
    assert refused(read_mask, deep, CLASSES) == (
        f"{deep} is a mask with several channels of 16 bits; save it with one channel, as grey"
    )


# Training samples


def samples(tmp_path: Path, count: int = 3) -> list[FileSample]:
    found = []
    for i in range(count):
        image = RNG.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        labels = RNG.integers(0, 4, (20 + i, 30), dtype=np.uint8)
        paths = (
            saved(tmp_path, Image.fromarray(image), f"i{i}.png"),
            saved(tmp_path, Image.fromarray(labels), f"m{i}.png"),
        )
        found.append(FileSample(f"s{i}", *paths, partial(read_mask, classes=CLASSES)))
    return found


SMALL = config.Augment(short_side=24, crop=(32, 40))


def test_a_sample_is_padded_and_tells_its_content(tmp_path):
    data = TrainingSamples(samples(tmp_path), SMALL, seed=0)
    padded = False
    for draw in range(12):
        item = data[draw % 3, draw]
        height, width = item["content"].tolist()
        assert item["image"].dtype == torch.uint8
        assert item["image"].shape == (3, 32, 40)
        assert item["target"].dtype == torch.int64
        assert item["target"].shape == (32, 40)
        assert item["name"] == f"s{draw % 3}"
        outside = torch.ones(32, 40, dtype=torch.bool)
        outside[:height, :width] = False
        assert (item["target"][outside] == 255).all()
        assert (item["image"][:, outside] == 0).all()
        assert (item["target"][~outside] < 4).all()
        padded |= bool(outside.any())
    assert padded


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("image", "target", "content")) and a["name"] == b["name"]


def test_a_draw_is_the_same_at_any_time_and_others_differ(tmp_path):
    data = TrainingSamples(samples(tmp_path), SMALL, seed=0)
    expected = data[1, 5]
    torch.manual_seed(123)
    data[0, 4]
    assert same(data[1, 5], expected)
    assert not same(data[1, 6], expected)
    assert not same(TrainingSamples(data.samples, SMALL, seed=1)[1, 5], expected)


def test_the_order_is_permutation_after_permutation_and_starts_anywhere():
    whole = list(itertools.islice(EndlessSampler(7, seed=3), 21))
    assert [draw for _, draw in whole] == list(range(21))
    epochs = [[index for index, _ in whole[i : i + 7]] for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    for start in (1, 7, 12):
        assert list(itertools.islice(EndlessSampler(7, 3, start), 21 - start)) == whole[start:]
    assert list(itertools.islice(EndlessSampler(7, 4), 7)) != whole[:7]


def test_a_loader_with_workers_gives_what_one_without_gives(tmp_path):
    data = TrainingSamples(samples(tmp_path), SMALL, seed=0)
    batches = []
    for workers, start in ((0, 0), (1, 0), (0, 4)):
        loader = DataLoader(data, batch_size=2, sampler=EndlessSampler(3, 0, start), num_workers=workers)
        batches.append(list(itertools.islice(loader, 4)))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches[0], batches[1], strict=True))
    assert torch.equal(batches[0][2]["image"], batches[2][0]["image"])  # as when a run is continued
    assert batches[0][0]["name"] != batches[0][1]["name"]


def test_more_than_255_classes(tmp_path):
    classes = Classes(tuple(map(str, range(300))), default_colors(300))
    values = np.full((20, 30), 299, np.uint16)
    values[:10] = 65535
    image = saved(tmp_path, Image.new("RGB", (30, 20)), "i.png")
    sample = FileSample(
        "s", image, saved(tmp_path, Image.fromarray(values), "m.png"), partial(read_mask, classes=classes)
    )
    settings = config.Augment(short_side=24, crop=(64, 64))
    labels = TrainingSamples([sample], settings, 0)[0, 0]["target"]
    assert set(labels.unique().tolist()) == {299, 65535}
