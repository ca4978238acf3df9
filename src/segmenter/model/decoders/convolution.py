"""Convolution, batch norm and ReLU: the building block of the heads of SETR and DPT."""

from torch import Tensor, nn

from segmenter.errors import UserError


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm, with an error that says what to do where a pass has too few values for a variance."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B C h w), normalised; in training by their own mean and variance.

        Raises:
            UserError: there is only one value per channel, which has no variance.
        """
        if self.training and features.numel() == features.shape[1]:
            raise UserError(
                "batch norm cannot measure a variance from one image with a grid of one cell; raise train.batch or "
                "augment.crop, lower train.accumulate, or keep the running statistics: train.batch_norm frozen"
            )
        return super().forward(features)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Channels `inputs` to `outputs` on the same grid; no bias, as the norm would remove it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )
