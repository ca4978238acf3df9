"""Every setting of a run, as dataclasses: the recipes in recipes/*.yaml are instances of `Recipe`.

The docstring below a field is its help on the command line, and its type gives the allowed values. Height comes before
width everywhere.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Interval

from segmenter.config_decoders import (
    DECODERS,
    Decoder,
    Dpt,
    DptDepth,
    Linear,
    MaskTransformer,
    SetrMla,
    SetrUp,
    Task,
    decoder,
)
from segmenter.ranges import (
    AtLeastOne,
    Batch,
    Channels,
    Count,
    Factor,
    Fraction,
    Natural,
    NonNegative,
    Pixels,
    Positive,
    Probability,
    Processes,
    Seed,
)

__all__ = [
    "DECODERS", "Alignment", "Augment", "Data", "Decoder", "Depth", "DepthKind", "Dpt", "DptDepth", "Encoder",
    "Inference", "Layout", "Linear", "MaskTransformer", "Recipe", "SetrMla", "SetrUp", "Task", "Train", "Unlabelled",
    "decoder",
    "without_auxiliary",
]  # fmt: skip

Layout = Literal[
    "auto", "folder", "ade20k", "pascal_context", "pascal_context_59", "cityscapes", "voc", "camvid", "scenes",
    "tables", "coco", "supervisely", "labelme", "label_studio", "cvat", "voc_xml", "yolo",
]  # fmt: skip
Unlabelled = Literal["auto", "background", "ignore"]

DepthKind = Literal["depth", "inverse"]
Alignment = Literal["auto", "none", "median", "least_squares"]


@dataclass
class Data:
    """Where the images and masks are, and which classes they show."""

    root: str = ""
    """Folder with the images and masks, or `scenes` for the generated ones."""
    layout: Layout = "auto"
    """Layout of the folder; `auto` recognises it (Pascal Context with background)."""
    classes: str = ""
    """Path of a classes.yaml; empty: the one in the root folder, or the layout's own classes."""
    map: tuple[str, ...] = ()
    """Mask values to change, each as `from:to`, for example 7:255."""
    split_seed: Seed = 0
    """Seed of the split into train, val and test where the folder has none."""
    depth_scale: NonNegative = 0.0
    """Value in a map that means one metre: 1000 for millimetres, 256 in KITTI; 0: not stated (floats are metres)."""
    depth_kind: DepthKind = "depth"
    """What depth maps hold: `depth`, or `inverse` depth (disparity)."""
    unlabelled: Unlabelled = "auto"
    """What pixels are that no annotation covers; `auto`: background, but as stated where masks have a table."""
    skip_faults: bool = False
    """Leave annotations with faults out, with a warning, instead of refusing them all."""


@dataclass
class Augment:
    """How training images are resized, cropped and distorted (Segmenter, section 4.1)."""

    short_side: Pixels = 512
    """Pixels of the short side of an image at scale 1; prediction and evaluation use it too."""
    max_ratio: AtLeastOne = 4.0
    """The long side is at most this many times `short_side`; longer images are scaled down further."""
    crop: tuple[Pixels, Pixels] = (512, 512)
    """Height and width of a training crop in pixels."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Range of the random scale."""
    max_class_share: Positive = 0.75
    """A crop is drawn again, up to ten times, while one class holds this share of it or more."""
    flip: Probability = 0.5
    """Probability of a left-right mirror image."""
    distortion: bool = True
    """Random brightness, contrast, saturation and hue."""


