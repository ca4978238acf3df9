"""Proves that torchvision's transforms and timm can be imported after the guard, whatever wheel is installed."""

import subprocess
import sys


def test_transforms_and_timm_import():
    code = (
        "from segmenter.torchvision_guard import v2; import torch, timm, torchvision;"
        "from torchvision.transforms.v2 import functional;"
        "print(functional.resize(torch.zeros(3, 4, 4, dtype=torch.uint8), [2, 2], antialias=False).shape)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "torch.Size([3, 2, 2])\n", result.stderr
