"""Convolution, batch norm and ReLU: what the heads of SETR and DPT are made of."""

from torch import Tensor, nn

from segmenter.errors import UserError


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm, which says in a sentence what to do where a pass has nothing to measure."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B C h w), normalised; in training by their own mean and variance.

        Raises:
            UserError: there is one value a channel only, which has no variance.
        """
        if self.training and features.numel() == features.shape[1]:
            raise UserError(
                "a pass of one image with a grid of one cell leaves batch norm nothing to measure; raise train.batch "
                "or augment.crop, lower train.accumulate, or keep the running statistics: train.batch_norm frozen"
            )
        return super().forward(features)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Channels `inputs` to `outputs` on the same grid; no bias, as the norm would take it away again."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )
