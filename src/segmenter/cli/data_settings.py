"""The settings of data as verbs take them whose folder is an argument, DATA, and not one of the settings."""

from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import Fixed, Suppress

from segmenter.config import Data, DepthKind
from segmenter.ranges import NonNegative, Seed


@dataclass
class DataAtRoot(Data):
    """The settings of data whose folder is told apart from them, as the argument DATA."""

    root: Annotated[str, Fixed, Suppress] = ""


@dataclass
class DataOfModel(DataAtRoot):
    """The same, with what a model knows of the data it was trained on where nothing is said."""

    split_seed: Seed | None = None
    """Seed of the split into train, val and test where the folder has none; none: the model's own."""
    depth_scale: NonNegative = 0.0
    """Number in a map that means one metre; 0: the one the model was trained with."""
    depth_kind: DepthKind | None = None
    """What depth maps hold, `depth` or `inverse` depth (disparity); none: as the model was trained with."""

    def completed(self, root: str, known: Data) -> Data:
        """The data in a folder, for a model that was trained on what is known."""
        settings = asdict(self) | {"root": root}
        settings["split_seed"] = known.split_seed if self.split_seed is None else self.split_seed  # 0 is one
        settings["depth_scale"] = self.depth_scale or known.depth_scale
        settings["depth_kind"] = self.depth_kind or known.depth_kind
        settings["unlabelled"] = known.unlabelled if self.unlabelled == "auto" else self.unlabelled
        return Data(**settings)
