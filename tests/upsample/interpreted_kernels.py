"""Compares the Triton kernels, interpreted on the CPU, with the rest of the package; test_kernels.py runs it."""

import torch
from composition import smooth

from segmenter import upsample
from segmenter.upsample import Geometry, argmax, block_losses, cuda, pixel_losses

CASES = {
    "two images, blocks alike": (Geometry((1, 2), (8, 16), content=(8, 14)), 2),
    "windows, blocks not alike": (Geometry((2, 2), (8, 8), windows=((0,), (0, 5)), final=(9, 14)), 1),
}
pixel_losses.FEW = 0  # by blocks, as the kernels


def results(logits: torch.Tensor, labels: torch.Tensor, geometry: Geometry) -> list[torch.Tensor]:
    """Labels, loss and gradient."""
    found = [upsample.labels(logits, geometry)]
    logits = logits.clone().requires_grad_()
    loss = upsample.cross_entropy(logits, labels, geometry, torch.tensor([1.0, 2.0, 0.5]), smoothing=0.1)
    loss.backward()
    with torch.no_grad():
        return [*found, loss.detach(), logits.grad, upsample.cross_entropy(logits, labels, geometry)]


for name, (geometry, images) in CASES.items():
    logits = smooth((images * geometry.window_count, 3, *geometry.grid))
    labels = torch.randint(0, 3, (images, *geometry.size), generator=torch.Generator().manual_seed(0))
    labels[:, 0] = 255
    expected = results(logits, labels, geometry)
    here = argmax.cuda_kernels
    argmax.cuda_kernels = block_losses.cuda_kernels = lambda _: cuda
    found = results(logits, labels, geometry)
    argmax.cuda_kernels = block_losses.cuda_kernels = here
    assert torch.equal(found[0], expected[0]), name
    for ours, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
print("kernels agree")
