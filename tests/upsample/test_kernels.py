"""Proves that the Triton kernels give the labels, losses and gradients that torch gives; on CUDA, and interpreted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from composition import LARGE, assert_labels, smooth

from segmenter import upsample

pytest.importorskip("triton", reason="the kernels need Triton")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def test_interpreted(environment):
    script = Path(__file__).with_name("interpreted_kernels.py")
    settings = environment | {"TRITON_INTERPRET": "1"}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, env=settings)
    assert ended.stdout == "kernels agree\n", ended.stderr


@on_cuda
@pytest.mark.parametrize("geometry", LARGE.values(), ids=LARGE)
def test_labels_on_cuda(geometry):
    logits = smooth((2 * geometry.window_count, 13, *geometry.grid))
    assert_labels(upsample.labels(logits.cuda(), geometry).cpu(), logits, geometry)


@on_cuda
@pytest.mark.parametrize("geometry", LARGE.values(), ids=LARGE)
def test_loss_on_cuda(geometry):
    logits = smooth((2 * geometry.window_count, 13, *geometry.grid))
    labels = torch.randint(0, 13, (2, *geometry.size), generator=torch.Generator().manual_seed(0))
    labels[:, 0] = 255
    results = []
    for device in ("cpu", "cuda", "cuda"):
        given = logits.to(device).requires_grad_()
        loss = upsample.cross_entropy(given, labels.to(device), geometry, smoothing=0.1)
        loss.backward()
        results.append((loss.detach().cpu(), given.grad.cpu()))
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-4)
    assert torch.equal(results[1][1], results[2][1])  # bit for bit, whenever it is made
