"""Makes a model from what `folder.describe` said of it; its weights come afterwards."""

from collections.abc import Mapping
from dataclasses import replace

from segmenter import recipes
from segmenter.data.classes import Classes
from segmenter.errors import UserError
from segmenter.model.segmenter import Segmenter


def rebuild(about: Mapping, source: str, remedy: str, auxiliary: bool = False) -> Segmenter:
    """A model without its weights; `source` and `remedy` are for the sentence about a damaged description.

    Auxiliary decoders are for the training alone and left out unless they are asked for.

    Raises:
        UserError: something is missing, or is not what it must be.
    """
    try:
        classes = Classes.from_dict(about["classes"])
        recipe = recipes.from_dict(about["recipe"], source)
        mean, std = (tuple(float(value) for value in about[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError("mean and std must hold 3 numbers each")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is damaged ({error!r}); {remedy}") from error
    # The weights come from the file, not from where the encoder's first ones came from.
    encoder = replace(recipe.encoder, pretrained="")
    decoder = recipe.decoder if auxiliary else replace(recipe.decoder, auxiliary=0.0)
    model = Segmenter(replace(recipe, encoder=encoder, decoder=decoder), classes)
    model.recipe, model.mean, model.std = recipe, mean, std
    return model
