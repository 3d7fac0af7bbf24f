"""The schema of `skinlesion ensemble`."""

from dataclasses import dataclass
from typing import Any

from skinlesion.config.checks import (
    require,
    require_bootstrap,
    require_choice,
    require_seed,
    require_shares,
    require_tta,
)
from skinlesion.config.data import LoaderConfig, SourceConfig


@dataclass
class EnsembleConfig:
    """`skinlesion ensemble`."""

    members: Any  # a sweep's folder, or a list of checkpoints
    expected: int | None  # number of members; null: what the sweep announced, or any number
    out: str | None  # folder of the ensemble; null: `ensemble` in the sweep's folder
    tta: str  # none | flips | dihedral: which turns of an image vote
    smallest: int  # size of the subsets that are searched
    largest: int
    calibration: str  # temperature | vector | none: how the mean of the members is calibrated
    sensitivities: list[float]  # that the operating points are to reach on validation
    alphas: list[float]  # shares of images whose prediction set may lack the actual diagnosis; the first is in use
    conformal: str  # aps | raps: the score of the prediction sets
    id_pass_rate: float | None  # share of validation images that is not flagged as novel; null: novelty is not judged
    bins: int  # of the calibration errors
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap
    accelerator: str  # auto | cpu | gpu …, for members without predictions tables
    data: SourceConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require_tta(self.tta)
        listed = isinstance(self.members, list) and all(isinstance(member, str) for member in self.members)
        named = (isinstance(self.members, str) or listed) and len(self.members) > 0
        require(named, "members", self.members, "a sweep's folder or a list of checkpoints")
        require(self.expected is None or self.expected >= 2, "expected", self.expected, "at least 2, or null")
        require(1 <= self.smallest <= self.largest, "smallest", self.smallest, f"1 to {self.largest} (largest)")
        require(
            not isinstance(self.members, list) or self.out is not None,
            "out",
            self.out,
            "a folder, where members is a list",
        )
        require_bootstrap(self.resamples, self.level, self.interval)
        require_choice("calibration", self.calibration, ("temperature", "vector", "none"))
        require_choice("conformal", self.conformal, ("aps", "raps"))
        expected = "more than 0, less than 1, or null"
        require(self.id_pass_rate is None or 0 < self.id_pass_rate < 1, "id_pass_rate", self.id_pass_rate, expected)
        require(self.bins >= 2, "bins", self.bins, "at least 2")
        require_shares("sensitivities", self.sensitivities, "0.9")
        require_shares("alphas", self.alphas, "0.1")
