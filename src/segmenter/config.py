"""Every setting of a run, as dataclasses: the recipes in recipes/*.yaml are instances of `Recipe`.

The docstring below a field is its help on the command line. Height comes before width everywhere.
"""

from dataclasses import dataclass, field
from typing import Literal

Layout = Literal[
    "auto", "folder", "ade20k", "pascal_context", "pascal_context_59", "cityscapes", "voc", "camvid", "scenes"
]

DepthKind = Literal["depth", "inverse"]
Alignment = Literal["auto", "none", "median", "least_squares"]


@dataclass
class Data:
    """Where the images and masks are, and which classes they show."""

    root: str = ""
    """Folder with the images and masks, or `scenes` for the generated ones."""
    layout: Layout = "auto"
    """How the folder is arranged; `auto` recognises it (Pascal Context with background)."""
    classes: str = ""
    """Path of a classes.yaml; empty: the one in the root, or the layout's own classes."""
    map: tuple[str, ...] = ()
    """Mask values to change, each as `from:to`, for example 7:255."""
    split_seed: int = 0
    """Seed of the split into train, val and test where the folder has none."""
    depth_scale: float = 0.0
    """Number in a map that means one metre: 1000 for millimetres, 256 in KITTI; 0: not stated (floats are metres)."""
    depth_kind: DepthKind = "depth"
    """What depth maps hold: `depth`, or `inverse` depth (disparity)."""


@dataclass
class Augment:
    """How training images are resized, cropped and distorted (Segmenter, section 4.1)."""

    short_side: int = 512
    """Pixels of the short side of an image at scale 1; prediction and evaluation use it too."""
    max_ratio: float = 4.0
    """The long side is at most this many times the short side; longer images become smaller."""
    crop: tuple[int, int] = (512, 512)
    """Height and width of a training crop in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale."""
    max_class_share: float = 0.75
    """A crop is drawn again, up to ten times, while one class holds this share of it or more."""
    flip: float = 0.5
    """Probability of a left-right mirror image."""
    distortion: bool = True
    """Random brightness, contrast, saturation and hue."""


@dataclass
class Encoder:
    """A plain vision transformer of timm."""

    name: str = "vit_small_patch16_384"
    """Name in timm."""
    pretrained: str = ""
    """`hub` for timm's weights, a local .safetensors, .pth or .npz, or empty for random weights."""
    patch_size: int | None = None
    """Patch side in pixels where it differs from the name's; pre-trained patches are resampled."""
    depth: int | None = None
    """Number of blocks where it differs from the name's (not with `hub`)."""
    width: int | None = None
    """Embedding width where it differs from the name's (not with `hub`)."""
    heads: int | None = None
    """Attention heads where they differ from the name's (not with `hub`)."""
    mlp_ratio: float | None = None
    """Hidden features of the MLPs for each of the width where they differ from the name's (not with `hub`)."""
    norm_eps: float | None = None
    """Epsilon of the layer norms where it differs from the name's; the published Segmenter has 1e-5."""
    drop_path: float = 0.1
    """Stochastic depth of the last block; it grows linearly from 0 in the first."""
    dropout: float = 0.0
    """Dropout on tokens, attention projections and MLPs."""
    position_resize: Literal["bilinear", "bicubic", "antialias"] = "bilinear"
    """How the position embedding is resampled to another grid; `antialias` is bicubic as timm does it."""
    freeze: int = 0
    """Blocks kept as they are, counted from the input (with the patch embedding); -1: the whole encoder."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""


@dataclass
class Decoder:
    """From patch tokens to class logits on the decoder's grid."""

    name: Literal["linear", "mask_transformer", "setr_naive", "setr_pup", "setr_mla", "dpt", "dpt_depth"] = (
        "mask_transformer"
    )
    """Segmenter's `linear` and `mask_transformer`, the three decoders of SETR, DPT, or DPT for depth."""
    layers: int = 2
    """Blocks of the mask transformer."""
    heads: int | None = None
    """Attention heads of the mask transformer where they are not one for every 64 features."""
    dropout: float = 0.0
    """Dropout in the mask transformer and before DPT's classifier; the published code trains with 0.1."""
    drop_path: float = 0.0
    """Stochastic depth in the mask transformer."""
    width: int = 256
    """Channels inside the heads of SETR and DPT."""
    taps: tuple[int, ...] = ()
    """Blocks of the encoder (0-based) that SETR and DPT read; empty: as published, spread over the depth.

    In SETR-Naive and SETR-PUP the last is the decoder's own, those before it are the auxiliary decoders'."""
    auxiliary: float = 0.4
    """Weight of the losses of SETR's and DPT's auxiliary decoders, which exist in training only; 0: none."""
    auxiliary_layers: int = 2
    """Convolutions of the auxiliary decoders in OpenMMLab's SETR-Naive and SETR-PUP; Naive on Cityscapes has 1."""
    readout: Literal["project", "add", "ignore"] = "project"
    """What DPT does with the class token: a learnt mix with every patch, their sum, or nothing."""
    widths: tuple[int, ...] = ()
    """Channels of DPT's four levels before the fusion, finest first; empty: as published for the encoder's width."""
    non_negative: bool = True
    """DPT's depth ends in a ReLU."""
    layout: Literal["", "original", "openmmlab", "huggingface", "smp"] = ""
    """Published implementation whose details SETR and DPT keep, set where its weights are loaded; empty: ours.

    Our SETR is the original one."""


