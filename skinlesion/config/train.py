"""The schema of `skinlesion train`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_choice, require_seed
from skinlesion.config.data import AugmentConfig, LoaderConfig, SplitConfig, TrainingDataConfig
from skinlesion.config.model import LossConfig, ModelConfig
from skinlesion.config.schedule import ScheduleConfig
from skinlesion.config.speed import SpeedConfig


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
        require(str(self.devices) == "1", "trainer.devices", self.devices, "1: several devices are not supported yet")
        require(self.num_nodes == 1, "trainer.num_nodes", self.num_nodes, "1: several machines are not supported yet")
        require_choice("trainer.precision", str(self.precision), ("32-true", "32", "16-mixed", "bf16-mixed"))
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
    member: str | None  # name of the member's folder in a sweep; null: job number, model and loss
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
