"""The schema of `skinlesion train`: network, loss, phases, trainer, speed and the run as a whole."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from skinlesion.config.data import (
    AugmentConfig,
    LoaderConfig,
    SplitConfig,
    TaxonomyConfig,
    TrainingDataConfig,
    require_known_classes,
)
from skinlesion.config.schema import (
    Count,
    OneOf,
    PathText,
    Positive,
    Range,
    Seed,
    require,
    require_choice,
    require_size,
)

_Probability = Annotated[float, Range(0, 1, below=True)]
_Rgb = Annotated[float, Range(0, 1)]


@dataclass
class ModelConfig:
    """The network: a timm backbone, then fusion, attention and funnel."""

    name: str  # short name, used in folder names
    backbone: str  # name of the backbone in timm, such as resnet50, or hf_hub:OWNER/REPOSITORY
    backbone_kwargs: dict[str, Any]  # further arguments of timm.create_model
    feature_level: int | str | None  # feature map to take: a level's index or a module's name; null: the last one
    batch_norm_eps: float | None  # epsilon of the backbone's batch norm; null: timm's own
    pretrained: bool | PathText  # true: timm's hub; false: random; a weight file, or a run's checkpoint to go on from
    missing_weights: Annotated[str, OneOf(("error", "initialise"))]  # what to do when that file lacks some weights
    image_size: list[int] | None  # height and width in pixels, 16 or more, such as [224,224]; null: the backbone's own
    padding: bool  # whether an image of another aspect is padded with black to that size; false: predicted as it is
    mean: list[_Rgb] | None  # mean of red, green and blue in 0 to 1; null: the backbone's own
    std: list[_Rgb] | None  # standard deviation of red, green and blue in 0 to 1; null: the backbone's own
    fusion: Annotated[
        str, OneOf(("gate", "film", "metablock", "concatenate", "none"))
    ]  # how metadata enter the network
    gate_hidden: Count  # units of the hidden layer of the gate or of FiLM
    gate_noise: Annotated[float, Range(0)]  # sigma of the Gaussian noise behind that layer, in training only
    gate_alpha: float  # initial value of the gate's learned strength
    fact_dropout: _Probability  # probability that each of age, sex and localization is hidden in training
    attention: Annotated[str, OneOf(("cbam", "channel", "none"))]  # attention on the feature map
    reduction: Count  # reduction ratio of the channel attention's shared MLP
    spatial_kernel: Count  # side of the spatial attention's convolution in pixels of the feature map, odd
    funnel: list[Count]  # widths of the dense layers in units; []: none
    dropout: _Probability  # dropout behind the first dense layer, halved at each further one
    high: int | str  # where the high stages begin: stages from the top, a module, or -1: the last feature level
    middle: int | str  # where the middle stages begin, likewise; -2: the last two levels, of a ViT thirds of its depth

    def __post_init__(self) -> None:
        require(self.spatial_kernel % 2 == 1, "model.spatial_kernel", self.spatial_kernel, "an odd number")
        require_size("model.image_size", self.image_size, least=16)
        for key in ("mean", "std"):
            value = getattr(self, key)
            require(value is None or len(value) == 3, f"model.{key}", value, "three numbers, 0 to 1, or null")
        require(self.std is None or min(self.std) > 0, "model.std", self.std, "numbers above 0")


@dataclass
class LossConfig:
    """The focal loss."""

    name: str  # short name, used in folder names
    alpha: Annotated[float, Range(0)]  # exponent of the inverse class frequency; 0: equal class weights
    gamma: Annotated[float, Range(0)]  # focusing parameter; 0: cross-entropy
    smoothing: _Probability  # of the probability in the logarithm: bounds the loss, no label smoothing; 0: unbounded


# Sharded and spawning strategies leave a module behind that the next phase cannot train.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
PRECISIONS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16", "16-true", "bf16-true", "64-true", "64")

LOGGERS = ("tensorboard", "csv", "wandb", "mlflow", "none")

_NotNegative = Annotated[float, Range(0)]


@dataclass
class PhaseConfig:
    """One phase of training: which layers train, how fast, for how long."""

    unfreeze: int | str | None  # where training begins: stages from the top, or a module's name; null: the head alone
    epochs: Count  # largest number of epochs
    patience: Count  # epochs without a lower val/loss after which the phase ends
    lr: Positive  # learning rate of the head
    backbone_lr: _NotNegative  # learning rate of the unfrozen stages, of the top one
    layer_decay: Annotated[float, Range(0, 1, above=True)]  # learning rate of a stage / that of the one above it
    warmup_epochs: _NotNegative  # epochs of linear warm-up to the learning rate
    final_lr_fraction: Annotated[float, Range(0, 1, above=True)]  # end of cosine decay / learning rate; 1: no decay
    ema_decay: Annotated[float, Range(0, 1, below=True)]  # decay per step of the weights' moving average; 0: none
    mixup: _NotNegative  # concentration of mixup's Beta distribution; 0: no mixup
    cached_views: Annotated[int, Range(0)]  # views of an image with cached frozen maps; 0: new views each epoch


@dataclass
class ScheduleConfig:
    """The phases, in the order in which they run."""

    name: str  # short name
    weight_decay: _NotNegative  # weight decay of AdamW, not on norms, biases and the gate's alpha
    phases: dict[str, PhaseConfig]  # phases by name; ~schedule.phases.NAME leaves one out

    def __post_init__(self) -> None:
        require(len(self.phases) > 0, "schedule.phases", {}, "at least one phase")


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, by its own names."""

    accelerator: str  # device to train on: auto, cpu, gpu, or another that Lightning knows
    devices: Any  # number of devices on a machine, a list of them such as [0,2], or auto for all
    num_nodes: Count  # number of machines
    strategy: Annotated[str, OneOf(STRATEGIES)]  # how several devices train one model
    precision: int | str  # number format: 32-true, bf16-mixed, 16-mixed, or another that Lightning knows
    gradient_clip_val: Positive | None  # largest norm of the gradient; null: no limit
    accumulate_grad_batches: Count  # batches in one optimizer step
    deterministic: bool  # whether the same machine gives the same result each time
    benchmark: bool  # whether cuDNN tries which algorithm is fastest
    sync_batchnorm: bool  # whether batch norm is computed over all GPUs
    log_every_n_steps: Count  # steps between two log entries
    limit_train_batches: int | float  # training batches in an epoch: a number, or a fraction such as 1.0
    limit_val_batches: int | float  # validation batches in an epoch: a number, or a fraction such as 1.0
    enable_progress_bar: bool  # whether a progress bar is shown
    # Null is Lightning's own default:
    fast_dev_run: int | bool | None  # batches of each phase that a trial runs, which keeps nothing; true: 1
    overfit_batches: int | float | None  # training batches, or their fraction, that every epoch repeats
    max_time: str | None  # DD:HH:MM:SS after which a run stops with the end of an epoch; the same command goes on
    min_epochs: Count | None  # smallest number of epochs of a phase
    max_steps: Count | None  # largest number of optimizer steps of a phase
    min_steps: Count | None  # smallest number of optimizer steps of a phase
    check_val_every_n_epoch: Count | None  # epochs from one validation to the next
    val_check_interval: int | float | None  # batches, or fraction of an epoch, from one validation to the next
    gradient_clip_algorithm: Annotated[str | None, OneOf(("norm", "value"))]  # what gradient_clip_val bounds
    detect_anomaly: bool | None  # whether the operation that gives a NaN gradient is named; slow
    profiler: Annotated[str | None, OneOf(("simple", "advanced", "pytorch"))]  # writes times of a phase to `profile`

    def __post_init__(self) -> None:
        listed = isinstance(self.devices, list) and len(self.devices) > 0
        several = listed and all(type(device) is int and device >= 0 for device in self.devices)
        counted = type(self.devices) is int and (self.devices >= 1 or self.devices == -1)
        named = isinstance(self.devices, str) and self.devices != ""
        expected = "a number from 1, or auto, or a list of GPUs, such as [0,1]"
        require(several or counted or named, "trainer.devices", self.devices, expected)
        require_choice("trainer.precision", str(self.precision), PRECISIONS)
        for key in ("limit_train_batches", "limit_val_batches", "overfit_batches"):
            value = getattr(self, key)
            is_off = key == "overfit_batches" and not value
            fits = is_off or (value >= 1 if isinstance(value, int) else 0 < value <= 1)
            require(fits, f"trainer.{key}", value, "a number of batches, or a fraction above 0, at most 1.0")
        require(
            (self.fast_dev_run or 0) >= 0, "trainer.fast_dev_run", self.fast_dev_run, "a number of batches, or true"
        )
        is_time = re.fullmatch(r"\d+(:\d\d){3}", self.max_time or "0:00:00:00")
        require(is_time is not None, "trainer.max_time", self.max_time, "DD:HH:MM:SS, such as 00:08:00:00")

    @property
    def seconds(self) -> float:
        """`max_time` in seconds."""
        if self.max_time is None:
            return math.inf
        days, hours, minutes, seconds = map(int, self.max_time.split(":"))
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass
class SpeedConfig:
    """Settings that change speed, and the result by rounding alone."""

    channels_last: bool  # whether the channels of a pixel stand together in memory
    fused_optimizer: bool  # whether AdamW runs as one kernel
    compile: Annotated[str, OneOf(("none", "default", "reduce-overhead", "max-autotune"))]  # mode of torch.compile


