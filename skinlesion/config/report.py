"""The schema of `skinlesion report`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_bootstrap, require_seed


@dataclass
class PrevalenceConfig:
    """The share of images that are of a target where the model would be used; null: that of the test part alone."""

    mel: float | None  # melanoma
    malignant: float | None  # melanoma, basal cell carcinoma, actinic keratosis and Bowen's disease

    def __post_init__(self) -> None:
        for name in ("mel", "malignant"):
            share = getattr(self, name)
            require(share is None or 0 < share < 1, f"prevalence.{name}", share, "more than 0, less than 1, or null")


@dataclass
class ReportConfig:
    """`skinlesion report`."""

    ensemble: str  # an ensemble.json, or its folder
    out: str | None  # folder of the report; null: `report` beside the ensemble
    metadata: str | None  # table of sex, age, localization, dataset, dx_type; null: the one that the members trained on
    robustness: str | None  # folder that `robustness` left; null: the one beside the ensemble, if there is one
    explanations: str | None  # folder that `explain` left; null: the one beside the ensemble, if there is one
    external: list[str]  # folders that `evaluate external.images=…` left; []: the one beside the ensemble
    samples: bool  # show photographs of patients in the page; keep false where the page is to be passed on
    author: str | None  # who answers for the model; null: to be answered by the author
    prevalence: PrevalenceConfig
    bins: int  # of the calibration errors and diagrams
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require_bootstrap(self.resamples, self.level, self.interval)
        require(self.bins >= 2, "bins", self.bins, "at least 2")
        require(len(self.ensemble) > 0, "ensemble", self.ensemble, "an ensemble.json or its folder")
