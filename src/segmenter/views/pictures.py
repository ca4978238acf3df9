"""Files, folders and globs of photos to label maps or depth, and overlays, in a folder; their names are kept."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segmenter import atomic
from segmenter.config import Inference
from segmenter.data.files import SUFFIXES, read_image
from segmenter.errors import UserError
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.views.overlay import overlay
from segmenter.views.server_formats import Format, refuse_other_classes, server_name
from segmenter.views.tasks import TASKS, Written


def find_images(inputs: Iterable[str]) -> list[tuple[Path, Path]]:
    """Files, folders (searched to the bottom) and globs to (file, name to keep, without suffix).

    Raises:
        UserError: there is no input, one holds no image, or two files would have one name.
    """
    inputs = list(inputs)
    if not inputs:
        raise UserError("no images were named; give files, folders or globs")
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if _is_image(p))
            new = {file: file.relative_to(path).with_suffix("") for file in files}
        elif path.is_file():
            new = {path: Path(path.stem)}
        else:
            files = sorted(Path(p) for p in glob.glob(text, recursive=True))
            new = {file: Path(file.stem) for file in files if _is_image(file)}
        if not new:
            known = ", ".join(sorted(SUFFIXES))
            raise UserError(f"there is no image at {text}; give files, folders or globs of {known}")
        found |= new
    names: dict[Path, Path] = {}
    for file, name in found.items():
        if name in names:
            raise UserError(f"{names[name]} and {file} would both be written as {name}; predict them apart")
        names[name] = file
    return list(found.items())


def predict_files(
    model: Segmenter,
    inputs: Iterable[str],
    out: Path,
    multiscale: bool = False,
    native: bool = False,
    overlays: bool = True,
    format: Format = "labels",
    inference: Inference | None = None,
) -> list[Written]:
    """Writes labels/NAME.png and overlays/NAME.jpg for every photo; returns the files of each.

    A model of depth writes depth/NAME.png and depth/NAME.npy instead of labels; the PNG's scale is returned too. With
    another `format` than `labels`, the label maps have that server's values and names, all in one folder.

    Raises:
        UserError: no photos, one that cannot be read (those before it are written), no room to write, or classes or
            names of photos that the server does not know.
    """
    if format != "labels":
        refuse_other_classes(model.classes, format)
    written = []
    found = find_images(inputs)
    task = TASKS[model.recipe.task]
    maps = _maps(found, out / task.folder, format)
    photos = {file.resolve() for file, _ in found}
    for file, name in found:
        if {maps[file].resolve(), (out / "overlays" / f"{name}.jpg").resolve()} & photos:
            raise UserError(f"the results would overwrite photos in {out}; choose another --out")
    photos = _read_ahead([file for file, _ in found])
    for (file, name), photo in zip(Progress(found, desc="predict", unit="image"), photos, strict=True):
        result = predict(model, photo, multiscale, native, inference)
        entry = {"image": str(file)} | task.write(result, maps[file], format)
        if overlays:
            picture = out / "overlays" / f"{name}.jpg"
            drawn = overlay(photo, result)
            atomic.write(picture, lambda beside, drawn=drawn: drawn.save(beside, format="JPEG", quality=90))
            entry["overlay"] = str(picture)
        written.append(entry)
    return written


def _read_ahead(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The photos of files, each read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read_image, files[0])
        for following in files[1:]:
            photo, waiting = waiting.result(), reader.submit(read_image, following)
            yield photo
        yield waiting.result()


def told(written: list[Written], out: Path, overlays: bool) -> str:
    """One line on what `predict_files` wrote."""
    task = next(task for name, task in TASKS.items() if name in written[0])
    line = f"{len(written)} images: {out / task.folder}{task.told(written)}"
    return line + overlays * f", {out / 'overlays'}"


def _maps(found: Iterable[tuple[Path, Path]], folder: Path, format: Format) -> dict[Path, Path]:
    """The file of each photo's label map or depth.

    Raises:
        UserError: two of them would be one file, or a server could not tell to which photo one belongs.
    """
    maps: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for file, name in found:
        path = folder / f"{name if format == 'labels' else server_name(name, format)}.png"
        if path in taken:
            raise UserError(f"{taken[path]} and {file} would both be written as {path.name}; predict them apart")
        taken[path], maps[file] = file, path
    return maps


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
