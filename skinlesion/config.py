"""The schema of every configuration: one dataclass a node, its units, meanings and ranges.

Values live in YAML under `conf/`; nothing here has a default. `gate.typed` merges one into the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skinlesion.errors import ConfigError


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{key}={value}: expected {expected}")


def _choice(key: str, value: str, choices: Sequence[str]) -> None:
    _require(value in choices, key, value, f"one of {', '.join(choices)}")


@dataclass
class DataConfig:
    """Where the images and the table are, and how they are read."""

    root: str  # folder that holds the table and the image folders
    table: str  # file name of the table in root; its extension may be left out
    images: list[str]  # names of the image folders in root
    missing_images: str  # error | drop: what to do with rows without an image
    extra_images: str  # error | ignore: what to do with images without a row
    cache_dir: str  # folder of decoded images and frozen features; safe to delete

    def __post_init__(self) -> None:
        _choice("data.missing_images", self.missing_images, ("error", "drop"))
        _choice("data.extra_images", self.extra_images, ("error", "ignore"))
        _require(len(self.images) > 0, "data.images", self.images, "at least one folder name")


@dataclass
class SplitConfig:
    """How lesions are divided into training, validation and test."""

    policy: str  # published | grouped | file
    seed: int  # of the shuffles, published and grouped
    folds: int  # number of folds, grouped
    fold: int  # 0 .. folds - 1: the fold that is the test part, grouped
    val_fraction: float  # share of the remaining images that validates, grouped
    file: str | None  # CSV with image_id, lesion_id, split, file

    def __post_init__(self) -> None:
        _choice("split.policy", self.policy, ("published", "grouped", "file"))
        _require(self.seed >= 0, "split.seed", self.seed, "a whole number >= 0")
        _require(self.folds >= 2, "split.folds", self.folds, "at least 2")
        _require(0 <= self.fold < self.folds, "split.fold", self.fold, f"0 to {self.folds - 1} (split.folds - 1)")
        _require(0 < self.val_fraction < 0.5, "split.val_fraction", self.val_fraction, "more than 0, less than 0.5")
        _require(
            self.policy != "file" or self.file is not None,
            "split.file",
            self.file,
            "the CSV of a split (split.policy=file)",
        )


@dataclass
class AugmentConfig:
    """Random changes of training images."""

    flip: float  # probability of each of the two flips
    rotation: float  # degrees, either way
    shift: float  # fraction of the side, either way
    zoom: float  # fraction of the scale, either way
    brightness: float  # fraction, either way
    contrast: float  # fraction, either way
    hue: float  # fraction of the colour circle, either way
    saturation: float  # fraction, either way
    square: float  # probability that only a square part is seen, fitted as a square photograph would be
    square_side: float  # least side of that square, as a fraction of the image's shorter side

    def __post_init__(self) -> None:
        _require(0 <= self.hue <= 0.5, "augment.hue", self.hue, "0 to 0.5")
        _require(0 <= self.square <= 1, "augment.square", self.square, "0 to 1")
        _require(0.1 <= self.square_side <= 1, "augment.square_side", self.square_side, "0.1 to 1")
        _require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "0 to 180 degrees")
        for key in ("flip", "shift", "zoom", "brightness", "contrast", "saturation"):
            value = getattr(self, key)
            _require(
                0 <= value <= (1 if key == "flip" else 0.9),
                f"augment.{key}",
                value,
                "a fraction, 0 to 0.9 (flip: 1)",
            )


@dataclass
class ModelConfig:
    """The network: a timm backbone, then fusion, attention and funnel."""

    name: str  # short name, used in folder names
    backbone: str  # timm's name
    backbone_kwargs: dict[str, Any]  # passed on to timm.create_model
    feature_level: int | str | None  # null: the last feature map; a level's index; or a module's name
    batch_norm_eps: float | None  # null: timm's own
    pretrained: bool | str  # true: timm's hub; false: random; or a safetensors or torch file
    missing_weights: str  # error | initialise: what to do when that file lacks weights of the backbone
    image_size: list[int] | None  # [height, width] in pixels; null: the backbone's own
    mean: list[float] | None  # of RGB in 0..1; null: the backbone's own
    std: list[float] | None  # of RGB in 0..1; null: the backbone's own
    fusion: str  # gate | concatenate | none: how the metadata enter
    gate_hidden: int  # units of the gate's hidden layer
    gate_noise: float  # sigma of the Gaussian noise behind it, training only
    gate_alpha: float  # initial value of the gate's learned strength
    fact_dropout: float  # probability with which each fact is hidden in training
    attention: str  # cbam | channel | none
    reduction: int  # of the channel attention's shared MLP
    spatial_kernel: int  # side of the spatial attention's convolution, odd
    funnel: list[int]  # widths of the dense layers
    dropout: float  # behind the first dense layer; halved at each further one
    high: int | str  # where the high stages begin: a count from the top, or a module's name
    middle: int | str  # where the middle stages begin, likewise

    def __post_init__(self) -> None:
        _choice("model.missing_weights", self.missing_weights, ("error", "initialise"))
        _choice("model.fusion", self.fusion, ("gate", "concatenate", "none"))
        _choice("model.attention", self.attention, ("cbam", "channel", "none"))
        for key in ("gate_hidden", "reduction", "spatial_kernel"):
            _require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")
        _require(self.spatial_kernel % 2 == 1, "model.spatial_kernel", self.spatial_kernel, "an odd number")
        _require(self.gate_noise >= 0, "model.gate_noise", self.gate_noise, "0 or more")
        for key in ("fact_dropout", "dropout"):
            _require(0 <= getattr(self, key) < 1, f"model.{key}", getattr(self, key), "0 or more, less than 1")
        _require(all(width >= 1 for width in self.funnel), "model.funnel", self.funnel, "widths of at least 1")
        self._check_input()

    def _check_input(self) -> None:
        size = self.image_size
        fits = size is None or (len(size) == 2 and min(size) >= 16)
        _require(fits, "model.image_size", size, "[height, width] of at least 16 pixels, or null")
        for key in ("mean", "std"):
            value = getattr(self, key)
            fits = value is None or (len(value) == 3 and all(0 <= part <= 1 for part in value))
            _require(fits, f"model.{key}", value, "three numbers, 0 to 1, or null")
        _require(self.std is None or min(self.std) > 0, "model.std", self.std, "numbers above 0")


@dataclass
class LossConfig:
    """The focal loss."""

    name: str  # short name, used in folder names
    alpha: float  # exponent of the inverse class frequency; 0: equal weights
    gamma: float  # focusing parameter; 0: cross-entropy
    smoothing: float  # label smoothing

    def __post_init__(self) -> None:
        _require(self.alpha >= 0, "loss.alpha", self.alpha, "0 or more")
        _require(self.gamma >= 0, "loss.gamma", self.gamma, "0 or more")
        _require(0 <= self.smoothing < 1, "loss.smoothing", self.smoothing, "0 or more, less than 1")


@dataclass
class PhaseConfig:
    """One phase of training: what is trained, how fast, for how long."""

    unfreeze: int | str | None  # null: the backbone stays frozen; stages from the top; or the module to begin at
    epochs: int  # at most
    patience: int  # epochs without a better val/loss before the phase ends
    rate: float  # learning rate of the head
    backbone_rate: float  # learning rate of the unfrozen stages
    warmup_epochs: float  # epochs of linear warm-up to the rate
    final_rate_fraction: float  # cosine decay ends at this fraction of the rate; 1: no decay
    mixup: float  # concentration of the Beta distribution by which two items are blended; 0: they are not
    views: int  # views of each image whose maps, of what is frozen, are cached; 0: no cache, a new view each epoch


@dataclass
class ScheduleConfig:
    """The phases, in order."""

    name: str  # short name
    weight_decay: float  # of AdamW; not on norms, biases and the gate's alpha
    phases: dict[str, PhaseConfig]  # by name, in the order in which they run

    def __post_init__(self) -> None:
        _require(self.weight_decay >= 0, "schedule.weight_decay", self.weight_decay, "0 or more")
        _require(len(self.phases) > 0, "schedule.phases", {}, "at least one phase")
        for name, phase in self.phases.items():
            _check_phase(f"schedule.phases.{name}", phase)


def _check_phase(key: str, phase: PhaseConfig) -> None:
    for name, least in (
        ("epochs", 1),
        ("patience", 1),
        ("backbone_rate", 0),
        ("warmup_epochs", 0),
        ("mixup", 0),
        ("views", 0),
    ):
        value = getattr(phase, name)
        _require(value >= least, f"{key}.{name}", value, f"{least} or more")
    _require(phase.rate > 0, f"{key}.rate", phase.rate, "more than 0")
    fraction = phase.final_rate_fraction
    _require(0 < fraction <= 1, f"{key}.final_rate_fraction", fraction, "more than 0, at most 1")


@dataclass
class LoaderConfig:
    """How batches are made."""

    batch_size: int  # images
    workers: int  # processes that augment; 0: the training process itself

    def __post_init__(self) -> None:
        _require(self.batch_size >= 2, "loader.batch_size", self.batch_size, "at least 2 (batch norm)")
        _require(self.workers >= 0, "loader.workers", self.workers, "0 or more")


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, by its own names."""

    accelerator: str
    devices: int | str
    num_nodes: int
    strategy: str
    precision: int | str
    gradient_clip_val: float | None
    accumulate_grad_batches: int
    deterministic: bool
    benchmark: bool
    sync_batchnorm: bool
    log_every_n_steps: int
    limit_train_batches: int | float
    limit_val_batches: int | float
    enable_progress_bar: bool

    def __post_init__(self) -> None:
        _require(str(self.devices) == "1", "trainer.devices", self.devices, "1: several devices are not supported yet")
        _require(self.num_nodes == 1, "trainer.num_nodes", self.num_nodes, "1: several machines are not supported yet")
        _choice("trainer.precision", str(self.precision), ("32-true", "32", "16-mixed", "bf16-mixed"))
        for key in ("num_nodes", "accumulate_grad_batches", "log_every_n_steps"):
            _require(getattr(self, key) >= 1, f"trainer.{key}", getattr(self, key), "at least 1")
        clip = self.gradient_clip_val
        _require(clip is None or clip > 0, "trainer.gradient_clip_val", clip, "more than 0, or null")
        for key in ("limit_train_batches", "limit_val_batches"):
            value = getattr(self, key)
            fits = value >= 1 if isinstance(value, int) else 0 < value <= 1
            _require(fits, f"trainer.{key}", value, "a number of batches, or a fraction above 0, at most 1.0")


