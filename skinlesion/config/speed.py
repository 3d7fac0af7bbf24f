"""What changes how fast a training is, and its result by rounding alone."""

from dataclasses import dataclass

from skinlesion.config.checks import require_choice


@dataclass
class SpeedConfig:
    """Switches of `skinlesion train`; docs/performance.md says what each gains, and where it does not."""

    channels_last: bool  # the channels of a pixel stand together in memory
    fused_optimizer: bool  # AdamW as one kernel instead of many
    compile: str  # none, or the mode of torch.compile: default | reduce-overhead (CUDA graphs) | max-autotune

    def __post_init__(self) -> None:
        modes = ("none", "default", "reduce-overhead", "max-autotune")
        require_choice("speed.compile", self.compile, modes)
