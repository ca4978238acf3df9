"""Mutations of good files, read by the readers of the library: each gives something valid or a UserError.

`python -m benchmarks.fuzz --minutes 60` goes on for that long, and prints what took more than a second, more than 200
MB above the process, or ended in any other exception. The tests run a few, always the same (tests/test_properties.py).
"""

import io
import json
import struct
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from segmenter import config, recipes
from segmenter.checkpoints.reading import read as read_checkpoint
from segmenter.data.classes import Classes, default_colors
from segmenter.data.depth_files import read_inverse_depth
from segmenter.data.files import image_size, read_image, read_mask
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter
from segmenter.published.loading import load

SECONDS, MEGABYTES = 1.0, 200
LONGEST = 600  # characters of a line of an error
ODD = [
    None, True, "", "x", "\x1b[2J", "a\nb", "é" * 300, "x" * 100_000, 0, -1, 7, 255, 65536, 10**7, 10**9, 2**63, 10**30,
    0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), [], {}, [[]], [0], [0, 0], [1, 2, 3], ["a", "a"], {"a": 1},
    [10**6, 10**6], [[1, 2], [3, 4]], {"name": "linear"}, "2001-99-99", "0b_", "#ff0000", list(range(1000)),
]  # fmt: skip
TOKENS = [
    b"&a ", b"*a", b"!!int ", b"!!python/tuple ", b"!!binary ", b"[", b"]", b"{", b"}", b": ", b"- ", b"\n", b"  ",
    b"<<: *a\n", b"0b_", b"2001-99-99", b".nan", b"1e999", b"99999999999999999999", b"|\n", b"? ", b"\x00", b"\xff",
    b"\x1b[2J", b'"', b"'", b"%YAML 1.3\n", b"---\n", b"#", b",", b"[" * 5000, b"[*a,*a,*a,*a]", b"-1", b"\\u0000",
]  # fmt: skip


@dataclass
class Subject:
    """A kind of file: good ones, and how it is read and what must then hold."""

    suffix: str
    good: list[bytes]
    read: Callable[[Path], object]
    parsed: Callable[[bytes], object] | None = None
    """From a file to plain values whose parts may be replaced."""
    written: Callable[[object, bytes], bytes] | None = None
    """From such values, and the good file, to a file."""


@st.composite
def spoilt(draw: st.DrawFn, subject: Subject) -> bytes:
    """A good file with some of its bytes or values replaced."""
    content = draw(st.sampled_from(subject.good))
    few = [1, 1, 2, 5]
    if subject.parsed and draw(st.booleans()):
        few = [0, 0, 0, 1]  # else hardly any would get as far as to its values
        value = subject.parsed(content)
        for _ in range(draw(st.integers(1, 3))):
            value = _replaced(draw, value)
        content = subject.written(value, content)
    for _ in range(draw(st.sampled_from(few))):
        where = int(draw(st.floats(0, 1)) * len(content))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 16, 200]))
        new = draw(st.one_of(st.just(b""), st.binary(min_size=1, max_size=8), st.sampled_from(TOKENS)))
        again = draw(st.sampled_from([1, 1, 1, 1, 50]))
        content = content[:where] + new * again + content[where + length :]
    return content


