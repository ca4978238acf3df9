"""From an image to labels: ours against timm, a plain decoder, interpolate, softmax and argmax, and against peers' DPT.

python -m benchmarks.inference [--model MODEL] [--photo PHOTO] [--no-compile] [--json FILE] [--write]

All start from one normalised image of the model's crop on the CPU, and end with its labels. Peers have random weights
of the same sizes (SegFormer: its smallest, B0).
"""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import plain, subjects
from benchmarks.measuring import Row, in_turn, missing, options, parsed, report
from segmenter import upsample
from segmenter.model.segmenter import Segmenter, create

NETWORK_SHARE = 1.15
"""From image to labels may take so many times as long as encoder and decoder alone."""


def ours(model: Segmenter, images: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
    """Labels (B H W); `network` is the model, or what torch.compile made of it."""
    return upsample.labels(network(images), model.geometry(*images.shape[-2:]))


def candidates(logits: Tensor) -> float:
    """Classes that could win between four neighbouring tokens, by logits (K h w): mean over all such cells."""
    corners = logits.unfold(1, 2, 1).unfold(2, 2, 1).flatten(3)  # K h-1 w-1 4
    return (corners.amax(3) >= corners.amin(3).amax(0)).sum(0).float().mean().item()


def peer_dpt(classes: int, side: int) -> dict[str, nn.Module]:
    """DPT on ViT-Ti/16 of other libraries, as far as they are installed: images to pixel logits."""
    found: dict[str, nn.Module] = {}
    if not missing("transformers"):
        from transformers import DPTConfig, DPTForSemanticSegmentation

        sizes = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
        sizes |= {"neck_hidden_sizes": [24, 48, 96, 192], "fusion_hidden_size": 256, "image_size": side}
        taps = [2, 5, 8, 11]
        config = DPTConfig(**sizes, backbone_out_indices=taps, num_labels=classes, use_auxiliary_head=False)
        found["Hugging Face DPT"] = _Logits(DPTForSemanticSegmentation(config))
    if not missing("segmentation_models_pytorch"):
        import segmentation_models_pytorch as smp

        found["segmentation_models.pytorch DPT"] = smp.DPT(
            "tu-vit_tiny_patch16_384",
            encoder_weights=None,
            decoder_intermediate_channels=(24, 48, 96, 192),
            decoder_fusion_channels=256,
            classes=classes,
            dynamic_img_size=True,
        )
    return {name: network.eval() for name, network in found.items()}


def segformer(classes: int) -> dict[str, nn.Module]:
    """The smallest SegFormer where transformers is installed."""
    if missing("transformers"):
        return {}
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes)).eval()
    return {"Hugging Face SegFormer-B0": _Logits(network)}


class _Logits(nn.Module):
    """A model of transformers whose answer is its logits alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).logits


def labels_of_peer(network: nn.Module, images: Tensor) -> Tensor:
    """As their own post-processing: enlarged to the image where the network has not done it, then argmax."""
    logits = network(images)
    if logits.shape[-2:] != images.shape[-2:]:
        logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
    return logits.argmax(1)


@torch.inference_mode()
def rows(model: Segmenter, images: Tensor, rounds: int, compiled: bool) -> tuple[list[Row], str]:
    """The table, and what has to be said with it."""
    network = plain.Plain(model).eval()
    found = ours(model, images, model)
    same = (found == network(images)).float().mean().item()
    functions = {
        "ours": lambda: ours(model, images, model),
        "plain": lambda: network(images),
        "network": lambda: model(images),
    }
    if compiled:
        small, large = torch.compile(model), torch.compile(network)
        functions |= {"ours compiled": lambda: ours(model, images, small), "plain compiled": lambda: large(images)}
    seconds = in_turn(functions, rounds)
    what = f"image of {images.shape[2]} x {images.shape[3]} to labels, {subjects.about(model)}"
    against = "timm ViT + plain decoder + interpolate + softmax + argmax"

    def row(what: str, against: str, mine: str, theirs: str, wanted: float | None = None) -> Row:
        return Row(what, against, "ms", seconds[mine], seconds[theirs], wanted)

    result = [
        row(what, against, "ours", "plain", 2),
        row("the same", "encoder and decoder alone", "ours", "network", 1 / NETWORK_SHARE),
    ]
    if compiled:
        result.append(row("the same, network compiled", f"{against}, compiled", "ours compiled", "plain compiled"))
    cells = candidates(model(images)[0])
    note = (
        f"Classes that could win in a cell between four tokens: {cells:.1f} of {len(model.classes)} on average. "
        f"Ours and the plain formulation give {100 * same:.2f} % of the pixels the same label."
    )
    return result, note


@torch.inference_mode()
def peer_rows(model: Segmenter, images: Tensor, rounds: int, compiled: bool) -> list[Row]:
    """Other libraries' networks against ours of the same kind, all with random weights."""
    classes, side = len(model.classes), images.shape[-1]
    torch.manual_seed(0)
    dpt = create(subjects.ENCODER, "dpt", classes, side).eval()
    result = []
    groups = (
        (dpt, peer_dpt(classes, side), "DPT on ViT-Ti/16, image to labels"),
        (model, segformer(classes), f"{subjects.about(model)}, image to labels"),
    )
    for mine, peers, what in groups:
        for name, peer in peers.items():
            for wrap, suffix in [(lambda it: it, "")] + [(torch.compile, ", compiled")] * compiled:
                fast, theirs = wrap(mine), wrap(peer)
                functions = {
                    "ours": lambda mine=mine, fast=fast: ours(mine, images, fast),
                    "theirs": lambda theirs=theirs: labels_of_peer(theirs, images),
                }
                seconds = in_turn(functions, rounds)
                result.append(Row(what + suffix, name + suffix, "ms", seconds["ours"], seconds["theirs"]))
    return result


def main() -> None:
    """Measures and reports."""
    parser = options(__doc__)
    subjects.add_options(parser)
    arguments = parsed(parser)
    model = subjects.model(arguments.model)
    pixels = subjects.pixels(arguments.photo, model.recipe.augment.crop)
    images = model.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    found, note = rows(model, images, arguments.rounds, not arguments.no_compile)
    found += peer_rows(model, images, arguments.rounds, not arguments.no_compile)
    kind = f"photo {arguments.photo.name}" if arguments.photo else "drawn photo"
    weights = "trained weights" if arguments.model else "random weights, whose logits are rougher than trained ones"
    report(found, arguments, note=f"{note} Measured on a {kind} with {weights}; peers' weights are random.")


if __name__ == "__main__":
    sys.exit(main())