def _seed(seed: int) -> None:
    _require(0 <= seed < 2**32, "seed", seed, "a whole number, 0 to 2**32 - 1")


@dataclass
class TrainConfig:
    """`skinlesion train`."""

    out: str  # folder of the run; of a sweep: the folder that holds a folder for each member
    member: str | None  # name of the member's folder in a sweep; null: job number, model and loss
    expected_members: int | None  # of the whole sweep; `ensemble` refuses another number
    seed: int  # of weights, shuffles, augmentation, dropout
    resume: str  # auto | restart: go on with what lies in out, or delete it first
    logger: str  # tensorboard | none
    data: DataConfig
    split: SplitConfig
    augment: AugmentConfig
    model: ModelConfig
    loss: LossConfig
    schedule: ScheduleConfig
    loader: LoaderConfig
    trainer: TrainerConfig

    def __post_init__(self) -> None:
        _seed(self.seed)
        _require(self.out.strip() != "", "out", self.out, "a folder")
        _choice("resume", self.resume, ("auto", "restart"))
        _choice("logger", self.logger, ("tensorboard", "none"))


@dataclass
class SourceConfig:
    """Where a trained model finds the images; null: where it was trained."""

    root: str | None  # folder that holds the table and the image folders
    cache_dir: str | None  # folder of decoded images; safe to delete