@dataclass
class TrainConfig:
    """`skinlesion train`."""

    out: PathText  # folder of the run; of a sweep: the folder that holds a folder for each member
    member: str | None  # name of the member's folder in a sweep; null: model, loss and the swept keys
    expected_members: int | None  # number of members of the sweep, which `ensemble` checks; null: any
    seed: Seed  # seed of weights, shuffles, augmentation and dropout
    resume: Annotated[str, OneOf(("auto", "restart"))]  # auto: continue a run in that folder; restart: delete it first
    judge: list[
        Annotated[str, OneOf(("val", "test"))]
    ]  # parts to predict and measure in the end; a reading of test is recorded
    logger: Annotated[Any, OneOf(LOGGERS)]  # tracker beside metrics.csv, or a list such as [csv,wandb]
    callbacks: Any  # Lightning's or your own, such as `[{_target_: my.Callback, key: 1}]`, or a mapping; null: none
    taxonomy: TaxonomyConfig
    data: TrainingDataConfig
    split: SplitConfig
    augment: AugmentConfig
    model: ModelConfig
    loss: LossConfig
    schedule: ScheduleConfig
    loader: LoaderConfig
    trainer: TrainerConfig
    speed: SpeedConfig

    def __post_init__(self) -> None:
        require(self.out.strip() != "", "out", self.out, "a folder")
        require_known_classes(self.data, self.taxonomy)
        require(
            "val" in self.judge and len({*self.judge}) == len(self.judge), "judge", self.judge, "[val] or [val,test]"
        )
        chosen = list(map(str, self.logger)) if isinstance(self.logger, list) else [str(self.logger)]
        fits = (
            len({*chosen}) == len(chosen) > 0
            and {*chosen} <= {*LOGGERS}
            and (chosen == ["none"] or "none" not in chosen)
        )
        require(fits, "logger", self.logger, f"{OneOf(LOGGERS)}, or a list of several, such as [csv,wandb]")
        self.callback_specs()

    @property
    def loggers(self) -> list[str]:
        """The trackers, none or several."""
        chosen = self.logger if isinstance(self.logger, list) else [self.logger]
        return [name for name in chosen if name != "none"]

    def callback_specs(self) -> list[dict[str, Any]]:
        """The callbacks, each with its `_target_`.

        Raises:
            ConfigError: One has none.
        """
        specs = list(self.callbacks.values()) if isinstance(self.callbacks, dict) else self.callbacks or []
        fits = isinstance(specs, list) and all(isinstance(each, dict) and "_target_" in each for each in specs)
        require(fits, "callbacks", self.callbacks, "a list of classes, such as [{_target_: my.Callback}]")
        return specs
