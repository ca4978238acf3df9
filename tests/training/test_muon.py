"""Proves that Muon on CPUs makes the updates of torch's, for matrices of every shape, and takes over its state."""

import copy

import pytest
import torch
from torch import nn

from segmenter.training.muon import Muon, orthogonal

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # torch's
SHAPES = [(6, 6), (12, 4), (4, 12), (12, 4), (6, 6)]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups(matrices: list[nn.Parameter]) -> list[dict]:
    return [{"params": matrices[:3], "weight_decay": 0.1}, {"params": matrices[3:], "weight_decay": 0.0}]


def set_gradients(matrices: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)


def test_the_updates_are_those_of_torch_and_its_state_is_taken_over():
    """Ten updates, the first three of both made by torch's; its bfloat16 has three digits."""
    theirs = parameters()
    their_muon = torch.optim.Muon(groups(theirs), 0.02, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        set_gradients(theirs, seed)
        their_muon.step()
    ours = copy.deepcopy(theirs)
    our_muon = Muon(groups(ours), 0.02)
    our_muon.load_state_dict(copy.deepcopy(their_muon.state_dict()))
    for seed in range(3, 10):
        for matrices, muon in ((theirs, their_muon), (ours, our_muon)):
            set_gradients(matrices, seed)
            muon.step()
    moved = max((new - old).norm() for new, old in zip(theirs, parameters(), strict=True))
    for mine, yours in zip(ours, theirs, strict=True):
        assert (mine - yours).norm() < 0.02 * moved
    their_muon.load_state_dict(our_muon.state_dict())  # and back


def test_a_matrix_without_gradient_stays():
    matrices = parameters()
    before = [matrix.detach().clone() for matrix in matrices]
    set_gradients(matrices[1:], 0)
    Muon(groups(matrices), 0.02).step()
    changed = [not torch.equal(old, new) for old, new in zip(before, matrices, strict=True)]
    assert changed == [False, True, True, True, True]


@pytest.mark.parametrize("shape", [(8, 8), (20, 5), (5, 20)])
def test_singular_values_as_the_polynomial_makes_them(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / matrices.norm(dim=(1, 2))[:, None]
    for _ in range(5):
        values = COEFFICIENTS[0] * values + COEFFICIENTS[1] * values**3 + COEFFICIENTS[2] * values**5
    torch.testing.assert_close(orthogonal(matrices, COEFFICIENTS, 5, 1e-7), left * values[:, None] @ right)


def test_no_gradient_is_no_update():
    assert torch.equal(orthogonal(torch.zeros(2, 4, 6), COEFFICIENTS, 5, 1e-7), torch.zeros(2, 4, 6))