def _check_tta(tta: str | None) -> None:
    if tta is not None:
        _choice("tta", tta, ("none", "flips", "dihedral"))


def _one_model(checkpoint: str | None, ensemble: str | None) -> None:
    given = [value for value in (checkpoint, ensemble) if value is not None]
    if len(given) != 1:
        raise ConfigError(f"{len(given)} models given: expected one, as checkpoint=best.ckpt or ensemble=ensemble.json")


@dataclass
class EvaluateConfig:
    """`skinlesion evaluate`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    split: str  # val | test
    out: str | None  # folder of the results; null: a folder beside the model
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap
    tta: str | None  # none | flips | dihedral: which turns of an image vote; null: those of the ensemble, or none
    bins: int  # of the reliability diagram
    accelerator: str  # auto | cpu | gpu …, as Lightning names them
    data: SourceConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        _choice("split", self.split, ("val", "test"))
        _seed(self.seed)
        _check_tta(self.tta)
        _one_model(self.checkpoint, self.ensemble)
        _require(self.bins >= 2, "bins", self.bins, "at least 2")
        _check_bootstrap(self.resamples, self.level)


def _check_bootstrap(resamples: int, level: float) -> None:
    _require(resamples >= 100, "resamples", resamples, "at least 100")
    _require(0.5 <= level < 1, "level", level, "0.5 or more, less than 1")


@dataclass
class EnsembleConfig:
    """`skinlesion ensemble`."""

    members: Any  # a sweep's folder, or a list of checkpoints
    expected: int | None  # number of members; null: what the sweep announced, or any number
    out: str | None  # folder of the ensemble; null: `ensemble` in the sweep's folder
    tta: str  # none | flips | dihedral: which turns of an image vote
    smallest: int  # size of the subsets that are searched
    largest: int
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap
    accelerator: str  # auto | cpu | gpu …, for members without predictions tables
    data: SourceConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        _seed(self.seed)
        _check_tta(self.tta)
        listed = isinstance(self.members, list) and all(isinstance(member, str) for member in self.members)
        named = (isinstance(self.members, str) or listed) and len(self.members) > 0
        _require(named, "members", self.members, "a sweep's folder or a list of checkpoints")
        _require(self.expected is None or self.expected >= 2, "expected", self.expected, "at least 2, or null")
        _require(1 <= self.smallest <= self.largest, "smallest", self.smallest, f"1 to {self.largest} (largest)")
        _require(
            not isinstance(self.members, list) or self.out is not None,
            "out",
            self.out,
            "a folder, where members is a list",
        )
        _check_bootstrap(self.resamples, self.level)


@dataclass
class PredictConfig:
    """`skinlesion predict`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    image: str  # a file or a folder
    age: float | None  # years
    sex: str | None  # female | male
    localization: str | None  # as in HAM10000: back, face, scalp, …
    tta: str | None  # none | flips | dihedral: which turns of an image vote; null: those of the ensemble, or none
    format: str  # table | json
    accelerator: str  # auto | cpu | gpu …
    loader: LoaderConfig

    def __post_init__(self) -> None:
        _check_tta(self.tta)
        _one_model(self.checkpoint, self.ensemble)
        _choice("format", self.format, ("table", "json"))
        _require(self.age is None or 0 <= self.age <= 120, "age", self.age, "0 to 120 years, or null")


