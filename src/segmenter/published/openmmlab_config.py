"""The text of an OpenMMLab configuration, nested dict(...) calls in Python: parsed and written, never run."""

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

from segmenter.checkpoints.json_settings import is_number

if TYPE_CHECKING:
    from segmenter.model.segmenter import Segmenter

LONGEST_TEXT = 2**20
HEAD_WIDTH = 64
WHOLE = (2**16, 2**16)  # a window that holds any image: mode "whole"


def is_list(value: object, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


class Configuration:
    """The literals in the Python text of a configuration; everything else is left out."""

    def __init__(self, meta: object):
        text = ""
        if isinstance(meta, Mapping):
            text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
        self._values: dict[str, object] = {}
        if not text or len(text) > LONGEST_TEXT:
            return
        try:
            tree = ast.parse(text)
            for statement in tree.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    self._values[statement.targets[0].id] = self._value(statement.value)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # it is not a configuration
            self._values = {}

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return {k.value: self._value(v) for k, v in pairs if isinstance(k, ast.Constant)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            return {keyword.arg: self._value(keyword.value) for keyword in node.keywords}
        return None

    def find(self, place: str) -> object:
        """The value at `a.b.c`, or None."""
        found: object = self._values
        for part in place.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def number(self, place: str, default: float) -> float:
        """A finite number at a place."""
        value = self.find(place)
        return float(value) if is_number(value) else default

    def natural(self, place: str) -> int | None:
        """A whole number from 1 up at a place."""
        value = self.find(place)
        return value if type(value) is int and value > 0 else None

    def pair(self, place: str) -> tuple[int, int] | None:
        """Height and width at a place; one number stands for both."""
        value = self.find(place)
        value = [value, value] if type(value) is int else value
        if is_list(value, 2) and all(type(side) is int and side > 0 for side in value):
            return tuple(value)
        return None


def text(network: "Segmenter", parts: Mapping[str, dict | list]) -> str:
    """The part of a configuration that describes a model of ours and its windows.

    `parts` are further sections; their `backbone`, if any, is merged into the backbone's.
    """
    recipe, encoder = network.recipe, network.encoder
    block, window = encoder.vit.blocks[0], tuple(recipe.inference.window)
    backbone = {
        "type": "VisionTransformer",
        "img_size": tuple(side * encoder.patch_size for side in encoder.table_grid),
        "patch_size": encoder.patch_size,
        "embed_dims": encoder.width,
        "num_layers": encoder.depth,
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / encoder.width,
        "drop_rate": recipe.encoder.dropout,
        "drop_path_rate": recipe.encoder.drop_path,
        "final_norm": True,
        "norm_cfg": {"type": "LN", "eps": block.norm1.eps},
        "interpolate_mode": recipe.encoder.position_resize,
        "patch_bias": True,
    }
    test = {"mode": "whole"}
    if window != WHOLE:
        test = {"mode": "slide", "crop_size": window, "stride": tuple(recipe.inference.stride)}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [255 * value for value in network.mean],
            "std": [255 * value for value in network.std],
            "bgr_to_rgb": True,
        },
        **parts,
        "backbone": backbone | dict(parts.get("backbone", {})),
        "test_cfg": test,
    }
    return f"model = {_source(model)}\n"


def _source(value: object) -> str:
    """A value as Python: mappings become dict(...) calls."""
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_source(item)}' for key, item in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_source, value))}]"
    return repr(value)
