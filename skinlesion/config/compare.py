"""The schema of `skinlesion compare`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_bootstrap, require_seed


@dataclass
class CompareConfig:
    """`skinlesion compare`."""

    tables: list[str]  # predictions tables, the reference first; all files that one pattern (*) names are pooled
    out: str | None  # JSON file with all numbers; null: none is written
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap
    bins: int  # of the calibration errors

    def __post_init__(self) -> None:
        require(len(self.tables) > 0, "tables", self.tables, "at least one predictions table")
        require(len(set(self.tables)) == len(self.tables), "tables", self.tables, "each table once")
        require_bootstrap(self.resamples, self.level, self.interval)
        require_seed(self.seed)
        require(self.bins >= 2, "bins", self.bins, "at least 2")
