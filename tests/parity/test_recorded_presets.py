"""Proves that presets give a published file the windows that the recorded commands used."""

import pytest
import recorded
import yaml

import segmenter
from segmenter.inference.presets import settings


class Loader(yaml.SafeLoader):
    """YAML with the tuple that the original's files hold."""


Loader.add_constructor("tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node)))


@pytest.mark.parametrize("case", recorded.cases("pipeline"), ids=recorded.name)
def test_the_evaluation_command(case):
    facts = recorded.about(case)
    crop = recorded.pair(facts["net_kwargs"]["image_size"])
    if (recorded.pair(facts["window_size"]), facts["window_stride"]) != (crop, min(crop) - 32):
        pytest.skip("the command was given windows of its own")
    found = settings("segm.eval.miou", recorded.original(case).recipe)
    assert found == recorded.windows(facts["window_size"], facts["window_stride"])


@pytest.mark.parametrize("case", recorded.cases("checkpoint"), ids=recorded.name)
def test_the_windows_that_the_training_wrote_down(case):
    content = yaml.load((case / "variant.yml").read_text(encoding="utf-8"), Loader)
    stated, crop = content["inference_kwargs"], content["dataset_kwargs"]["crop_size"]
    recipe = segmenter.load(case).recipe
    window, stride = stated["window_size"], stated["window_stride"]
    assert settings("segm.train", recipe) == recorded.windows(window, stride, batch=1)
    folder = settings("segm.inference", recipe)
    assert (folder.window, folder.stride, folder.native) == ((window, window), (stride, stride), True)
    assert settings("segm.eval.miou", recipe) == recorded.windows(crop, crop - 32)
