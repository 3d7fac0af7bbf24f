"""The schema of `skinlesion train`."""

from dataclasses import dataclass
from typing import Any

from skinlesion.config.checks import require, require_choice, require_seed
from skinlesion.config.data import AugmentConfig, LoaderConfig, SplitConfig, TrainingDataConfig
from skinlesion.config.model import LossConfig, ModelConfig
from skinlesion.config.schedule import ScheduleConfig
from skinlesion.config.speed import SpeedConfig

# Sharded and spawning strategies leave a module behind that the next phase cannot train.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
PRECISIONS = ("32-true", "32", "16-mixed", "16", "bf16-mixed", "bf16", "16-true", "bf16-true", "64-true", "64")


@dataclass
class TrainerConfig:
    """Arguments of lightning.Trainer, by its own names."""

    accelerator: str  # auto | cpu | gpu …
    devices: Any  # how many on a machine; or which, [0,2]; or auto: all of them
    num_nodes: int  # machines
    strategy: str  # auto | ddp …: how several devices train one model
    precision: int | str  # 32-true | bf16-mixed | 16-mixed …
    gradient_clip_val: float | None  # largest norm of the gradient; null: no limit
    accumulate_grad_batches: int  # batches a step
    deterministic: bool  # the same result each time, on the same machine
    benchmark: bool  # let cuDNN try which algorithm is fastest
    sync_batchnorm: bool  # one batch norm over several GPUs
    log_every_n_steps: int
    limit_train_batches: int | float  # of an epoch: a number, or a fraction
    limit_val_batches: int | float
    enable_progress_bar: bool

    def __post_init__(self) -> None:
        listed = isinstance(self.devices, list) and len(self.devices) > 0
        several = listed and all(type(device) is int and device >= 0 for device in self.devices)
        counted = type(self.devices) is int and (self.devices >= 1 or self.devices == -1)
        named = isinstance(self.devices, str) and self.devices != ""
        expected = "a number from 1, or auto, or a list of GPUs, such as [0,1]"
        require(several or counted or named, "trainer.devices", self.devices, expected)
        require_choice("trainer.strategy", self.strategy, STRATEGIES)
        require_choice("trainer.precision", str(self.precision), PRECISIONS)
        for key in ("num_nodes", "accumulate_grad_batches", "log_every_n_steps"):
            require(getattr(self, key) >= 1, f"trainer.{key}", getattr(self, key), "at least 1")
        clip = self.gradient_clip_val
        require(clip is None or clip > 0, "trainer.gradient_clip_val", clip, "more than 0, or null")
        for key in ("limit_train_batches", "limit_val_batches"):
            value = getattr(self, key)
            fits = value >= 1 if isinstance(value, int) else 0 < value <= 1
            require(fits, f"trainer.{key}", value, "a number of batches, or a fraction above 0, at most 1.0")


@dataclass
class TrainConfig:
    """`skinlesion train`."""

    out: str  # folder of the run; of a sweep: the folder that holds a folder for each member
    member: str | None  # name of the member's folder in a sweep; null: model, loss and what is swept
    expected_members: int | None  # of the whole sweep; `ensemble` refuses another number
    seed: int  # of weights, shuffles, augmentation, dropout
    resume: str  # auto | restart: go on with what lies in out, or delete it first
    logger: str  # tensorboard | none
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
        require_seed(self.seed)
        require(self.out.strip() != "", "out", self.out, "a folder")
        require_choice("resume", self.resume, ("auto", "restart"))
        require_choice("logger", self.logger, ("tensorboard", "none"))
