"""variant.yml, which lies beside a checkpoint of the original Segmenter: read and written.

It is YAML of plain values with one tag of Python's, a tuple; nothing in it is executed. What it does not say, or all
where it is missing, comes from the sizes of the tensors and from what the published models have, and is reported.
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

from segmenter import config
from segmenter.checkpoints import encoders
from segmenter.checkpoints.encoders import Shape
from segmenter.data.classes import Classes, default_colors
from segmenter.data.sets.named_classes import named_classes
from segmenter.documents import BadDocument, parsed_json, read_yaml
from segmenter.errors import UserError, shown
from segmenter.model.segmenter import Segmenter

NAME = "variant.yml"
OURS = "vit_segmenter"  # our own section, which the original code passes over
NORM_EPS = 1e-5
HEAD_WIDTH = 64
# Red, green and blue on the scale 0 to 1; the published code rounds them to two decimals on the scale 0 to 255.
NORMALIZATION = {
    "vit": ((127.5 / 255,) * 3, (127.5 / 255,) * 3),
    "deit": ((123.68 / 255, 116.28 / 255, 103.53 / 255), (58.4 / 255, 57.12 / 255, 57.38 / 255)),
}
MAX_RATIO = {"ade20k": 4.0, "pascal_context": 8.0, "cityscapes": 2.0}
DATA_SETS = {
    "ade20k": ("ade20k",),
    "pascal_context": ("pascal_context", "pascal_context_59"),
    "cityscapes": ("cityscapes",),
}
THEIR_NAMES = {"vit_base_patch8_384": "vit_base_patch8_224"}  # where timm has none of that name


class Variant:
    """The settings of a variant.yml, empty if there is no such file, and what had to be assumed instead."""

    def __init__(self, path: Path, about: Mapping[str, object]):
        """Reads `path` if it is there; `net_kwargs` as JSON text in `about`, of a .safetensors, goes before it."""
        self.path = path
        self.assumed: list[str] = []
        self._content: dict = self._read() if path.is_file() else {}
        if isinstance(text := about.get("net_kwargs"), str):
            with contextlib.suppress(BadDocument):
                self._content |= {"net_kwargs": parsed_json(text)}

    def _read(self) -> dict:
        try:
            content = read_yaml(self.path, tuples=True)
        except (BadDocument, OSError) as error:
            text = f"{self.path} cannot be read ({error})"
            raise UserError(f"{text}; restore it, or move it away to do without it") from error
        if not isinstance(content, dict):
            raise UserError(f"{self.path} holds no settings; restore it, or move it away to do without it")
        return content

    def section(self, place: str) -> dict:
        """The mapping at a place, `a.b`; empty where there is none."""
        found: object = self._content
        for part in filter(None, place.split(".")):
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    def get(self, place: str, key: str, kind: type, default=None):
        """A value, or the default where it is missing or null."""
        value = self.section(place).get(key)
        if value is None:
            return default
        if kind is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if kind is float or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            name = f"{place}.{key}" if place else key
            text = f"{self.path}: {name} is {shown(value)}"
            raise UserError(f"{text}; restore the file, or move it away to do without it")
        return value

    def heads(self, width: int) -> int:
        """Attention heads of the encoder."""
        heads = self.get("net_kwargs", "n_heads", int)
        if heads is None:
            heads = max(1, width // HEAD_WIDTH)
            self.assumed.append(f"{heads} attention heads in the encoder, one for every {HEAD_WIDTH} features")
        if heads < 1 or width % heads:
            raise UserError(f"{self.path}: n_heads is {heads}, which does not divide the encoder's {width} features")
        return heads

    def image_size(self, weights: Path, positions: int, patch: int) -> tuple[int, int]:
        """Height and width of the training crop, on whose grid the positions lie."""
        size = self.get("net_kwargs", "image_size", tuple | list | int)
        if size is None:
            side = math.isqrt(max(positions, 0))
            if side < 1 or side**2 != positions:
                raise UserError(
                    f"{weights}: encoder.pos_embed has {positions} positions, which form no square; put the {NAME} "
                    f"that belongs to the file beside it, in {weights.parent}"
                )
            self.assumed.append(f"a square crop of {side * patch} pixels, for {positions} positions")
            return side * patch, side * patch
        size = (size, size) if isinstance(size, int) else tuple(size)
        if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            raise UserError(f"{self.path}: image_size is {size}; it must be height and width in pixels")
        if math.prod(side // patch for side in size) != positions:
            raise UserError(
                f"{self.path}: image_size is {size} in patches of {patch} pixels, but encoder.pos_embed of {weights} "
                f"has {positions} positions; both files must come from one training"
            )
        return size

    def normalization(self, distilled: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of red, green and blue on the scale 0 to 1."""
        name = self.get("net_kwargs", "normalization", str)
        if name is None:
            name = "deit" if distilled else "vit"
            self.assumed.append(f"the normalisation of {name}")
        if name not in NORMALIZATION:
            raise UserError(f"{self.path}: normalization is {shown(name)}; known are {' and '.join(NORMALIZATION)}")
        return NORMALIZATION[name]

    def classes(self, count: int) -> Classes:
        """The classes of the data set that is named, if it has that many, else nameless ones."""
        data = self.get("dataset_kwargs", "dataset", str)
        for name in DATA_SETS.get(data, ()):
            if len(found := named_classes(name)) == count:
                return found
        self.assumed.append(f"{count} classes without names")
        return Classes(tuple(f"class {index}" for index in range(count)), default_colors(count))

    def recipe(self, shape: Shape, decoder: config.Decoder, size: tuple[int, int]) -> config.Recipe:
        """All settings of the model, and of its training as far as they are known."""
        name = self.get("net_kwargs", "backbone", str, "")
        name = THEIR_NAMES.get(name, name)
        if name not in encoders.SHAPES or encoders.SHAPES[name].distilled != shape.distilled:
            name = encoders.timm_name(shape)
        window = self.get("inference_kwargs", "window_size", int)
        windows = size if window is None else (max(window, 1),) * 2
        stride = self.get("inference_kwargs", "window_stride", int)
        strides = tuple(max(side - 32, 1) for side in windows) if stride is None else (max(stride, 1),) * 2
        if window is None or stride is None:
            self.assumed.append(f"windows of {windows} pixels every {strides}, as the published evaluation has them")
        data = self.get("dataset_kwargs", "dataset", str)
        if data not in MAX_RATIO:
            self.assumed.append("images of at most 4 times their short side, as for ADE20K")
        short_side = self.get("dataset_kwargs", "image_size", int)
        if short_side is None or short_side < 1:
            short_side = min(size)
            self.assumed.append(f"images with a short side of {short_side} pixels, the crop's")
        return config.Recipe(
            augment=config.Augment(short_side=short_side, max_ratio=MAX_RATIO.get(data, 4.0), crop=size),
            encoder=config.Encoder(
                name=name,
                norm_eps=NORM_EPS,
                drop_path=self.get("net_kwargs", "drop_path_rate", float, 0.1),
                dropout=self.get("net_kwargs", "dropout", float, 0.0),
                **encoders.changes(name, shape),
            ),
            decoder=decoder,
            train=self._train(),
            inference=config.Inference(window=windows, stride=strides, enlarge=True),
        )

    def _train(self) -> config.Train:
        """The published training: SGD with Nesterov momentum, and what the file says of it."""
        defaults, where = config.Train(), "optimizer_kwargs"
        return config.Train(
            optimizer="sgd",
            lr=self.get(where, "lr", float, 1e-3),
            min_lr=self.get(where, "min_lr", float, defaults.min_lr),
            power=self.get(where, "poly_power", float, defaults.power),
            momentum=self.get(where, "momentum", float, defaults.momentum),
            weight_decay=self.get(where, "weight_decay", float, 0.0),
            steps=self.get(where, "iter_max", int, defaults.steps),
            warmup=float(int(self.get(where, "iter_warmup", float, 0.0))),
            batch=self.get("", "world_batch_size", int, defaults.batch),
        )


