"""Weights of timm's models on the Hugging Face hub: asked for once and briefly, else taken from earlier downloads.

The hub's own library tries again for a minute before it gives up.
"""

from huggingface_hub import constants, get_session, try_to_load_from_cache

from segmenter.errors import UserError, cleaned
from segmenter.model.timm_models import timm

LONGEST = 10  # seconds until an answer
FILES = ("model.safetensors", "pytorch_model.bin")


def settings_of(name: str) -> dict[str, str]:
    """What replaces timm's settings of a model's weights: nothing, or an earlier download where the hub is silent.

    Raises:
        UserError: the hub cannot be reached, and there is no earlier download.
    """
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.hf_hub_id:
        return {}
    try:
        get_session().head(constants.ENDPOINT, timeout=LONGEST)
    except Exception as error:  # of the library's client, which differs from release to release
        files = [about.hf_hub_filename] if about.hf_hub_filename else FILES
        kept = [path for file in files if isinstance(path := try_to_load_from_cache(about.hf_hub_id, file), str)]
        if kept:
            return {"file": kept[0]}
        raise UserError(
            f"encoder.pretrained: the hub with the weights of {name} cannot be reached ({cleaned(str(error), 160)}); "
            f"where it can be, run `hf download {about.hf_hub_id} {files[0]}`, copy the file here and write its path "
            "instead of `hub`, or leave encoder.pretrained empty to begin with random weights"
        ) from error
    return {}
