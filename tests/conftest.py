"""What the end-to-end tests share: pictures of coloured discs, a tiny recipe, the command run in-process."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from segmenter import cli, recipes
from segmenter.config import Augment, Data, Encoder, Inference, Recipe, Train, decoder
from segmenter.training.loop import train

COLORS = ((0, 0, 0), (220, 40, 40), (40, 40, 220))
NAMES = ("ground", "red", "blue")
ENTRIES = [f"  - {{name: {name}, color: {list(color)}}}" for name, color in zip(NAMES, COLORS, strict=True)]
CLASSES = "\n".join(["classes:", *ENTRIES])


class Completed(NamedTuple):
    """What a command answered."""

    status: int
    out: str
    err: str


@contextmanager
def single_thread() -> Iterator[None]:
    """Small tensors are many times slower on two threads of a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The test runs on one thread."""
    with single_thread():
        yield


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


class NoFloat64(TorchDispatchMode):
    """Refuses what devices without float64 refuse, such as MPS."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, func
        return result


@pytest.fixture
def no_float64() -> type[NoFloat64]:
    """Within `with no_float64():` no operation of torch may give float64."""
    return NoFloat64


@pytest.fixture
def largest_tensor() -> type[LargestTensor]:
    """`with largest_tensor() as largest:` measures `largest.elements`."""
    return LargestTensor


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For commands in a process of their own: one thread, as above, and messages on long lines."""
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def draw_discs(generator: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H W 3 uint8) with a red and a blue disc on grey noise, and its mask (H W uint8)."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    image = generator.integers(90, 130, (*size, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    for label in (1, 2):
        row, column = generator.integers(0, size[0]), generator.integers(0, size[1])
        inside = (rows - row) ** 2 + (columns - column) ** 2 < (generator.uniform(0.25, 0.4) * min(size)) ** 2
        image[inside], mask[inside] = COLORS[label], label
    return image, mask


def write_discs(root: Path, size: tuple[int, int] = (64, 64), **counts: int) -> Path:
    """Makes a data folder {train,val,test}/{images,masks} of discs, always the same ones."""
    generator = np.random.default_rng(0)
    for split, count in ({"train": 6, "val": 2, "test": 2} | counts).items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i in range(count):
            image, mask = draw_discs(generator, size)
            Image.fromarray(image).save(root / split / "images" / f"{split}{i}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{split}{i}.png")
    (root / "classes.yaml").write_text(CLASSES)
    return root


def tiny_decoder(name: str = "mask_transformer", **settings):
    """A decoder's settings; the mask transformer has one block unless told otherwise."""
    return decoder(name, **({"layers": 1} if name == "mask_transformer" else {}) | settings)


def make_recipe(root: Path | str, decoder: dict | None = None, encoder: dict | None = None, **train) -> Recipe:
    """A recipe that takes a second; single settings can be given."""
    tiny = {"name": "vit_tiny_patch16_224", "patch_size": 8, "depth": 2, "width": 48, "heads": 3}
    tiny["drop_path"] = 0.0
    quick = {"steps": 4, "batch": 2, "lr": 1e-3, "validate_every": 100, "workers": 0, "precision": "fp32"}
    return Recipe(
        data=Data(root=str(root)),
        augment=Augment(short_side=64, crop=(64, 64), scale=(1.0, 1.0), max_class_share=1.0, distortion=False),
        encoder=Encoder(**(tiny | (encoder or {}))),
        decoder=tiny_decoder(**(decoder or {})),
        train=Train(**(quick | train)),
        inference=Inference(window=(64, 64), stride=(48, 48)),
    )


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`draw_discs`."""
    return draw_discs


@pytest.fixture
def disc_folder(tmp_path) -> Callable[..., Path]:
    """Makes a data folder that the test may spoil."""
    return lambda name="discs", **options: write_discs(tmp_path / name, **options)


@pytest.fixture(scope="session")
def write_data() -> Callable[..., Path]:
    """`write_discs`."""
    return write_discs


@pytest.fixture(scope="session")
def on_one_thread() -> Callable[[], AbstractContextManager]:
    """`single_thread`, for fixtures that tests share."""
    return single_thread


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """`make_recipe`."""
    return make_recipe


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    """A data folder that all tests share and none changes."""
    return write_discs(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="session")
def disc_run(tmp_path_factory, discs) -> Path:
    """A run folder, trained for a moment, that all tests share and none changes."""
    out = tmp_path_factory.mktemp("runs") / "discs"
    with single_thread():
        train(make_recipe(discs, decoder={"name": "linear"}, steps=20, lr=1e-2, validate_every=10), out)
    return out


@pytest.fixture
def recipe_file(tmp_path) -> Callable[[Recipe], Path]:
    """Writes a recipe as YAML."""

    def write(recipe: Recipe) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipes.to_yaml(recipe))
        return path

    return write


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path_factory, monkeypatch) -> None:
    """Hashes of downloads are remembered in a folder of the test, not at home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state" / secrets.token_hex(8)))


@pytest.fixture
def command(capfd, one_thread) -> Callable[..., Completed]:
    """Runs `segmenter ARGUMENTS` in this process."""

    def run(*arguments: object) -> Completed:
        capfd.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return Completed(status, *capfd.readouterr())

    return run
