"""The published Segmenters by name: the original's table and OpenMMLab's, as data.

Source: the README of the original repository (rstrudel/segmenter), configs/segmenter of mmsegmentation. Figures are
theirs; parameters are counted in our networks, without the ImageNet classifiers that the original's files keep unused.
"""

import difflib
from typing import NamedTuple
from urllib.parse import urlsplit

ORIGINAL = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/"
OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/segmenter/"
GONE = "the first host has been reported gone since June 2024 (rstrudel/segmenter, issue 74)"


class File(NamedTuple):
    """A file of a published model."""

    name: str
    sha256: str = ""
    """The leading digits of the hash that its publisher states, if any."""


class Published(NamedTuple):
    """A published model: what it is, its scores, and where its files are."""

    name: str
    encoder: str
    decoder: str
    data: str
    crop: int
    """Side of the training crop in pixels."""
    miou: float
    """Percent on the validation set, one scale."""
    miou_multiscale: float
    """Percent, averaged over six scales and their mirror images."""
    parameters: int
    folder: str
    """Address of the folder with the files, with a slash at its end."""
    files: tuple[File, ...]

    @property
    def host(self) -> str:
        """The machine that serves the files."""
        return urlsplit(self.folder).netloc

    @property
    def size(self) -> str:
        """tiny, small, base or large."""
        return self.encoder.split("_")[1]


def _original(
    name: str, encoder: str, decoder: str, data: str, crop: int, miou: float, multiscale: float, parameters: int,
    folder: str,
) -> Published:  # fmt: skip
    # The settings first: they are small, so a missing host is noticed at once.
    files = (File("variant.yml"), File("checkpoint.pth"))
    return Published(name, encoder, decoder, data, crop, miou, multiscale, parameters, f"{ORIGINAL}{folder}/", files)


def _openmmlab(
    name: str, encoder: str, decoder: str, crop: int, miou: float, multiscale: float, parameters: int, folder: str,
    date_and_hash: str,
) -> Published:  # fmt: skip
    file = File(f"{folder}_{date_and_hash}.pth", date_and_hash.partition("-")[2])
    return Published(
        f"{name}-ade20k-openmmlab", encoder, decoder, "ADE20K", crop, miou, multiscale, parameters,
        f"{OPENMMLAB}{folder}/", (file,),
    )  # fmt: skip


TINY, SMALL, BASE, LARGE = (f"vit_{size}_patch16_384" for size in ("tiny", "small", "base", "large"))
BASE_8, DEIT = "vit_base_patch8_224", "deit_base_distilled_patch16_384"
MASK, LINEAR = "mask_transformer", "linear"

PUBLISHED = (
    _original(
        "seg-tiny-mask-ade20k", TINY, MASK, "ADE20K", 512, 38.1, 38.8, 6_713_388,
        "ade20k/seg_tiny_mask",
    ),
    _original(
        "seg-small-mask-ade20k", SMALL, MASK, "ADE20K", 512, 45.3, 46.9, 26_033_964,
        "ade20k/seg_small_mask",
    ),
    _original(
        "seg-base-mask-ade20k", BASE, MASK, "ADE20K", 512, 48.5, 50.0, 102_497_580,
        "ade20k/seg_base_mask",
    ),
    _original(
        "seg-base-linear-patch8-ade20k", BASE_8, LINEAR, "ADE20K", 512, 49.5, 50.5, 88_466_838,
        "ade20k/seg_base_patch8",
    ),
    _original(
        "seg-base-deit-linear-ade20k", DEIT, LINEAR, "ADE20K", 512, 47.1, 48.1, 86_551_446,
        "ade20k/seg_base_deit_linear",
    ),
    _original(
        "seg-base-deit-mask-ade20k", DEIT, MASK, "ADE20K", 512, 48.7, 50.1, 102_499_116,
        "ade20k/seg_base_deit_mask",
    ),
    _original(
        "seg-large-mask-ade20k", LARGE, MASK, "ADE20K", 640, 51.8, 53.6, 333_234_476,
        "ade20k/seg_large_mask_640",
    ),
    _original(
        "seg-large-mask-pascal-context", LARGE, MASK, "Pascal Context", 480, 58.1, 59.0, 332_425_336,
        "pascal_context/seg_large_mask",
    ),
    _original(
        "seg-large-mask-cityscapes", LARGE, MASK, "Cityscapes", 768, 79.1, 81.3, 333_820_966,
        "cityscapes/seg_large_mask",
    ),
    _openmmlab(
        "seg-tiny-mask", TINY, MASK, 512, 39.99, 40.83, 6_713_388,
        "segmenter_vit-t_mask_8x1_512x512_160k_ade20k", "20220105_151706-ffcf7509",
    ),
    _openmmlab(
        "seg-small-linear", SMALL, LINEAR, 512, 45.75, 46.82, 22_041_366,
        "segmenter_vit-s_linear_8x1_512x512_160k_ade20k", "20220105_151713-39658c46",
    ),
    _openmmlab(
        "seg-small-mask", SMALL, MASK, 512, 46.19, 47.85, 26_033_964,
        "segmenter_vit-s_mask_8x1_512x512_160k_ade20k", "20220105_151706-511bb103",
    ),
    _openmmlab(
        "seg-base-mask", BASE, MASK, 512, 49.60, 51.07, 102_497_580,
        "segmenter_vit-b_mask_8x1_512x512_160k_ade20k", "20220105_151706-bc533b08",
    ),
    # The file's name says 512, its configuration and the table 640.
    _openmmlab(
        "seg-large-mask", LARGE, MASK, 640, 52.16, 53.65, 333_234_476,
        "segmenter_vit-l_mask_8x1_512x512_160k_ade20k", "20220105_162750-7ef345be",
    ),
)  # fmt: skip


def find(name: str) -> Published | None:
    """The published model of a name."""
    return next((model for model in PUBLISHED if model.name == name), None)


def suggestion(name: str) -> str:
    """The closest name, as part of a sentence; empty where none is close."""
    near = difflib.get_close_matches(name, [model.name for model in PUBLISHED], n=1)
    return f"; perhaps {near[0]}" if near else ""


def alternatives(model: Published) -> list[Published]:
    """Models of the same size and data set from other hosts, those with the same decoder first."""
    same = [m for m in PUBLISHED if (m.data, m.size) == (model.data, model.size) and m.host != model.host]
    return sorted(same, key=lambda found: found.decoder != model.decoder)
