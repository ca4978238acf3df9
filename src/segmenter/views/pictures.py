"""Files, folders and globs of photos to label maps or depth, and overlays, in a folder; their names are kept."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segmenter.config import Inference
from segmenter.data.files import SUFFIXES, read_image
from segmenter.errors import UserError, cleaned
from segmenter.inference.depth import DepthResult
from segmenter.inference.labels import Result
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.progress import Progress
from segmenter.views.confidence import confidence_picture, write_confidence
from segmenter.views.overlay import drawn_size, overlay
from segmenter.views.results import Results, Write
from segmenter.views.server_formats import Format, refuse_other_classes, server_name
from segmenter.views.tasks import TASKS, Task, Written

LARGEST_OVERLAY = 2**24  # pixels; an overlay is to be looked at, and takes ten bytes a pixel while it is drawn


def find_images(inputs: Iterable[str]) -> list[tuple[Path, Path]]:
    """Files, folders (searched to the bottom) and globs to (file, name to keep, without suffix).

    Links to folders are not followed below a folder or a `**`, as they may lead round; pipes and devices are no images.

    Raises:
        UserError: there is no input, one holds no image or cannot be looked at, or two files would have one name.
    """
    inputs = list(inputs)
    if not inputs:
        raise UserError("no images were named; give files, folders or globs")
    found: dict[Path, Path] = {}
    for text in inputs:
        try:
            new = _images_of(text)
        except (OSError, ValueError, RecursionError) as error:  # too long, not to be read; `**x`; nested without end
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{text} cannot be searched ({reason}); give files, folders or globs") from None
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


def _images_of(text: str) -> dict[Path, Path]:
    """The images that an argument means, with their names."""
    path = Path(text)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if _is_image(p))
        return {file: file.relative_to(path).with_suffix("") for file in files}
    if path.is_file():
        return {path: Path(path.stem)}
    if not any(letter in text for letter in "*?["):
        return {}
    hidden = {part for part in path.parts if part.startswith(".")}
    files = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return {
        file: Path(file.stem)
        for file in sorted(files)
        if _is_image(file) and all(part in hidden for part in file.parts if part.startswith("."))
    }


def predict_files(
    model: Segmenter,
    inputs: Iterable[str],
    out: Path,
    multiscale: bool = False,
    native: bool = False,
    overlays: bool = True,
    format: Format = "labels",
    inference: Inference | None = None,
    overwrite: bool = False,
    confidence: bool = False,
) -> list[Written]:
    """Writes labels/NAME.png and overlays/NAME.jpg for every photo; returns the files of each.

    With `confidence` also confidence/NAME.png, whose values / 65535 it is, and a picture of it, confidence/NAME.jpg.

    A model of depth writes depth/NAME.png and depth/NAME.npy instead of labels; the PNG's scale is returned too. With
    another `format` than `labels`, the label maps have that server's values and names, all in one folder. The overlay
    of a photo of more than LARGEST_OVERLAY pixels is smaller; by how much is returned as `overlay_scale`. So is the
    picture of confidence.

    Raises:
        UserError: no photos, one that cannot be read (those before it are written), no room to write, classes or
            names of photos that the server does not know, confidence of a model of depth; or `out` holds data, files
            of others in the place of results, or earlier results unless they are to be overwritten.
    """
    if format != "labels":
        refuse_other_classes(model.classes, format)
    task = TASKS[model.recipe.task]
    if confidence and not task.confident:
        raise UserError(
            f"confidence is the probability of a class, and a model of {model.recipe.task} gives none; leave it out"
        )
    found = find_images(inputs)
    maps = _maps(found, out / task.folder, format)
    pictures = {file: _pictures(out, name, overlays, confidence) for file, name in found}
    files = [path for file, _ in found for path in (*_files(task, maps[file]), *pictures[file].values())]
    if {path.resolve() for path in files} & {file.resolve() for file, _ in found}:
        raise UserError(f"the results would overwrite photos in {out}; choose another --out")
    results = Results(out)
    results.claim(files, overwrite)
    photos, written = _read_ahead([file for file, _ in found]), []
    for (file, _), photo in zip(Progress(found, desc="predict", unit="image"), photos, strict=True):
        result = predict(model, photo, multiscale, native, inference)
        entry = {"image": str(file)} | task.write(result, maps[file], format, results.write)
        entry |= _drawn(photo, result, pictures[file], results.write)
        written.append(entry)
    return written


def _drawn(photo: np.ndarray, result: Result | DepthResult, pictures: dict[str, Path], write: Write) -> Written:
    """Writes the pictures of a result; returns them, and the scale of those that are smaller than the photo."""
    drawn = {}
    if "overlay" in pictures:
        drawn["overlay"] = overlay(photo, result, largest=LARGEST_OVERLAY)
    if "confidence" in pictures:
        confidence = result.confidence()
        write_confidence(confidence, pictures["confidence"], write)
        drawn["confidence_picture"] = confidence_picture(photo, confidence, LARGEST_OVERLAY)
    for kind, picture in drawn.items():
        write(pictures[kind], lambda beside, picture=picture: picture.save(beside, format="JPEG", quality=90))
    about = {kind: str(path) for kind, path in pictures.items()}
    if (size := drawn_size(photo.shape[:2], LARGEST_OVERLAY)) != photo.shape[:2]:
        about |= {f"{kind}_scale": size[0] / photo.shape[0] for kind in drawn}
    return about


def _read_ahead(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """The photos of files, each read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read_image, files[0])
        for following in files[1:]:
            photo, waiting = waiting.result(), reader.submit(read_image, following)
            yield photo
        yield waiting.result()


def _files(task: Task, path: Path) -> list[Path]:
    """The file of a photo's label map or depth, and what belongs to it."""
    return [path, *(path.with_name(f"{path.stem}{suffix}") for suffix in task.beside)]


def _pictures(out: Path, name: Path, overlays: bool, confidence: bool) -> dict[str, Path]:
    """What else is written of a photo, by what it is."""
    files = {"overlay": out / "overlays" / f"{name}.jpg"} if overlays else {}
    if confidence:
        files["confidence"] = out / "confidence" / f"{name}.png"
        files["confidence_picture"] = out / "confidence" / f"{name}.jpg"
    return files


def made_smaller(written: list[Written]) -> str:
    """A note on overlays, or pictures of confidence, that are smaller than their photos; empty if there are none."""
    for kind, words in (("overlay", "overlay"), ("confidence_picture", "picture of the confidence")):
        if images := [str(entry["image"]) for entry in written if f"{kind}_scale" in entry]:
            of_what = cleaned(images[0]) if len(images) == 1 else f"{len(images)} photos"
            most = f"it has at most {LARGEST_OVERLAY / 1e6:.3g} megapixels"
            return f"the {words} of {of_what} is smaller than the photo: {most}"
    return ""


def summary(written: list[Written], out: Path) -> str:
    """One line on what `predict_files` wrote."""
    task = next(task for name, task in TASKS.items() if name in written[0])
    line = f"{len(written)} images: {cleaned(str(out / task.folder))}{task.describe(written)}"
    for kind, folder in (("overlay", "overlays"), ("confidence", "confidence")):
        line += f", {cleaned(str(out / folder))}" if kind in written[0] else ""
    return line


def _maps(found: Iterable[tuple[Path, Path]], folder: Path, format: Format) -> dict[Path, Path]:
    """The file of each photo's label map or depth.

    Raises:
        UserError: two of them would be one file, or a name does not show a server to which photo it belongs.
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
