"""Proves that every encoder that `segmenter models` lists can be created."""

import torch

from segmenter import config
from segmenter.model.encoder import Encoder
from segmenter.published.zoo import find


def test_every_encoder_of_the_list_can_be_made_and_takes_images():
    names = [entry["name"] for entry in find("*")["encoders"]]
    assert len(names) > 200
    with torch.device("meta"):  # shapes without numbers
        images = torch.zeros(1, 3, 64, 96)
        for name in names:
            # Sapiens says of every block how many heads it has, so that it cannot be made of one.
            depth = None if "sapiens" in name else 1
            tokens = Encoder(config.Encoder(name, depth=depth), (64, 96))(images)
            assert tokens.patches.shape[1] == tokens.grid[0] * tokens.grid[1] > 0, name
