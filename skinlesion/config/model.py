"""The network and its loss."""

from dataclasses import dataclass
from typing import Any

from skinlesion.config.checks import require, require_choice


@dataclass
class ModelConfig:
    """The network: a timm backbone, then fusion, attention and funnel."""

    name: str  # short name, used in folder names
    backbone: str  # timm's name
    backbone_kwargs: dict[str, Any]  # passed on to timm.create_model
    feature_level: int | str | None  # null: the last feature map; a level's index; or a module's name
    batch_norm_eps: float | None  # null: timm's own
    pretrained: bool | str  # true: timm's hub; false: random; or a safetensors or torch file
    missing_weights: str  # error | initialise: what to do when that file lacks weights of the backbone
    image_size: list[int] | None  # [height, width] in pixels; null: the backbone's own
    mean: list[float] | None  # of RGB in 0..1; null: the backbone's own
    std: list[float] | None  # of RGB in 0..1; null: the backbone's own
    fusion: str  # gate | concatenate | none: how the metadata enter
    gate_hidden: int  # units of the gate's hidden layer
    gate_noise: float  # sigma of the Gaussian noise behind it, training only
    gate_alpha: float  # initial value of the gate's learned strength
    fact_dropout: float  # probability with which each fact is hidden in training
    attention: str  # cbam | channel | none
    reduction: int  # of the channel attention's shared MLP
    spatial_kernel: int  # side of the spatial attention's convolution, odd
    funnel: list[int]  # widths of the dense layers
    dropout: float  # behind the first dense layer; halved at each further one
    high: int | str  # where the high stages begin: a count from the top, or a module's name
    middle: int | str  # where the middle stages begin, likewise

    def __post_init__(self) -> None:
        require_choice("model.missing_weights", self.missing_weights, ("error", "initialise"))
        require_choice("model.fusion", self.fusion, ("gate", "concatenate", "none"))
        require_choice("model.attention", self.attention, ("cbam", "channel", "none"))
        for key in ("gate_hidden", "reduction", "spatial_kernel"):
            require(getattr(self, key) >= 1, f"model.{key}", getattr(self, key), "at least 1")
        require(self.spatial_kernel % 2 == 1, "model.spatial_kernel", self.spatial_kernel, "an odd number")
        require(self.gate_noise >= 0, "model.gate_noise", self.gate_noise, "0 or more")
        for key in ("fact_dropout", "dropout"):
            require(0 <= getattr(self, key) < 1, f"model.{key}", getattr(self, key), "0 or more, less than 1")
        require(all(width >= 1 for width in self.funnel), "model.funnel", self.funnel, "widths of at least 1")
        self._check_input()

    def _check_input(self) -> None:
        size = self.image_size
        fits = size is None or (len(size) == 2 and min(size) >= 16)
        require(fits, "model.image_size", size, "[height, width] of at least 16 pixels, or null")
        for key in ("mean", "std"):
            value = getattr(self, key)
            fits = value is None or (len(value) == 3 and all(0 <= part <= 1 for part in value))
            require(fits, f"model.{key}", value, "three numbers, 0 to 1, or null")
        require(self.std is None or min(self.std) > 0, "model.std", self.std, "numbers above 0")


@dataclass
class LossConfig:
    """The focal loss."""

    name: str  # short name, used in folder names
    alpha: float  # exponent of the inverse class frequency; 0: equal weights
    gamma: float  # focusing parameter; 0: cross-entropy
    smoothing: float  # label smoothing

    def __post_init__(self) -> None:
        require(self.alpha >= 0, "loss.alpha", self.alpha, "0 or more")
        require(self.gamma >= 0, "loss.gamma", self.gamma, "0 or more")
        require(0 <= self.smoothing < 1, "loss.smoothing", self.smoothing, "0 or more, less than 1")
