"""Proves that the computed receptive fields are those of the networks: by gradients, and as the literature has them."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from segmenter.inspection.receptive_fields import BLOCKS, bottlenecks, receptive_field, receptive_fields

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("network", "side"), [("ResNet-50", 483), ("ResNet-101", 1027)])
def test_the_last_stage_sees_what_araujo_norris_and_sim_state(network, side):
    assert receptive_fields(network)[-1].side == side


@pytest.mark.parametrize("network", BLOCKS)
def test_stages_see_farther_one_after_another(network):
    found = receptive_fields(network)
    assert [field.stage for field in found] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert [field.stride for field in found] == [2, 4, 8, 16, 32]
    assert all(first.side < second.side for first, second in pairwise(found))


@pytest.mark.parametrize("layers", [((7, 2), (3, 2)), ((7, 2), (3, 2), *bottlenecks(2, 2)), ((3, 1), (2, 3), (5, 1))])
def test_the_field_is_where_a_network_of_these_layers_has_gradients(layers):
    side, stride = receptive_field(layers)
    network = nn.Sequential(*(nn.Conv1d(1, 1, kernel, step, bias=False) for kernel, step in layers))
    for layer in network:
        nn.init.ones_(layer.weight)
    signal = torch.ones(1, 1, side + 2 * stride, requires_grad=True)
    features = network(signal)[0, 0]
    assert len(features) == 3
    seen = [torch.autograd.grad(features[i], signal, retain_graph=True)[0][0, 0].nonzero() for i in (0, 1)]
    assert [int(found.min()) for found in seen] == [0, stride]
    assert int(seen[0].max()) == side - 1
