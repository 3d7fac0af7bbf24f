"""The network and its loss."""

from dataclasses import dataclass
from typing import Annotated, Any

from skinlesion.config.schema import Count, OneOf, PathText, Range, require, require_size

_Probability = Annotated[float, Range(0, 1, below=True)]
_Rgb = Annotated[float, Range(0, 1)]


@dataclass
class ModelConfig:
    """The network: a timm backbone, then fusion, attention and funnel."""

    name: str  # short name, used in folder names
    backbone: str  # name of the backbone in timm, such as resnet50
    backbone_kwargs: dict[str, Any]  # further arguments of timm.create_model
    feature_level: int | str | None  # feature map to take: a level's index or a module's name; null: the last one
    batch_norm_eps: float | None  # epsilon of the backbone's batch norm; null: timm's own
    pretrained: bool | PathText  # true: weights of timm's hub; false: random weights; or a safetensors or torch file
    missing_weights: Annotated[str, OneOf(("error", "initialise"))]  # what to do when that file lacks some weights
    image_size: list[int] | None  # height and width in pixels, 16 or more, such as [224,224]; null: the backbone's own
    mean: list[_Rgb] | None  # mean of red, green and blue in 0 to 1; null: the backbone's own
    std: list[_Rgb] | None  # standard deviation of red, green and blue in 0 to 1; null: the backbone's own
    fusion: Annotated[str, OneOf(("gate", "concatenate", "none"))]  # how metadata enter the network
    gate_hidden: Count  # units of the gate's hidden layer
    gate_noise: Annotated[float, Range(0)]  # sigma of the Gaussian noise behind that layer, in training only
    gate_alpha: float  # initial value of the gate's learned strength
    fact_dropout: _Probability  # probability that each of age, sex and localization is hidden in training
    attention: Annotated[str, OneOf(("cbam", "channel", "none"))]  # attention on the feature map
    reduction: Count  # reduction ratio of the channel attention's shared MLP
    spatial_kernel: Count  # side of the spatial attention's convolution in pixels of the feature map, odd
    funnel: list[Count]  # widths of the dense layers in units; []: none
    dropout: _Probability  # dropout behind the first dense layer, halved at each further one
    high: int | str  # where the high stages begin: stages from the top, a module, or -1: the last feature level of timm
    middle: (
        int | str
    )  # where the middle stages begin: stages from the top, a module, or -2: the last two feature levels

    def __post_init__(self) -> None:
        require(self.spatial_kernel % 2 == 1, "model.spatial_kernel", self.spatial_kernel, "an odd number")
        require_size("model.image_size", self.image_size, least=16)
        for key in ("mean", "std"):
            value = getattr(self, key)
            require(value is None or len(value) == 3, f"model.{key}", value, "three numbers, 0 to 1, or null")
        require(self.std is None or min(self.std) > 0, "model.std", self.std, "numbers above 0")


@dataclass
class LossConfig:
    """The focal loss."""

    name: str  # short name, used in folder names
    alpha: Annotated[float, Range(0)]  # exponent of the inverse class frequency; 0: equal class weights
    gamma: Annotated[float, Range(0)]  # focusing parameter; 0: cross-entropy
    smoothing: _Probability  # label smoothing
