"""The schema of `skinlesion audit`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_seed
from skinlesion.config.data import DataConfig, SplitConfig


@dataclass
class AuditConfig:
    """`skinlesion audit`."""

    out: str  # folder of the results
    distance: int  # Hamming distance of 64-bit perceptual hashes up to which two images may be near duplicates
    similarity: float  # correlation of their fine detail from which they are
    image_size: list[int]  # [height, width] in pixels at which images are compared and shown
    samples_per_class: int  # images of each diagnosis on the sample sheet
    seed: int  # of the sample sheet
    data: DataConfig
    split: SplitConfig

    def __post_init__(self) -> None:
        require_seed(self.seed)
        require(0 <= self.distance <= 32, "distance", self.distance, "0 to 32 bits")
        require(0 < self.similarity <= 1, "similarity", self.similarity, "more than 0, at most 1")
        require(1 <= self.samples_per_class <= 20, "samples_per_class", self.samples_per_class, "1 to 20")
        require(
            len(self.image_size) == 2 and min(self.image_size) >= 32,
            "image_size",
            self.image_size,
            "[height, width] >= 32",
        )