@dataclass
class Depth:
    """What a model with the decoder `dpt_depth` learns and says; the others have labels."""

    target: Literal["inverse", "metric"] = "inverse"
    """`inverse` depth up to a scale and a shift of each image, which mixes data of all kinds, or `metric` depth."""
    inverse_loss: Literal["mse", "mae", "trimmed"] = "trimmed"
    """Squared error after an alignment by least squares, or absolute error of normalised maps, all or the best 80 %."""
    metric_loss: Literal["silog", "l1"] = "silog"
    """Scale-invariant error of the logarithm, or absolute error in metres."""
    gradient_weight: float = 0.5
    """Weight of the multi-scale gradient matching beside the loss of inverse depth."""
    max_depth: float = 80.0
    """Metres; what is measured beyond is not scored, nor learnt by metric models."""
    scale: float = 0.1
    """Of metric models: 1 / depth = scale x output + shift; outputs begin around 1. The published ones state theirs."""
    shift: float = 0.0125
    """As `scale`; outputs are not negative, so that no prediction lies beyond 1 / shift metres."""


@dataclass
class Train:
    """Optimiser, schedule and book-keeping."""

    start: str = ""
    """Model whose weights the training starts from, a folder or a name; patch size, crop and classes may differ."""
    steps: int = 10000
    """Optimiser updates in all."""
    batch: int = 8
    """Images in an update, over all processes."""
    accumulate: int = 1
    """Forward passes that an update is split into, to save memory."""
    optimizer: Literal["sgd", "adamw", "muon"] = "adamw"
    """`sgd` with Nesterov momentum as in the paper, `adamw` for fine-tuning, `muon` to train from random weights."""
    lr: float = 1e-4
    """Peak learning rate (of the decoder; the encoder's is lower with layer_decay)."""
    min_lr: float = 1e-5
    """Floor of the polynomial schedule; at most the peak."""
    power: float = 0.9
    """Exponent of the polynomial schedule."""
    warmup: int = 0
    """Updates of linear warm-up."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay of matrices; biases, norms, tokens and positions have none."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each encoder block to the one below it."""
    decoder_scale: float = 1.0
    """Factor on the learning rate of the decoder's heads; the published SETR has 10."""
    clip: float = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is validated and saved; 0: none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` takes bf16 only where the hardware computes it natively."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""
    batch_norm: Literal["update", "frozen"] = "update"
    """`frozen` keeps the running statistics of batch norms in SETR and DPT, for batches too small to measure them."""
    class_weights: Literal["none", "median_frequency"] = "none"
    """Weights of the classes in the loss; `median_frequency` counts the training masks."""
    validate_every: int = 1000
    """Updates between validations."""
    save_every: int = 200
    """Updates between checkpoints that `resume` goes on from."""
    workers: int = 2
    """Processes that load images; 0: load in the main process."""
    threads: int = 0
    """CPU threads of the network; 0: as many as torch takes. With slow loading, leave a core to each worker."""
    seed: int = 0
    """Seed of everything random."""
    compile: bool = False
    """Compile the network with torch.compile."""


@dataclass
class Inference:
    """Scale and sliding window; sizes in pixels at that scale."""

    window: tuple[int, int] = (512, 512)
    """Height and width of a window; smaller images are taken whole."""
    stride: tuple[int, int] = (480, 480)
    """Pixels from one window to the next."""
    batch: int = 4
    """Windows in one forward pass."""
    enlarge: bool = False
    """Enlarge smaller images to the window, as the published Segmenter does, instead of taking them whole."""
    native: bool = False
    """Keep an image's own scale instead of bringing its short side to the training's."""


@dataclass
class Recipe:
    """Everything that decides how a model is trained."""

    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=Decoder)
    depth: Depth = field(default_factory=Depth)
    train: Train = field(default_factory=Train)
    inference: Inference = field(default_factory=Inference)

    @property
    def task(self) -> Literal["labels", "depth"]:
        """What the model says of every pixel; the decoder decides it, so that nothing can contradict it."""
        return "depth" if self.decoder.name == "dpt_depth" else "labels"
