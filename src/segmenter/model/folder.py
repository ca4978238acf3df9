"""A model's folder: model.safetensors (weights) and config.json, which describes the network, its classes and its use.

The description outlives the code: it has a format, and each earlier format is still read (tests/goldens/models). The
recipe of the training beside it is information: what of it a later release does not know is left out.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segmenter import atomic, config, recipes
from segmenter.checkpoints.reading import refuse_not_finite
from segmenter.data.classes import Classes
from segmenter.documents import BadDocument, read_json
from segmenter.errors import UserError, shown
from segmenter.recipes import earlier

FORMAT = 2
WEIGHTS, ABOUT = "model.safetensors", "config.json"
HASHES = "sha256"  # of the weights, in the description; nothing else of it depends on them
CALIBRATION = "calibration"  # beside "use", of which releases before calibration refuse what they do not know
RESTORE = "restore it from where the model was trained"
OF_TRAINING = ("pretrained", "freeze", "checkpointing")  # settings of the encoder that do not change the network


@dataclass(frozen=True)
class Description:
    """All that is known of a model besides its weights."""

    classes: Classes
    mean: tuple[float, ...]
    """Of red, green and blue, on the scale 0 to 1; so is `std`."""
    std: tuple[float, ...]
    recipe: config.Recipe
    temperature: float = 1.0
    """To which probabilities are brought, so that confidence is how often the model is right."""

    def to_dict(self) -> dict:
        """Plain JSON types; `description` is the way back."""
        recipe, use = self.recipe, asdict(self.recipe.inference)
        encoder = {name: value for name, value in asdict(recipe.encoder).items() if name not in OF_TRAINING}
        about = {
            "format": FORMAT,
            "classes": self.classes.to_dict(),
            "mean": list(self.mean),
            "std": list(self.std),
            "network": {"encoder": encoder, "decoder": asdict(recipe.decoder), "image_size": recipe.augment.crop},
            "use": {"short_side": recipe.augment.short_side, "max_ratio": recipe.augment.max_ratio} | use,
        }
        if recipe.task == "depth":
            about["depth"] = asdict(recipe.depth)
        if self.temperature != 1:
            about[CALIBRATION] = {"temperature": self.temperature}
        return json.loads(json.dumps(about | {"recipe": asdict(recipe)}))  # lists for tuples


def description(about: Mapping, source: str, remedy: str) -> Description:
    """What `Description.to_dict` of this release or an earlier one gave.

    `source` and `remedy` are for the sentence about a damaged description.

    Raises:
        UserError: something is missing or is not what it must be, or a later release wrote it.
    """
    try:
        written = about.get("format", 1)
        if written not in (1, FORMAT):
            text = f"{source} has format {shown(written)}"
            raise UserError(f"{text}, this version reads up to {FORMAT}; update segmenter")
        classes = Classes.from_dict(about["classes"])
        recipe = _recipe_1(about, source) if written == 1 else _recipe(about, source)
        mean, std = (_three_numbers(about[name]) for name in ("mean", "std"))
        if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError("mean and std must be finite, and std above 0")
        temperature = _temperature(about)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{source} is damaged ({what}); {remedy}") from error
    recipes.refuse_gaps(recipe.inference, source)
    return Description(classes, mean, std, recipe, temperature)


def _temperature(about: Mapping) -> float:
    value = about.get(CALIBRATION, {}).get("temperature", 1.0)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"the temperature must be a number above 0, not {shown(value)}")
    return float(value)


def _three_numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(type(part) in (int, float) for part in value):
        raise ValueError(f"mean and std must hold 3 numbers each, not {shown(value)}")
    return tuple(map(float, value))


def _recipe(about: Mapping, source: str) -> config.Recipe:
    """The recipe of format 2: network and use as they are described, the rest as far as it is understood."""
    network, use = about["network"], dict(about["use"])
    augment = {"crop": network["image_size"], "short_side": use.pop("short_side"), "max_ratio": use.pop("max_ratio")}
    groups = {"encoder": network["encoder"], "decoder": network["decoder"], "augment": augment, "inference": use}
    described = recipes.from_dict(groups | ({"depth": about["depth"]} if "depth" in about else {}), source)
    trained = recipes.understood(about.get("recipe"))
    kept = {name: getattr(trained.encoder, name) for name in OF_TRAINING}
    return replace(
        trained,
        encoder=replace(described.encoder, **kept),
        decoder=described.decoder,
        augment=replace(trained.augment, **{name: getattr(described.augment, name) for name in augment}),
        inference=described.inference,
        depth=described.depth,
    )


def _recipe_1(about: Mapping, source: str) -> config.Recipe:
    """The recipe of format 1, which described network and use itself."""
    return recipes.from_dict(earlier.upgraded(dict(about["recipe"]), source), source)


def write(folder: Path, state: Mapping[str, Tensor], about: Description) -> None:
    """Writes a model; where there is no room for it, or the process is killed, an older one in the folder survives."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    before = _hashes(folder) if (folder / WEIGHTS).is_file() else []
    described: list[str] = []

    def describe(hashes: list[str]) -> None:
        nonlocal described
        described = hashes
        hashed = {HASHES: hashes} if hashes else {}
        atomic.write_text(folder / ABOUT, json.dumps(about.to_dict() | hashed, indent=1) + "\n")

    def write_both(path: Path) -> None:
        nonlocal found
        save_file(state, path, {"format": "pt"})
        found = atomic.settled(path)
        # Before the weights take their place: where there is no room for both, both old files stay. Until they have
        # taken it, the description must be one of the old weights too, which may have no hash.
        describe([] if before is None else list(dict.fromkeys([found, *before])))

    found = ""
    atomic.write(folder / WEIGHTS, write_both)
    if described != [found]:
        describe([found])


