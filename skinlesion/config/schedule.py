"""The phases of training."""

from dataclasses import dataclass

from skinlesion.config.checks import require


@dataclass
class PhaseConfig:
    """One phase of training: what is trained, how fast, for how long."""

    unfreeze: int | str | None  # null: the backbone stays frozen; stages from the top; or the module to begin at
    epochs: int  # at most
    patience: int  # epochs without a better val/loss before the phase ends
    lr: float  # learning rate of the head
    backbone_lr: float  # learning rate of the unfrozen stages
    warmup_epochs: float  # epochs of linear warm-up to the rate
    final_lr_fraction: float  # cosine decay ends at this fraction of the rate; 1: no decay
    ema_decay: float  # decay per step of the exponential moving average of the weights that is kept; 0: none
    mixup: float  # concentration of the Beta distribution by which two items are blended; 0: they are not
    cached_views: int  # augmented views of each image whose frozen feature maps are cached; 0: a new view each epoch


@dataclass
class ScheduleConfig:
    """The phases, in order."""

    name: str  # short name
    weight_decay: float  # of AdamW; not on norms, biases and the gate's alpha
    phases: dict[str, PhaseConfig]  # by name, in the order in which they run

    def __post_init__(self) -> None:
        require(self.weight_decay >= 0, "schedule.weight_decay", self.weight_decay, "0 or more")
        require(len(self.phases) > 0, "schedule.phases", {}, "at least one phase")
        for name, phase in self.phases.items():
            _check_phase(f"schedule.phases.{name}", phase)


def _check_phase(key: str, phase: PhaseConfig) -> None:
    for name, least in (
        ("epochs", 1),
        ("patience", 1),
        ("backbone_lr", 0),
        ("warmup_epochs", 0),
        ("mixup", 0),
        ("cached_views", 0),
    ):
        value = getattr(phase, name)
        require(value >= least, f"{key}.{name}", value, f"{least} or more")
    require(phase.lr > 0, f"{key}.lr", phase.lr, "more than 0")
    require(0 <= phase.ema_decay < 1, f"{key}.ema_decay", phase.ema_decay, "0 or more, less than 1")
    fraction = phase.final_lr_fraction
    require(0 < fraction <= 1, f"{key}.final_lr_fraction", fraction, "more than 0, at most 1")
