"""Muon for CPUs: torch's own, with its orthogonalisation in float32 and for all matrices of one shape together.

Source: Muon is scalable for LLM training, arXiv 2502.16982; torch.optim.Muon for the constants and the state. Torch
computes the iteration in bfloat16, which CPUs without such instructions do 20 times slower than float32: it took more
time than the rest of the update. The iteration here is on X X^T, the smaller side, since all its terms commute.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """As torch's with `adjust_lr_fn="match_rms_adamw"`, to the rounding of bfloat16."""

    def __init__(self, groups: list[dict], lr: float):
        super().__init__(groups, lr, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for (rows, columns), parameters in shapes.items():
                directions = torch.stack([self._direction(parameter, group) for parameter in parameters])  # n r c
                updates = orthogonal(directions, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * math.sqrt(max(rows, columns))  # the update's size is then AdamW's
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)

    def _direction(self, parameter: Tensor, group: dict) -> Tensor:
        """The gradient's running mean with this gradient in it, with Nesterov's look ahead."""
        state, momentum = self.state[parameter], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices (n r c) with their singular values brought near 1 by `steps` of x -> a x + b x^3 + c x^5."""
    linear, cubic, quintic = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=eps)
    gram = wide @ wide.mT  # n s s, s the smaller side
    product = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        factor.diagonal(dim1=1, dim2=2).add_(linear)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ (gram @ factor)
    wide = product @ wide
    return wide.mT if tall else wide