def write_temperature(folder: Path, temperature: float) -> None:
    """Writes the temperature into the description of a model in a folder, whose weights stay as they are.

    Raises:
        UserError: as `read`; or the description cannot be written, and is as it was.
    """
    read(folder)
    about = read_json(folder / ABOUT) | {CALIBRATION: {"temperature": temperature}}
    atomic.write_text(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def _hashes(folder: Path) -> list[str] | None:
    """The sha256 of the weights that a description was written for; two while one file replaces the other.

    None if the description has none, as in earlier releases.
    """
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))[HASHES]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(value) for value in found] if isinstance(found, list) else [str(found)]


def _refuse_changed(path: Path) -> None:
    """Checks that weights are, byte for byte, those that the description beside them was written for.

    Raises:
        UserError: they are not.
    """
    known = _hashes(path.parent)
    if not known:
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); copy it again") from error
    if found not in known:
        raise UserError(
            f"{path} is damaged, or of another model: its sha256 is {found[:8]}..., not {known[0][:8]}... as {ABOUT} "
            f"says; copy both files again, or take {HASHES!r} out of {ABOUT} if the weights were changed on purpose"
        )


def read(folder: Path) -> Description:
    """The description in a model's folder.

    Raises:
        UserError: the folder holds no model, or it is as `description` refuses it.
    """
    for name in (WEIGHTS, ABOUT):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a model folder: {name} is missing; `segmenter train` writes one")
    path = folder / ABOUT
    try:
        about = read_json(path)
    except (BadDocument, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); {RESTORE}") from error
    if not isinstance(about, dict) or "format" not in about:
        raise UserError(f"{path} is damaged (it has no format); {RESTORE}")
    return description(about, str(path), RESTORE)


def read_weights(model: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """A file's weights for the model, every key accounted for; and auxiliary decoders' keys, which are left out.

    Raises:
        UserError: the file is damaged, changed or not of this model, or holds values that are not finite.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
    wanted = model.state_dict()
    auxiliary = sorted(name for name in state if name.startswith("decoder.auxiliary."))
    state = {name: tensor for name, tensor in state.items() if name not in auxiliary}
    missing, unused = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unused:
        raise UserError(
            f"{path} does not fit its {ABOUT}: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unused)} are unknown {unused[:3]}; both files must come from one model"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path} does not fit its {ABOUT}: {name} is {tuple(tensor.shape)}, "
                f"the model has {tuple(wanted[name].shape)}; both files must come from one model"
            )
    refuse_not_finite(path, state)
    _refuse_changed(path)
    return state, auxiliary
