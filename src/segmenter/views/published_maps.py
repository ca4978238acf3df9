"""The attention maps of the published script: its crop, its files, its colours.

Source: segm/scripts/show_attn_map.py of rstrudel/segmenter at 20d1bfa. The photo's short side is brought to the
training's, the top left square of whole patches is looked at, and each map is drawn by itself, from its smallest value
to its largest. Its check of the patch, which let one too many pass, is not repeated.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imsave
from PIL import Image
from torch import Tensor

from segmenter.data.files import read_image
from segmenter.errors import UserError
from segmenter.inspection.attention import Look, look_at, refuse_without_embeddings
from segmenter.inspection.captured import Part, blocks_of, refuse_block
from segmenter.inspection.places import Point, class_id, refuse_outside_photo
from segmenter.model.segmenter import Segmenter
from segmenter.views.pictures import find_images
from segmenter.views.results import Results

Patch = tuple[int, int]  # x, y, as in the names of the script's folders
SHORT: dict[Part, str] = {"encoder": "enc", "decoder": "dec"}
RED = (255, 0, 0)
COLORS = "viridis"
ROUNDING = 0.005  # published models carry the normalisation of their pipeline, rounded; the script takes the exact one


def published_maps(
    model: Segmenter,
    inputs: Iterable[str],
    out: Path,
    at: Sequence[Point] = (),
    class_names: Sequence[str] = (),
    layers: Sequence[int] = (),
    overwrite: bool = False,
) -> list[dict[str, object]]:
    """Writes what the script writes for patches, the class token and, with a mask transformer, class embeddings.

    Args:
        model: in any mode.
        inputs: one photo.
        out: folder for enc_layerL and dec_layerL.
        at: points (y, x) of the photo; none: the first patch.
        class_names: whose embeddings are looked at; none: those of all classes.
        layers: counted from 0, of the encoder, and of the decoder where it has them; none: 0.
        overwrite: replace what an earlier `explain` wrote there.

    Raises:
        UserError: not one photo, a point outside the square, no such class or layer, or `out` holds other things.
    """
    files = find_images(inputs)
    if len(files) != 1:
        raise UserError(f"the published script looks at one photo, and {len(files)} were named; name one")
    if class_names:
        refuse_without_embeddings(model)
    labels = [class_id(model.classes, name) for name in class_names] or list(range(len(model.classes)))
    layers = list(layers) or [0]
    for layer in layers:
        refuse_block(model, "encoder", layer)
    photo = read_image(files[0][0])
    square = square_of(model, photo)  # s s 3
    patches = [patch_in_square(model, point, photo.shape[:2]) for point in at] or [(0, 0)]
    maps = dict(_maps(model, square, patches, labels, layers))
    pictures = {
        f"{SHORT[part]}_layer{layer}/patch_{x}_{y}/input_img.png": partial(_input, model, square, (x, y))
        for part in SHORT
        for layer in layers
        for x, y in patches
        if layer < len(blocks_of(model, part))
    }
    paths = [out / name for name in (*maps, *pictures)]
    results = Results(out, "explain")
    results.claim(paths, overwrite)
    for name, map_ in maps.items():
        large = map_.repeat(model.encoder.patch_size, 0).repeat(model.encoder.patch_size, 1)
        results.write(out / name, partial(_save, array=large, cmap=COLORS))
    for name, draw in pictures.items():
        results.write(out / name, partial(_save, array=draw()))
    return [{"image": str(files[0][0]), "files": [str(path) for path in paths]}]


def square_of(model: Segmenter, photo: np.ndarray) -> np.ndarray:
    """The top left square of whole patches (s s 3 uint8) of a photo (H W 3 uint8) at the training's scale."""
    side, patch = model.recipe.augment.short_side, model.encoder.patch_size
    height, width = (int(length * side / min(photo.shape[:2])) for length in photo.shape[:2])
    # Pillow's bilinear, which averages where it makes smaller, as torchvision resizes pictures.
    resized = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))
    whole = side - side % patch
    if not whole:
        raise UserError(
            f"the training's short side is {side} pixels, less than a patch of {patch}; leave out --published"
        )
    return resized[:whole, :whole]


def patch_in_square(model: Segmenter, at: Point, size: tuple[int, int]) -> Patch:
    """The patch of the square that a point of a photo (H, W) lies in.

    Raises:
        UserError: the point lies outside the photo, or outside the square.
    """
    refuse_outside_photo(at, size)
    side, patch = model.recipe.augment.short_side, model.encoder.patch_size
    count, scale = side // patch, side / min(size)
    y, x = (int((where + 0.5) * scale) // patch for where in at)
    if max(x, y) >= count:
        seen = int(count * patch / scale)
        raise UserError(
            f"the point x {at[1]}, y {at[0]} lies outside the square that the published script looks at; give x and y "
            f"from 0 to {seen - 1}, or leave out --published"
        )
    return x, y


def _maps(
    model: Segmenter, square: np.ndarray, patches: Sequence[Patch], labels: Sequence[int], layers: Sequence[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """File names and maps (h w) of all heads."""
    prefix, side = model.encoder.prefix, square.shape[0] // model.encoder.patch_size
    places = [y * side + x for x, y in patches]
    tokens = {
        "encoder": [*([0] if model.encoder.has_class_token else []), *(prefix + place for place in places)],
        "decoder": [*places, *(side * side + label for label in labels)],
    }
    look: Look = look_at(model, _normalized(model, square), tokens)
    for layer in layers:
        for part, short in SHORT.items():
            if (part, layer) not in look.rows:
                continue
            first = prefix if part == "encoder" else 0
            rows = look.rows[part, layer][..., first : first + side * side].unflatten(-1, (side, side)).cpu().numpy()
            names = [f"patch_{x}_{y}/{short}_layer{layer}_attn-head{{}}" for x, y in patches]
            if part == "encoder" and model.encoder.has_class_token:
                names = [f"cls/{short}_layer{layer}_attn-head{{}}_cls", *names]
            if part == "decoder":
                names += [f"cls_{label}/{short}_layer{layer}_attn-head{{}}_{label}" for label in labels]
            for head, maps in enumerate(rows):
                for name, map_ in zip(names, maps, strict=True):
                    yield f"{short}_layer{layer}/{name.format(head)}.png", map_


def _normalized(model: Segmenter, square: np.ndarray) -> Tensor:
    """The square as the network's input (1 3 s s), with the normalisation that the encoder was made for."""
    device = next(model.parameters()).device
    exact, own = (torch.tensor(pair) for pair in ((model.encoder.mean, model.encoder.std), (model.mean, model.std)))
    mean, std = (exact if (exact - own).abs().max() < ROUNDING else own).to(device)[..., None, None]
    pixels = torch.from_numpy(np.ascontiguousarray(square)).to(device).permute(2, 0, 1)
    return ((pixels / 255 - mean) / std)[None]


def _input(model: Segmenter, square: np.ndarray, patch: Patch) -> np.ndarray:
    """The network's input as a picture (s s 3 uint8) that uses the whole range, the patch painted red."""
    pixels = _normalized(model, square)[0].permute(1, 2, 0).cpu().numpy()
    pixels = (pixels - pixels.min()) / max(float(pixels.max() - pixels.min()), 1e-5)
    picture = (pixels * 255 + 0.5).clip(0, 255).astype(np.uint8)
    (left, top), side = (place * model.encoder.patch_size for place in patch), model.encoder.patch_size
    picture[top : top + side, left : left + side] = RED
    return picture


def _save(path: Path, array: np.ndarray, cmap: str | None = None) -> None:
    imsave(path, array, format="png", cmap=cmap)
