"""The network: a backbone's feature map, fused with metadata, attended to, pooled and narrowed to logits."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.backbone import Backbone
from skinlesion.model.cbam import CBAM
from skinlesion.model.funnel import DenseFunnel
from skinlesion.model.fusion import FiLM, FusionGate, MetaBlock, MetadataDropout

Fusion = Literal["gate", "film", "metablock", "concatenate", "none"]
Attention = Literal["cbam", "channel", "none"]


class Network(nn.Module):
    """Image and metadata to logits.

    Args:
        backbone: Image to feature map.
        head: Feature map and metadata to logits, made for the backbone's number of channels.
    """

    def __init__(self, backbone: Backbone, head: "Head") -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        """Map `image` (B, 3, height, width) and `metadata` (B, M) to logits (B, K)."""
        feature_map = self.backbone(image)  # (B, C, H, W)
        logits: Tensor = self.head(feature_map, metadata)  # (B, K)
        return logits

    def embed(self, image: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) and the pooled features (B, C)."""
        return self.head.embed(self.backbone(image), metadata)


class Head(nn.Module):
    """Feature map and metadata to logits: metadata dropout, fusion, attention, global average pooling, funnel.

    It stands apart from the backbone so that it can also be trained on stored feature maps. The defaults are
    the published ones (project Corvus333-dev/SkinCancer, README of 2025).

    Args:
        channels: C, the number of channels of the feature map.
        classes: K, the number of logits.
        missing: (M,) float, the encoding of a patient of whom nothing is known.
        fact_of_column: (M,) integer, which fact (0, 1, ...) each metadata column encodes.
        fact_dropout: Probability in 0..1 that a fact goes missing in training; see MetadataDropout.
        fusion: How metadata enter: "gate" scales the channels of the map (FusionGate), "film" scales and shifts them
            (FiLM), "metablock" transforms them (MetaBlock), "concatenate" appends the metadata to the pooled vector,
            "none" ignores them, so that the model depends on the image alone.
        gate_hidden: Units of the hidden layer of the gate or of FiLM.
        gate_noise: Standard deviation of the noise on that layer in training.
        gate_alpha: Initial value of the gate's learned scalar.
        attention: "cbam" weighs channels and positions, "channel" only channels, "none" neither.
        reduction: Channels for each hidden unit of the channel attention.
        spatial_kernel: Side of the spatial attention's kernel, odd.
        funnel: Widths of the dense layers, may be empty.
        dropout: Probability in 0..1 of dropout after the first dense layer, halved at each further one.

    Raises:
        ConfigError: `fusion` or `attention` is none of the words above, or the kernel is even.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        missing: Tensor,
        fact_of_column: Tensor,
        fact_dropout: float = 0.1,
        fusion: Fusion = "gate",
        gate_hidden: int = 64,
        gate_noise: float = 0.05,
        gate_alpha: float = 1.0,
        attention: Attention = "cbam",
        reduction: int = 16,
        spatial_kernel: int = 5,
        funnel: Sequence[int] = (512, 256, 128),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        for key, word, allowed in (("fusion", fusion, get_args(Fusion)), ("attention", attention, get_args(Attention))):
            if word not in allowed:
                raise ConfigError(f"{key} must be one of {', '.join(allowed)}, not {word!r}")
        self.fusion = fusion
        width = len(missing)
        # parts without use are not made: checkpoints would hold weights that were never trained
        self.fact_dropout: MetadataDropout | None = None
        self.gate: FusionGate | FiLM | MetaBlock | None = None
        self.fused = nn.Identity()  # the fused map, for explanations to hook
        self.attention: CBAM | None = None
        if fusion != "none":
            self.fact_dropout = MetadataDropout(missing, fact_of_column, probability=fact_dropout)
        if fusion == "gate":
            self.gate = FusionGate(channels, width, hidden=gate_hidden, noise=gate_noise, alpha=gate_alpha)
        elif fusion == "film":
            self.gate = FiLM(channels, width, hidden=gate_hidden)
        elif fusion == "metablock":
            self.gate = MetaBlock(channels, width)
        if attention != "none":
            kernel = spatial_kernel if attention == "cbam" else None
            self.attention = CBAM(channels, reduction=reduction, kernel=kernel)
        features = channels + width if fusion == "concatenate" else channels
        self.funnel = DenseFunnel(features, classes, widths=funnel, dropout=dropout)

    def forward(self, feature_map: Tensor, metadata: Tensor) -> Tensor:
        """Map `feature_map` (B, C, H, W) and `metadata` (B, M) to logits (B, K)."""
        return self.embed(feature_map, metadata)[0]

    def embed(self, feature_map: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the pooled features.

        Returns:
            Logits (B, K), and the mean (B, C) over the positions of the fused and attended map: the funnel's input,
            without the metadata that "concatenate" appends.
        """
        if self.fact_dropout is not None:
            metadata = self.fact_dropout(metadata)  # (B, M)
        x = self.fuse(feature_map, metadata)  # (B, C, H, W)
        if self.attention is not None:
            x = self.attention(x)  # (B, C, H, W)
        pooled: Tensor = x.mean(dim=(2, 3))  # (B, C)
        features = torch.cat((pooled, metadata), dim=1) if self.fusion == "concatenate" else pooled  # (B, C [+ M])
        logits: Tensor = self.funnel(features)  # (B, K)
        return logits, pooled

    def fuse(self, feature_map: Tensor, metadata: Tensor) -> Tensor:
        """Scale `feature_map` (B, C, H, W) by the gate of `metadata` (B, M), if there is one."""
        fused: Tensor = self.fused(feature_map if self.gate is None else self.gate(feature_map, metadata))
        return fused
