"""The schema of `skinlesion train`: phases, trainer, speed and the run as a whole."""

from dataclasses import dataclass
from typing import Annotated, Any

from skinlesion.config.data import AugmentConfig, LoaderConfig, SplitConfig, TrainingDataConfig
from skinlesion.config.model import LossConfig, ModelConfig
from skinlesion.config.schema import Count, OneOf, PathText, Positive, Range, Seed, require, require_choice

# Sharded and spawning strategies leave a module behind that the next phase cannot train.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
PRECISIONS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16", "16-true", "bf16-true", "64-true", "64")

_NotNegative = Annotated[float, Range(0)]


@dataclass
class PhaseConfig:
    """One phase of training: which layers train, how fast, for how long."""

    unfreeze: int | str | None  # where training begins: stages from the top, or a module's name; null: the head alone
    epochs: Count  # largest number of epochs
    patience: Count  # epochs without a lower val/loss after which the phase ends
    lr: Positive  # learning rate of the head
    backbone_lr: _NotNegative  # learning rate of the unfrozen stages
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

    def __post_init__(self) -> None:
        listed = isinstance(self.devices, list) and len(self.devices) > 0
        several = listed and all(type(device) is int and device >= 0 for device in self.devices)
        counted = type(self.devices) is int and (self.devices >= 1 or self.devices == -1)
        named = isinstance(self.devices, str) and self.devices != ""
        expected = "a number from 1, or auto, or a list of GPUs, such as [0,1]"
        require(several or counted or named, "trainer.devices", self.devices, expected)
        require_choice("trainer.precision", str(self.precision), PRECISIONS)
        for key in ("limit_train_batches", "limit_val_batches"):
            value = getattr(self, key)
            fits = value >= 1 if isinstance(value, int) else 0 < value <= 1
            require(fits, f"trainer.{key}", value, "a number of batches, or a fraction above 0, at most 1.0")


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
    logger: Annotated[str, OneOf(("tensorboard", "none"))]  # logger beside metrics.csv
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
