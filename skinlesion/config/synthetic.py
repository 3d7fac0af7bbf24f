"""The schema of `skinlesion synthetic`."""

from dataclasses import dataclass

from skinlesion.config.checks import require


@dataclass
class SyntheticRootConfig:
    """Where the synthetic data set goes."""

    root: str  # a folder of its own


@dataclass
class SyntheticConfig:
    """`skinlesion synthetic`."""

    n: int  # images
    image_size: list[int]  # [height, width] in pixels
    seed: int
    data: SyntheticRootConfig

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        require(
            len(self.image_size) == 2 and min(self.image_size) >= 32,
            "image_size",
            self.image_size,
            ">= 32 pixels",
        )