def _replaced(draw: st.DrawFn, value: object) -> object:
    """The values with one of them replaced, left out, or put in twice."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 9)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        changed = value.copy()
        match draw(st.integers(0, 9)):
            case 0:
                del changed[key]
            case 1 if isinstance(value, dict):
                changed[draw(st.sampled_from(["x", "\x1b", "name", "k" * 1000]))] = changed[key]
            case 1:
                changed = changed * draw(st.sampled_from([2, 300]))
            case _:
                changed[key] = _replaced(draw, value[key])
        return changed
    return draw(st.sampled_from(ODD))


def subjects(folder: Path) -> dict[str, Subject]:
    """All kinds of files; `folder` is for a small model."""
    model = _model()
    model.save(folder / "model")
    about, weights = ((folder / "model" / name).read_bytes() for name in ("config.json", "model.safetensors"))
    classes = Classes(("ground", "red", "blue"), default_colors(3))

    def as_yaml(value: object, _: bytes) -> bytes:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()

    return {
        "classes.yaml": Subject(".yaml", _classes(), _read_classes, yaml.safe_load, as_yaml),
        "recipe": Subject(".yaml", _recipes(), _read_recipe, yaml.safe_load, as_yaml),
        "config.json": Subject(
            ".json", [about], lambda path: _read_model(folder, "config.json", about, path), json.loads,
            lambda value, _: json.dumps(value).encode(),
        ),
        "mask": Subject(".png", list(_pictures()), lambda path: _read_mask(path, classes)),
        "image": Subject(".png", list(_pictures()), _read_image),
        "depth": Subject(".npy", list(_depth_maps()), _read_depth),
        "pickle": Subject(".pth", list(_pickles(model)), _read_checkpoint),
        "pickle in a zip": Subject(".pth", [_pickled(model)], lambda path: _read_zipped(path, model)),
        "safetensors": Subject(
            ".safetensors", [weights], _read_checkpoint, _safetensors_header, _with_header
        ),
        "model.safetensors": Subject(
            ".safetensors", [weights], lambda path: _read_model(folder, "model.safetensors", weights, path),
            _safetensors_header, _with_header,
        ),
    }  # fmt: skip


# ---- good files


def _model() -> Segmenter:
    recipe = config.Recipe(
        augment=config.Augment(short_side=32, crop=(32, 32)),
        encoder=config.Encoder("vit_tiny_patch16_224", depth=1, width=12, heads=3, patch_size=8),
        decoder=config.MaskTransformer(layers=1),
        inference=config.Inference(window=(32, 32), stride=(24, 24)),
    )
    return Segmenter(recipe, Classes(("ground", "red", "blue"), default_colors(3)))


def _classes() -> list[bytes]:
    return [
        b"classes:\n  - {name: road, color: [1, 2, 3], id: 0}\n  - {name: sky, color: '#ff0000', id: 1}\n"
        b"map: {7: 255}\n",
        b"- a\n- b\n- name: c\n",
        b"masks: colors\nclasses:\n  - {name: a, color: [0, 0, 0]}\n  - {name: b, color: [9, 9, 9]}\n"
        b"map: {'#e0e0c0': 255}",
        b"classes: &a [a, b]\nignore: 7\n",
    ]


def _recipes() -> list[bytes]:
    return [
        recipes.to_yaml(config.Recipe()).encode(),
        b"base: finetune\ndecoder: {name: setr_mla, width: 64}\ntrain: {lr: 0.1}\n",
        b"format: 1\ndecoder: {name: setr_pup, layout: openmmlab}\naugment: {crop: [64, 64]}\n",
    ]


def _pictures() -> Iterator[bytes]:
    labels = np.kron(np.arange(12).reshape(3, 4) % 3, np.ones((8, 8))).astype(np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    color = Image.fromarray(np.stack([labels * 90] * 3, 2))
    for image, kind in (
        (Image.fromarray(labels), "PNG"), (palette, "PNG"), (Image.fromarray(labels.astype(np.uint16)), "PNG"),
        (color, "PNG"), (color.convert("RGBA"), "PNG"), (Image.fromarray(labels), "TIFF"), (color, "TIFF"),
        (color, "JPEG"), (color, "WEBP"), (color, "BMP"), (palette, "GIF"), (Image.fromarray(labels > 0), "PNG"),
    ):  # fmt: skip
        file = io.BytesIO()
        image.save(file, kind)
        yield file.getvalue()


def _depth_maps() -> Iterator[bytes]:
    depth = np.linspace(1, 9, 24, dtype=np.float32).reshape(4, 6)
    for save in (np.save, np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, depth)
        yield file.getvalue()


def _pickles(model: Segmenter) -> Iterator[bytes]:
    for new in (True, False):
        file = io.BytesIO()
        content = {"state_dict": model.state_dict(), "meta": {"a": [1, (2,)]}}
        torch.save(content, file, _use_new_zipfile_serialization=new)
        yield file.getvalue()


def _pickled(model: Segmenter) -> bytes:
    """The pickle within a torch file, which a zip file's checksums would protect."""
    with zipfile.ZipFile(io.BytesIO(next(_pickles(model)))) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _safetensors_header(content: bytes) -> object:
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def _with_header(header: object, content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + struct.unpack("<Q", content[:8])[0] :]


# ---- readers, and what holds of what they give


def _read_classes(path: Path) -> None:
    found = Classes.read(path)
    assert 1 <= len(found) == len(found.colors)
    assert all(name.isprintable() for name in found.names)
    shape = (2, 2, 3) if found.by_color else (2, 2)
    labels, _ = found.lookup(np.zeros(shape, np.uint8))
    assert labels.shape == (2, 2)


def _read_recipe(path: Path) -> None:
    recipes.refuse_impossible(recipes.read(str(path)))


def _read_model(folder: Path, name: str, good: bytes, path: Path) -> None:
    target = folder / "model" / name
    target.write_bytes(path.read_bytes())
    try:
        model = load(folder / "model")
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
        assert all(name.isprintable() for name in model.classes.names)
    finally:
        target.write_bytes(good)


