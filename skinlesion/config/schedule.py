"""The phases of training."""

from dataclasses import dataclass

from skinlesion.config.checks import require


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
    average: float  # decay, a step, of the moving average of all weights that is judged and kept; 0: no average
    mixup: float  # concentration of the Beta distribution by which two items are blended; 0: they are not
    views: int  # views of each image whose maps, of what is frozen, are cached; 0: no cache, a new view each epoch


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
        ("backbone_rate", 0),
        ("warmup_epochs", 0),
        ("mixup", 0),
        ("views", 0),
    ):
        value = getattr(phase, name)
        require(value >= least, f"{key}.{name}", value, f"{least} or more")
    require(phase.rate > 0, f"{key}.rate", phase.rate, "more than 0")
    require(0 <= phase.average < 1, f"{key}.average", phase.average, "0 or more, less than 1")
    fraction = phase.final_rate_fraction
    require(0 < fraction <= 1, f"{key}.final_rate_fraction", fraction, "more than 0, at most 1")