@dataclass
class Encoder:
    """A plain vision transformer of timm."""

    name: str = "vit_small_patch16_384"
    """Name in timm."""
    pretrained: str = ""
    """`hub` for timm's weights, the path of a .safetensors, .pth or .npz file, or empty for random weights."""
    patch_size: Pixels | None = None
    """Patch side in pixels where it differs from the name's; pre-trained patches are resampled."""
    depth: Annotated[int, Interval(ge=1, le=1000)] | None = None
    """Number of blocks where it differs from the name's (not with `hub`)."""
    width: Channels | None = None
    """Embedding width where it differs from the name's (not with `hub`)."""
    heads: Channels | None = None
    """Attention heads where they differ from the name's (not with `hub`)."""
    mlp_ratio: Positive | None = None
    """Hidden features of the MLPs per feature of the width, where it differs from the name's (not with `hub`)."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values have biases, where it differs from the name's (not with `hub`)."""
    norm_eps: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Epsilon of the layer norms where it differs from the name's; the published Segmenter has 1e-5."""
    drop_path: Fraction = 0.1
    """Stochastic depth of the last block; it grows linearly from 0 in the first."""
    dropout: Fraction = 0.0
    """Dropout on tokens, attention projections and MLPs."""
    position_resize: Literal["bilinear", "bicubic", "antialias"] = "bilinear"
    """How the position embedding is resampled to another grid; `antialias` is bicubic as timm does it."""
    freeze: Annotated[int, Interval(ge=-1, le=1000)] = 0
    """Number of frozen blocks, counted from the input (with the patch embedding); -1: the whole encoder."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


@dataclass
class Depth:
    """What a model with the decoder `dpt_depth` learns and predicts; the others have labels."""

    target: Literal["inverse", "metric"] = "inverse"
    """`inverse` depth up to a scale and a shift per image, which allows data of all kinds, or `metric` depth."""
    inverse_loss: Literal["mse", "mae", "trimmed"] = "trimmed"
    """Squared error after least-squares alignment, or absolute error of normalised maps, of all or the best 80 %."""
    metric_loss: Literal["silog", "l1"] = "silog"
    """Scale-invariant error of the logarithm, or absolute error in metres."""
    gradient_weight: NonNegative = 0.5
    """Weight of the multi-scale gradient matching beside the loss of inverse depth."""
    max_depth: Positive = 80.0
    """Metres; pixels measured as farther are not scored, nor learnt by metric models."""
    scale: Positive = 0.1
    """Of metric models: 1 / depth = scale x output + shift; outputs start around 1. Published models state theirs."""
    shift: NonNegative = 0.0125
    """See `scale`; outputs are not negative, so no prediction is farther than 1 / shift metres."""


@dataclass
class Train:
    """Optimiser, schedule and book-keeping."""

    start: str = ""
    """Model whose weights training starts from, a folder or a name; patch size, crop and classes may differ."""
    steps: Count = 10000
    """Number of optimiser updates."""
    batch: Batch = 8
    """Images per update, over all processes."""
    accumulate: Batch = 1
    """Forward passes per update; more of them save memory."""
    optimizer: Literal["sgd", "adamw", "muon"] = "adamw"
    """`sgd` with Nesterov momentum as in the paper, `adamw` for fine-tuning, `muon` to train from random weights."""
    lr: Positive = 1e-4
    """Peak learning rate (of the decoder; the encoder's is lower with layer_decay)."""
    min_lr: NonNegative = 1e-5
    """Floor of the polynomial schedule; at most the peak."""
    power: NonNegative = 0.9
    """Exponent of the polynomial schedule."""
    warmup: NonNegative = 0.0
    """Updates of linear warm-up; below 1: their share of `steps`."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 0.0
    """Weight decay of matrices; biases, norms, tokens and positions have none."""
    layer_decay: Factor = 1.0
    """Factor on the learning rate from each encoder block to the one below it."""
    decoder_scale: Positive = 1.0
    """Factor on the learning rate of the decoder's heads; the published SETR has 10."""
    clip: NonNegative = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: Fraction = 0.0
    """Decay of the moving average of the weights, lower in the first updates; 0: none. The better of it and the weights
    themselves, at each validation, is the model."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` uses bf16 only where the hardware computes it natively."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread evenly over all classes."""
    batch_norm: Literal["update", "frozen"] = "update"
    """`frozen` keeps the running statistics of batch norms in SETR and DPT, for batches too small to measure them."""
    class_weights: Literal["none", "median_frequency"] = "none"
    """Weights of the classes in the loss; `median_frequency` counts the training masks."""
    validate_every: Count = 1000
    """Updates between validations."""
    validate_minutes: NonNegative = 0.0
    """Minutes between validations, whichever comes first; 0: only updates count."""
    patience: Natural = 0
    """Validations without a better score after which training ends; 0: it goes on to the last step."""
    save_every: Count = 200
    """Updates between checkpoints that `resume` can continue from."""
    save_minutes: NonNegative = 0.0
    """Minutes between such checkpoints, whichever comes first; 0: only updates count."""
    workers: Processes = 2
    """Processes that load images; 0: load in the main process."""
    threads: Processes = 0
    """CPU threads of the network; 0: torch's default. If loading is slow, leave a core for each worker."""
    seed: Seed = 0
    """Seed of everything random."""
    compile: bool = False
    """Compile the network with torch.compile."""
    shard: bool = False
    """Of several processes, each keeps a part of the weights (FSDP): for encoders that do not fit one device."""

    @property
    def warmup_steps(self) -> int:
        """Updates of warm-up."""
        return round(self.warmup * self.steps if self.warmup < 1 else self.warmup)


@dataclass
class Inference:
    """Scale and sliding window; sizes in pixels at that scale."""

    window: tuple[Pixels, Pixels] = (512, 512)
    """Height and width of a window; smaller images are taken whole."""
    stride: tuple[Pixels, Pixels] = (480, 480)
    """Pixels from one window to the next."""
    batch: Batch = 4
    """Windows in one forward pass."""
    enlarge: bool = False
    """Enlarge smaller images to the window, as the published Segmenter does, instead of taking them whole."""
    native: bool = False
    """Keep an image's own scale instead of resizing it to the training scale."""


@dataclass
class Recipe:
    """Everything that decides how a model is trained."""

    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=MaskTransformer)
    depth: Depth = field(default_factory=Depth)
    train: Train = field(default_factory=Train)
    inference: Inference = field(default_factory=Inference)

    @property
    def task(self) -> Task:
        """What the model predicts for every pixel; the decoder alone determines it."""
        return self.decoder.task


def without_auxiliary(recipe: Recipe) -> Recipe:
    """The recipe of the same network without auxiliary decoders."""
    if getattr(recipe.decoder, "auxiliary", 0.0) == 0.0:
        return recipe
    return replace(recipe, decoder=replace(recipe.decoder, auxiliary=0.0))