def normalization_name(network: Segmenter) -> str | None:
    """The original's name of a model's normalisation, up to its rounding; None where it has none."""
    given = torch.tensor([network.mean, network.std])
    close = (name for name, known in NORMALIZATION.items() if (given - torch.tensor(known)).abs().max() < 1e-3)
    return next(close, None)


def data_set(classes: Classes) -> str | None:
    """The original's name of the data set whose classes these are; None where it has none of them."""
    known = ((theirs, name) for theirs, names in DATA_SETS.items() for name in names)
    return next((theirs for theirs, name in known if named_classes(name).names == classes.names), None)


def text(network: Segmenter, shape: Shape) -> str:
    """A variant.yml for a model: what the original code reads, and a section of ours with everything."""
    recipe, count = network.recipe, len(network.classes)
    train, settings, crop = recipe.train, recipe.decoder, tuple(recipe.augment.crop)
    name = recipe.encoder.name if recipe.encoder.name in encoders.SHAPES else encoders.timm_name(shape)
    name = next((theirs for theirs, ours in THEIR_NAMES.items() if ours == name), name)
    normalization = normalization_name(network) or ("deit" if shape.distilled else "vit")
    decoder = {"name": settings.name, "n_cls": count}
    data = data_set(network.classes)  # which nothing there reads from a checkpoint, so that it may be left out
    if settings.name != "linear":
        decoder |= {"n_layers": settings.layers, "dropout": settings.dropout, "drop_path_rate": settings.drop_path}
    content = {
        "version": "normal",
        "world_batch_size": train.batch,
        "net_kwargs": {
            "backbone": name, "image_size": tuple(-(-side // shape.patch) * shape.patch for side in crop),
            "patch_size": shape.patch, "d_model": shape.width, "n_heads": shape.heads, "n_layers": shape.depth,
            "normalization": normalization, "distilled": shape.distilled, "dropout": recipe.encoder.dropout,
            "drop_path_rate": recipe.encoder.drop_path, "n_cls": count, "decoder": decoder,
        },
        "dataset_kwargs": {
            **({"dataset": data} if data else {}), "split": "train",
            "image_size": recipe.augment.short_side, "crop_size": min(crop), "batch_size": train.batch,
            "normalization": normalization, "num_workers": 10,
        },
        "inference_kwargs": {
            "im_size": recipe.augment.short_side, "window_size": min(recipe.inference.window),
            "window_stride": min(*recipe.inference.stride, *recipe.inference.window),
        },
        "optimizer_kwargs": {
            "opt": "sgd", "lr": train.lr, "min_lr": train.min_lr, "poly_power": train.power, "poly_step_size": 1,
            "momentum": train.momentum, "weight_decay": train.weight_decay, "sched": "polynomial",
            "iter_max": train.steps, "iter_warmup": float(train.warmup_steps), "clip_grad": None, "epochs": 1,
        },
        OURS: network.describe().to_dict(),
    }  # fmt: skip
    return yaml.dump(content)