def _read_mask(path: Path, classes: Classes) -> None:
    mask = read_mask(path, classes)
    assert mask.dtype == np.uint8
    assert mask.ndim == 2
    assert set(np.unique(mask)) <= {0, 1, 2, 255}


def _read_image(path: Path) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (*image_size(path), 3)


def _read_depth(path: Path) -> None:
    inverse = read_inverse_depth(path, config.Data(depth_scale=1000))
    assert inverse.dtype == np.float32
    assert inverse.ndim == 2
    assert not np.isinf(inverse).any()


def _read_checkpoint(path: Path) -> None:
    assert all(isinstance(tensor, torch.Tensor) for tensor in read_checkpoint(path).state.values())


def _read_zipped(path: Path, model: Segmenter) -> None:
    """The pickle that a file holds, in the place of the good one in a torch file."""
    pickled, file = path.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(next(_pickles(model)))) as good, zipfile.ZipFile(file, "w") as archive:
        for name in good.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else good.read(name))
    path.write_bytes(file.getvalue())
    _read_checkpoint(path)


# ---- outcome, time, memory


@dataclass
class Outcome:
    """What reading one file came to."""

    refused: bool
    seconds: float
    megabytes: float
    """Above what the process had before; 0 where the system does not say."""
    wrong: str = ""
    """Of another exception, or of a message that is too long."""


def outcome(subject: Subject, content: bytes, path: Path) -> Outcome:
    """Writes a file, reads it, and says how it went."""
    path.write_bytes(content)
    before = _peak_from_here()
    start, refused, wrong = time.perf_counter(), False, ""
    try:
        subject.read(path)
    except UserError as error:
        refused = True
        lines = str(error).splitlines()
        if len(lines) > 25 or any(len(line) > LONGEST or not line.isprintable() for line in lines):
            wrong = f"the message {str(error)[:1000]!r}"
    except BaseException as error:  # what a reader must not raise, of whatever kind
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:200]!r}"
    seconds = time.perf_counter() - start
    return Outcome(refused, seconds, max(0.0, _status("VmHWM") - before), wrong)


def _peak_from_here() -> float:
    """Megabytes that the process has now; its peak is counted from here on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("inf")
    return _status("VmRSS")


def _status(key: str) -> float:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(text.partition(f"{key}:")[2].split()[0]) / 1024


@dataclass
class Tally:
    """What many files of one kind came to."""

    files: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: float = 0.0
    wrong: dict[str, bytes] = field(default_factory=dict)
    """Each kind of failure, with a file."""

    def add(self, content: bytes, found: Outcome) -> None:
        self.files += 1
        self.refused += found.refused
        self.slowest, self.largest = max(self.slowest, found.seconds), max(self.largest, found.megabytes)
        for text in (
            found.wrong,
            "more than a second" if found.seconds > SECONDS else "",
            f"more than {MEGABYTES} MB" if found.megabytes > MEGABYTES else "",
        ):
            if text:
                self.wrong.setdefault(text.partition(":")[0] if ".py" not in text else text[:60], content)


def fuzz(minutes: float = 60.0, only: tuple[str, ...] = (), keep: Path | None = None, examples: int = 200) -> None:
    """Reads mutated files for some time and prints a table.

    Args:
        minutes: How long.
        only: Kinds of files; none: all.
        keep: Folder for one file of each failure.
        examples: Files of a kind in one round.
    """
    end, number = time.monotonic() + 60 * minutes, 0
    with tempfile.TemporaryDirectory() as name:
        chosen = {kind: subject for kind, subject in subjects(Path(name)).items() if not only or kind in only}
        tallies = {kind: Tally() for kind in chosen}
        while time.monotonic() < end:
            for kind, subject in chosen.items():
                if time.monotonic() > end:
                    break
                path = Path(name) / f"file{subject.suffix}"

                _round(subject, path, tallies[kind], number, examples, end)
            number += 1
    print(f"{'file':18}  {'read':>8}  {'refused':>8}  {'slowest s':>9}  {'largest MB':>10}")
    for kind, tally in tallies.items():
        print(f"{kind:18}  {tally.files:8}  {tally.refused:8}  {tally.slowest:9.2f}  {tally.largest:10.0f}")
        for i, (text, content) in enumerate(tally.wrong.items()):
            print(f"  {text}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{kind} {i}").write_bytes(content)


def _round(subject: Subject, path: Path, tally: Tally, number: int, examples: int, end: float) -> None:
    """Reads mutated files of one kind, other ones for every `number`, until `end` at most."""

    @seed(number)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(spoilt(subject))
    def one(content: bytes) -> None:
        if time.monotonic() < end:
            tally.add(content, outcome(subject, content, path))

    one()


if __name__ == "__main__":
    tyro.cli(fuzz)