@dataclass
class AuditConfig:
    """`skinlesion audit`."""

    out: str  # folder of the results
    distance: int  # Hamming distance of 64-bit perceptual hashes up to which two images may be near duplicates
    similarity: float  # correlation of their fine detail from which they are
    image_size: list[int]  # [height, width] in pixels at which images are compared and shown
    each: int  # images of each diagnosis on the sample sheet
    seed: int  # of the sample sheet
    data: DataConfig
    split: SplitConfig

    def __post_init__(self) -> None:
        _seed(self.seed)
        _require(0 <= self.distance <= 32, "distance", self.distance, "0 to 32 bits")
        _require(0 < self.similarity <= 1, "similarity", self.similarity, "more than 0, at most 1")
        _require(1 <= self.each <= 20, "each", self.each, "1 to 20")
        _require(
            len(self.image_size) == 2 and min(self.image_size) >= 32,
            "image_size",
            self.image_size,
            "[height, width] >= 32",
        )


@dataclass
class PhantomRootConfig:
    """Where the synthetic data set goes."""

    root: str  # a folder of its own


@dataclass
class PhantomConfig:
    """`skinlesion phantom`."""

    n: int  # images
    image_size: list[int]  # [height, width] in pixels
    seed: int
    data: PhantomRootConfig

    def __post_init__(self) -> None:
        _require(self.n >= 1, "n", self.n, "at least 1")
        _require(
            len(self.image_size) == 2 and min(self.image_size) >= 32,
            "image_size",
            self.image_size,
            ">= 32 pixels",
        )
