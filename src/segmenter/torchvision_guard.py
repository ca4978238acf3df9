"""Imports torchvision even where its compiled operators do not match torch.

A CPU-only torch beside the standard torchvision wheel makes `import torchvision` (and so `import timm`) die
with "operator torchvision::nms does not exist". The transforms need none of the compiled operators: declaring
the missing ones is enough. torchvision.io and torchvision.ops stay unusable. Import this module before timm.
"""

import sys

import torch

_library = None  # the declarations live as long as this object

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "DEF")
    for _operator in ("nms", "qnms"):
        _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for _name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[_name]  # imported half
    import torchvision

from torchvision.transforms import v2  # noqa: E402

__all__ = ["torchvision", "v2"]
