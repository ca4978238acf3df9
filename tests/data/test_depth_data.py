"""Proves that depth maps of every kind are read as inverse depth, and that what is wrong with them is said clearly."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures

from segmenter import config
from segmenter.data.check_depth import DepthReport, check_depth
from segmenter.data.dataset import TrainingSamples
from segmenter.data.depth_data import open_depth
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.samples import DataSet, FileSample
from segmenter.data.scenes.scene import NAMES, render
from segmenter.data.transforms import augment, pad
from segmenter.errors import UserError

METRES = np.array([[0.5, 1.0, 2.0], [4.0, 8.0, 10.0]])
NOTHING = np.nan
RNG = np.random.default_rng(0)


def settings(root: Path | str = "", **data) -> config.Data:
    return config.Data(root=str(root), **data)


def write_image(path: Path, size: tuple[int, int] = (2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_png(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.astype(np.uint16)).save(path)


def write_pair(root: Path, name: str, numbers: np.ndarray = METRES * 1000) -> None:
    """An image and its depth map of 16 bits; `name` is split/file."""
    split, file = name.split("/")
    write_image(root / split / "images" / f"{file}.jpg", numbers.shape)
    write_png(root / split / "depth" / f"{file}.png", numbers)


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("train/a", "train/b", "val/c", "test/d"):
        write_pair(tmp_path, name)
    return tmp_path


def refusal(path: Path, **data) -> str:
    with pytest.raises(UserError) as caught:
        read_inverse_depth(path, settings(**data))
    return str(caught.value)


# Reading


def test_png_npy_and_npz_hold_the_same(tmp_path):
    write_png(tmp_path / "a.png", METRES * 256)
    np.save(tmp_path / "a.npy", METRES.astype(np.float16))
    np.save(tmp_path / "b.npy", METRES[..., None].astype(np.float32))
    np.save(tmp_path / "c.npy", (METRES * 256).astype(np.int64)[None])
    np.savez_compressed(tmp_path / "a.npz", depth=METRES)
    for name, scale in (("a.png", 256), ("a.npy", 0), ("b.npy", 0), ("c.npy", 256), ("a.npz", 1)):
        inverse = read_inverse_depth(tmp_path / name, settings(depth_scale=scale))
        assert inverse.dtype == np.float32
        np.testing.assert_allclose(inverse, 1 / METRES, rtol=1e-6, err_msg=name)


def test_inverse_maps_are_taken_as_they_are(tmp_path):
    np.save(tmp_path / "a.npy", METRES)
    inverse = read_inverse_depth(tmp_path / "a.npy", settings(depth_kind="inverse", depth_scale=2))
    np.testing.assert_allclose(inverse, METRES / 2)


@pytest.mark.parametrize("kind", ["depth", "inverse"])
def test_zero_nan_and_infinity_are_no_measurement(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array([[0, np.nan, np.inf], [-np.inf, 2, 1e-45]]))
    inverse = read_inverse_depth(tmp_path / "a.npy", settings(depth_kind=kind))
    measured = [[False] * 3, [False, True, kind == "inverse"]]  # 1 / 1e-45 is more than a float32 holds
    assert np.isfinite(inverse).tolist() == measured
    assert inverse[1, 1] == (0.5 if kind == "depth" else 2)
    write_png(tmp_path / "a.png", np.array([[0, 500]]))
    inverse = read_inverse_depth(tmp_path / "a.png", settings(depth_kind=kind, depth_scale=1000))
    assert np.isnan(inverse).tolist() == [[True, False]]


def test_whole_numbers_need_a_scale(tmp_path):
    write_png(tmp_path / "a.png", METRES)
    np.save(tmp_path / "a.npy", METRES.astype(np.uint16))
    for path in (tmp_path / "a.png", tmp_path / "a.npy"):
        assert refusal(path) == (
            f"{path} holds whole numbers, and it is not stated which one means one metre; write it, for example "
            "--data.depth-scale 1000 for millimetres or 256 as in KITTI"
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([[1.0, -2.5], [np.nan, -1.0]], "holds -2.5, but depth is positive; write 0 or NaN where nothing was measured"),
        ([[0.0, np.nan], [np.inf, -np.inf]],
         "holds no measurement, only zeros, NaN or infinity; remove it and its image"),
        (np.ones((2, 2, 3)), "holds float64 of shape (2, 2, 3); a depth map has one number for every pixel: "),
        (np.ones(3), "holds float64 of shape (3,); a depth map has one number for every pixel: (height, width)"),
        (np.ones((0, 3)), "holds float64 of shape (0, 3); a depth map"),
        (np.ones((2, 2), complex), "holds complex128 of shape (2, 2); a depth map"),
        (np.array([[True]]), "holds bool of shape (1, 1); a depth map"),
        (np.array([["a"]]), "holds <U1 of shape (1, 1); a depth map"),
    ],
    ids=["negative", "nothing", "colours", "one row", "empty", "complex", "bool", "text"],
)  # fmt: skip
def test_arrays_that_are_no_depth(tmp_path, content, said):
    np.save(tmp_path / "a.npy", np.array(content))
    assert refusal(tmp_path / "a.npy").startswith(f"{tmp_path / 'a.npy'} {said}")


def test_files_that_are_no_depth(tmp_path):
    write_image(tmp_path / "colours.png")
    assert refusal(tmp_path / "colours.png", depth_scale=1) == (
        f"{tmp_path / 'colours.png'} is a picture of the kind 'RGB', not a depth map: it needs one channel, as in a "
        "grey PNG of 16 bits; a depth map drawn in colours cannot be turned back"
    )
    np.savez(tmp_path / "two.npz", depth=METRES, mask=METRES)
    assert refusal(tmp_path / "two.npz") == (
        f"{tmp_path / 'two.npz'} holds 2 arrays (depth, mask); keep the one with the depth"
    )
    (tmp_path / "a.exr").write_bytes(struct.pack("<I", 20000630))
    assert refusal(tmp_path / "a.exr") == (
        f"{tmp_path / 'a.exr'} is OpenEXR, which nothing that is installed here reads; save its numbers as .npy"
    )
    for name in ("cut.npy", "cut.npz", "cut.png"):
        whole = tmp_path / name.replace("cut", "whole")
        if name.endswith("png"):
            write_png(whole, RNG.integers(0, 65536, (100, 100)))
        else:
            (np.save if name.endswith("npy") else np.savez_compressed)(whole, RNG.random((100, 100)))
        (tmp_path / name).write_bytes(whole.read_bytes()[:1000])
        assert "is broken or incomplete" in refusal(tmp_path / name, depth_scale=1)
        (tmp_path / name).write_bytes(b"")
        assert "is empty (0 bytes)" in refusal(tmp_path / name, depth_scale=1)
    assert refusal(tmp_path / "none.npy") == f"{tmp_path / 'none.npy'} does not exist"
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    assert "allow_pickle=False" in refusal(tmp_path / "pickle.npy")


# Folders and scenes


def test_folders_are_found_and_paired(root):
    found = open_depth(settings(root, depth_scale=1000))
    assert {split: [sample.name for sample in samples] for split, samples in found.splits.items()} == {
        "train": ["a", "b"], "val": ["c"], "test": ["d"],
    }  # fmt: skip
    assert found.source == f"{root}: train 2, val 1, test 1 images with depth maps"
    np.testing.assert_allclose(found.split("val")[0].target(), 1 / METRES, rtol=1e-6)
    assert found.classes.names == ("depth",)


def test_flat_folders_and_disparity(tmp_path):
    for name in "abcdefgh":
        write_image(tmp_path / "images" / f"{name}.png")
        (tmp_path / "disparity").mkdir(exist_ok=True)
        np.save(tmp_path / "disparity" / f"{name}.npy", METRES)
    found = open_depth(settings(tmp_path, depth_kind="inverse"))
    assert sum(map(len, found.splits.values())) == 8
    np.testing.assert_allclose(found.split("train")[0].target(), METRES)


def test_what_does_not_pair_up(root, tmp_path):
    (root / "val" / "depth" / "c.png").unlink()
    with pytest.raises(UserError) as caught:
        open_depth(settings(root))
    assert str(caught.value) == (
        f"1 of 1 images in {root}/val/images have no depth map of the same name in {root}/val/depth: c; "
        "rename or add the depth maps, or remove the images"
    )
    with pytest.raises(UserError) as caught:
        open_depth(settings(tmp_path / "nowhere"))
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere'} does not exist; data.root is the folder that holds train/images and train/depth (val "
        "and test likewise), or images and depth"
    )


def test_test_images_without_depth_can_be_opened_but_not_scored(root):
    (root / "test" / "depth" / "d.png").unlink()
    (root / "test" / "depth").rmdir()
    found = open_depth(settings(root, depth_scale=1000))
    assert found.labelled_split() == "val"
    with pytest.raises(UserError, match="has no depth map: it can be predicted, but not learnt from or scored"):
        found.split("test")[0].target()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"classes": "c.yaml"}, "data.classes is set, but depth has no classes; leave it empty"),
        ({"map": ("1:2",)}, "data.map is set, but depth has no classes; leave it empty"),
        ({"layout": "ade20k"}, "data.layout is ade20k, which has no depth maps; write auto, folder or scenes"),
    ],
)
def test_settings_of_labels_are_refused(root, wrong, said):
    with pytest.raises(UserError) as caught:
        open_depth(settings(root, **wrong))
    assert str(caught.value) == said


def test_scenes_have_depth_and_a_sky_that_is_infinitely_far():
    found = open_depth(settings("scenes"))
    assert [len(found.splits[split]) for split in ("train", "val", "test")] == [3000, 100, 200]
    sample = found.split("test")[0]
    scene = render(sample.seed, sample.index, (96, 128))
    inverse, sky = sample.target(), scene.labels == NAMES.index("sky")
    assert sky.any()
    assert (inverse[sky] == 0).all()
    np.testing.assert_allclose(1 / inverse[~sky], scene.depth[~sky], rtol=1e-6)
    assert np.array_equal(sample.image(), scene.image)


# Augmentation


def test_depth_goes_with_its_image_through_the_augmentation():
    """A picture whose grey is the depth: whatever is done to both, they still agree."""
    inverse = torch.linspace(0.1, 1, 60).repeat(40, 1)
    inverse[:, :10] = NOTHING
    image = (inverse.nan_to_num(0) * 200).byte().repeat(3, 1, 1)
    recipe = config.Augment(short_side=40, crop=(24, 24), scale=(0.5, 2.0), max_class_share=1.0, distortion=False)
    mirrored = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        small, depth = augment(image, inverse, recipe, NOTHING, generator)
        assert small.shape[1:] == depth.shape
        known = depth.isfinite()
        assert set(depth[known].tolist()) <= set(inverse[inverse.isfinite()].tolist())  # nothing is mixed
        inner = known & known.roll(3, 1) & known.roll(-3, 1)
        inner[:, :3] = inner[:, -3:] = False
        if inner.any():
            assert (small[0][inner] - depth[inner] * 200).abs().max() < 8
        row = depth[0][known[0]]
        mirrored += bool(row[0] > row[-1])
    assert 3 < mirrored < 17


def test_training_samples_of_depth(root):
    samples = open_depth(settings(root, depth_scale=1000)).split("train")
    recipe = config.Augment(short_side=2, crop=(4, 4), scale=(1.0, 1.0), flip=0.0, distortion=False)
    item = TrainingSamples(samples, recipe, 0, "depth")[0, 0]
    assert item.keys() == {"image", "target", "content", "name"}
    assert item["content"].tolist() == [2, 3]
    assert item["target"].dtype == torch.float32
    np.testing.assert_allclose(item["target"][:2, :3], 1 / METRES, rtol=1e-6)
    assert item["target"][2:].isnan().all()
    assert item["target"][:, 3:].isnan().all()


def test_padding_is_no_measurement():
    image, depth = pad(torch.ones(3, 2, 2, dtype=torch.uint8), torch.ones(2, 2), (3, 4), NOTHING)
    assert depth.isnan().sum() == 8
    assert image.sum() == 12


# Check


def texts(report: DepthReport, severity: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.severity == severity]


def checked(root: Path, **data) -> DepthReport:
    chosen = settings(root, **({"depth_scale": 1000} | data))
    return check_depth(open_depth(chosen))


def test_clean_depth_has_no_findings_and_its_range_is_told(root):
    write_pair(root, "train/far", np.array([[0, 20_000], [40_000, 60_000]]))
    report = checked(root)
    assert report.findings == []
    report.refuse_errors()
    assert report.table().splitlines() == [
        "split     maps  measured   nearest    median  farthest",
        "train        3     91.7%       0.5     2.667        60",
        "val          1    100.0%       0.5     2.667        10",
        "test         1    100.0%       0.5     2.667        10",
    ]


def test_every_broken_map_is_found(root):
    write_png(root / "train" / "depth" / "a.png", np.zeros((2, 3)))
    write_png(root / "train" / "depth" / "b.png", METRES.T)
    (root / "val" / "depth" / "c.png").write_bytes(b"")
    (root / "test" / "images" / "d.jpg").write_bytes(b"")
    report = checked(root)
    train, val = root / "train", root / "val"
    assert texts(report, "error") == [
        f"{train / 'depth' / 'a.png'} holds no measurement, only zeros, NaN or infinity; remove it and its image",
        f"{train / 'images' / 'b.jpg'} is 2 x 3 (height x width), but its depth map {train / 'depth' / 'b.png'} is "
        "3 x 2; turn the depth map (the image is taken upright, as its EXIF rotation says)",
        f"{val / 'depth' / 'c.png'} is empty (0 bytes); copy it again or remove it",
        f"{root / 'test' / 'images' / 'd.jpg'} is empty (0 bytes); copy it again or remove it",
    ]
    with pytest.raises(UserError, match=r"the data cannot be trained on:\n- .*holds no measurement"):
        report.refuse_errors()


def test_that_the_scale_is_missing_is_said_once_a_split(root):
    errors = texts(checked(root, depth_scale=0), "error")
    assert [error.partition(" holds ")[0] for error in errors[::2]] == [
        str(root / "train" / "depth" / "a.png"), str(root / "val" / "depth" / "c.png"),
    ]  # fmt: skip
    assert errors[1] == "and 1 more maps of whole numbers"


def test_a_scale_that_cannot_be_is_warned_of(root):
    assert texts(checked(root, depth_scale=1), "warning") == [
        f"{split}: the median depth is 2667 m; if that cannot be, write the number that means one metre: "
        "--data.depth-scale"
        for split in ("train", "val", "test")
    ]
    assert checked(root, depth_scale=1, depth_kind="inverse").findings == []


def test_generated_scenes_are_sampled():
    chosen = settings("scenes")
    found = open_depth(chosen)
    few = DataSet(found.classes, {"val": found.split("val")}, "")
    report = check_depth(few)
    assert report.findings == []
    assert report.ranges["val"].maps == 30
    assert report.ranges["val"].measured == 1


# The real disparity of Middlebury's motorcycle, which comes with scikit-image


def test_the_motorcycle_is_read_with_its_gaps(tmp_path):
    left, _, disparity = pictures.stereo_motorcycle()
    source = Path(pictures.__file__).parent
    (tmp_path / "images").mkdir()
    (tmp_path / "disparity").mkdir()
    (tmp_path / "images" / "motorcycle.png").write_bytes((source / "motorcycle_left.png").read_bytes())
    (tmp_path / "disparity" / "motorcycle.npz").write_bytes((source / "motorcycle_disp.npz").read_bytes())
    chosen = settings(tmp_path, depth_kind="inverse")
    found = open_depth(chosen)
    (sample,) = found.split("train")
    assert isinstance(sample, FileSample)
    inverse = sample.target()
    assert inverse.shape == (500, 741) == left.shape[:2]
    gaps = ~np.isfinite(disparity)
    assert 0.07 < gaps.mean() < 0.08
    assert np.array_equal(np.isnan(inverse), gaps)
    assert np.array_equal(inverse[~gaps], disparity[~gaps])
    report = check_depth(found)
    assert report.findings == []
    assert report.ranges["train"].measured == pytest.approx(1 - gaps.mean())
