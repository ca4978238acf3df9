"""The point-wise linear decoder: one matrix from each patch token to its class logits.

Source: Segmenter, arXiv 2105.05633, section 3.2, "Linear".
"""

from torch import Tensor, nn

from segmenter import config


class Linear(nn.Module):
    """Class logits of every patch token on its own."""

    class_dependent = ("head.weight", "head.bias")

    def __init__(self, settings: config.Decoder, width: int, classes: int):
        super().__init__()
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B N D) on a grid (h, w) to logits (B K h w)."""
        return self.head(tokens).mT.unflatten(2, grid)
