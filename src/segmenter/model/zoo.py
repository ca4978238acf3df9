"""What a model can be made of: timm's plain vision transformers, our decoders, the recipes."""

import fnmatch

from segmenter import recipes
from segmenter.errors import UserError
from segmenter.model.segmenter import DECODERS
from segmenter.model.timm_models import timm

# timm's files of plain vision transformers; some of what they hold is something else and is refused by `create`.
FILES = ("vision_transformer", "deit", "eva", "beit")


def encoders(pattern: str = "*") -> list[str]:
    """Names of timm's plain vision transformers of this form.

    Raises:
        UserError: there is none.
    """
    names = {name for file in FILES for name in timm.list_models(module=file)}
    found = sorted(fnmatch.filter(names, pattern))
    if not found:
        raise UserError(f"no encoder has a name of the form {pattern!r}; try 'vit_*' or '*dino*'")
    return found


def listing(pattern: str = "*") -> str:
    """Encoders of this form, decoders and recipes, as text."""
    trained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}  # names carry a tag
    found = encoders(pattern)
    lines = [f"decoders   {', '.join(DECODERS)}", f"recipes    {', '.join(recipes.names())}", ""]
    lines += [f"{len(found)} encoders; * has pre-trained weights (encoder.pretrained: hub)"]
    return "\n".join(lines + [f"  {'*' if name in trained else ' '} {name}" for name in found])
