"""The point-wise linear decoder: one matrix from each patch token to its class logits.

Source: Segmenter, arXiv 2105.05633, section 3.2, "Linear".
"""

from torch import Tensor, nn

from segmenter import config
from segmenter.model.decoders.decoder import Decoder
from segmenter.model.encoder import Encoder, Tokens


class Linear(Decoder):
    """Class logits of every patch token on its own."""

    class_dependent = ("head.weight", "head.bias")

    def __init__(self, settings: config.Linear, encoder: Encoder, classes: int):
        super().__init__()
        self.head = nn.Linear(encoder.width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, levels: list[Tokens]) -> Tensor:
        """The encoder's last tokens (B N D on a grid h, w) to logits (B K h w)."""
        (tokens,) = levels
        return self.head(tokens.patches).mT.unflatten(2, tokens.grid)
