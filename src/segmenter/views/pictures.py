"""Files, folders and globs of photos to label maps and overlays in a folder, their names kept."""

import glob
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from segmenter import atomic
from segmenter.data.files import SUFFIXES, read_image
from segmenter.errors import UserError
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.views.overlay import label_picture, overlay


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
) -> list[dict[str, str]]:
    """Writes labels/NAME.png and overlays/NAME.jpg for every photo; returns the files of each.

    Raises:
        UserError: no photos, one that cannot be read (those before it are written), or no room to write.
    """
    written = []
    found = find_images(inputs)
    photos = {file.resolve() for file, _ in found}
    for _, name in found:
        if {(out / "labels" / f"{name}.png").resolve(), (out / "overlays" / f"{name}.jpg").resolve()} & photos:
            raise UserError(f"the results would overwrite photos in {out}; choose another --out")
    for file, name in tqdm(found, desc="predict", unit="image"):
        photo = read_image(file)
        result = predict(model, photo, multiscale, native)
        labels = out / "labels" / f"{name}.png"
        _save(label_picture(result.labels, model.classes), labels, format="PNG")
        entry = {"image": str(file), "labels": str(labels)}
        if overlays:
            picture = out / "overlays" / f"{name}.jpg"
            _save(overlay(photo, result), picture, format="JPEG", quality=90)
            entry["overlay"] = str(picture)
        written.append(entry)
    return written


def _save(picture: Image.Image, path: Path, **options) -> None:
    atomic.write(path, lambda beside: picture.save(beside, **options))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
