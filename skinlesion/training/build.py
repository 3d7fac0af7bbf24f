"""From a configuration to a network."""

from dataclasses import asdict
from typing import cast

import torch

from skinlesion.config.model import LossConfig, ModelConfig
from skinlesion.data.image_io import ImageInput
from skinlesion.data.metadata import MetadataEncoder
from skinlesion.model.backbone import Backbone
from skinlesion.model.network import Attention, Fusion, Head, Network
from skinlesion.taxonomy import CODES
from skinlesion.training.losses import FocalLoss, inverse_frequency_weights


def build_backbone(config: ModelConfig) -> Backbone:
    """The backbone, its weights random.

    Raises:
        ConfigError: timm has no such network, or it cannot be built as asked.
    """
    return Backbone(
        config.backbone,
        kwargs=config.backbone_kwargs,
        feature_level=config.feature_level,
        batch_norm_eps=config.batch_norm_eps,
    )


def image_input(config: ModelConfig, backbone: Backbone) -> ImageInput:
    """What the backbone expects of an image: its own pretrained configuration, unless overridden."""
    size = config.image_size or [backbone.input_size] * 2
    return ImageInput((size[0], size[1]), tuple(config.mean or backbone.mean), tuple(config.std or backbone.std))


def build_network(config: ModelConfig, backbone: Backbone, encoder: MetadataEncoder) -> Network:
    """The backbone and a new head."""
    head = Head(
        backbone.channels,
        classes=len(CODES),
        missing=torch.from_numpy(encoder.missing()),
        fact_of_column=torch.tensor(encoder.fact_of_column),
        fact_dropout=config.fact_dropout,
        fusion=cast(Fusion, config.fusion),
        gate_hidden=config.gate_hidden,
        gate_noise=config.gate_noise,
        gate_alpha=config.gate_alpha,
        attention=cast(Attention, config.attention),
        reduction=config.reduction,
        spatial_kernel=config.spatial_kernel,
        funnel=config.funnel,
        dropout=config.dropout,
    )
    return Network(backbone, head)


def build_loss(config: LossConfig, class_counts: list[int]) -> FocalLoss:
    """The focal loss for a training part with these class counts."""
    weights = inverse_frequency_weights(class_counts, alpha=config.alpha)
    return FocalLoss(weights, gamma=config.gamma, smoothing=config.smoothing)


def as_plain(spec: ImageInput) -> dict[str, list[float]]:
    """An ImageInput as plain data."""
    return {name: list(value) for name, value in asdict(spec).items()}
