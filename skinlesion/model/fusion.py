"""Fusion of metadata with a feature map: a gate for each channel, and metadata dropout."""

import torch
from torch import Tensor, nn


class FusionGate(nn.Module):
    """Scales channel c of a feature map by 1 + alpha * m_c, where m in (-1, 1) is computed from the metadata.

    m = tanh(W_2 (silu(W_1 metadata + b_1) + e) + b_2), with e ~ N(0, noise^2) during training and 0 otherwise.
    alpha is one learned scalar for all channels: at 0 the gate is the identity, whatever the metadata. The defaults
    are the published ones (project Corvus333-dev/SkinCancer, README of 2025). Scaling channels by another modality is
    feature-wise modulation: Perez, Strub, de Vries, Dumoulin & Courville, "FiLM", AAAI 2018,
    doi:10.1609/aaai.v32i1.11671.

    Args:
        channels: C, the number of channels of the feature map.
        metadata_width: M, the number of metadata columns.
        hidden: Units of the hidden layer, at least 1.
        noise: Standard deviation of the Gaussian noise on the hidden layer in training, at least 0.
        alpha: Initial value of the learned scalar.
    """

    def __init__(
        self, channels: int, metadata_width: int, *, hidden: int = 64, noise: float = 0.05, alpha: float = 1.0
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(metadata_width, hidden)
        self.activation = nn.SiLU()
        self.output = nn.Linear(hidden, channels)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.noise = noise

    def forward(self, feature_map: Tensor, metadata: Tensor) -> Tensor:
        """Scale `feature_map` (B, C, H, W) by the gates of `metadata` (B, M)."""
        gates = self.gates(metadata)[:, :, None, None]  # (B, C, 1, 1)
        return feature_map * (1 + self.alpha * gates)  # (B, C, H, W)

    def gates(self, metadata: Tensor) -> Tensor:
        """Compute m (B, C) from `metadata` (B, M): with alpha > 0, channels with m > 0 are strengthened."""
        hidden = self.activation(self.hidden(metadata))  # (B, hidden)
        if self.training and self.noise > 0:
            hidden = hidden + self.noise * torch.randn_like(hidden)
        return torch.tanh(self.output(hidden))  # (B, C)

    def extra_repr(self) -> str:
        """Show the noise, which no submodule shows."""
        return f"noise={self.noise}"


class FiLM(nn.Module):
    """Scales and shifts channel c of a feature map: x (1 + gamma_c) + beta_c, both from the metadata.

    gamma and beta are the two halves of W_2 silu(W_1 metadata + b_1) + b_2; W_2 and b_2 begin at 0, so the module
    begins as the identity. Perez, Strub, de Vries, Dumoulin & Courville, AAAI 2018, doi:10.1609/aaai.v32i1.11671.

    Args:
        channels: C, the number of channels of the feature map.
        metadata_width: M, the number of metadata columns.
        hidden: Units of the hidden layer, at least 1.
    """

    def __init__(self, channels: int, metadata_width: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(metadata_width, hidden)
        self.activation = nn.SiLU()
        self.output = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, feature_map: Tensor, metadata: Tensor) -> Tensor:
        """Scale and shift `feature_map` (B, C, H, W) by `metadata` (B, M)."""
        scale, shift = self.output(self.activation(self.hidden(metadata)))[:, :, None, None].chunk(2, dim=1)
        modulated: Tensor = feature_map * (1 + scale) + shift  # (B, C, H, W)
        return modulated


class MetaBlock(nn.Module):
    """Turns a feature map into sigmoid(tanh(x f(metadata)) + g(metadata)), f and g each linear with batch norm.

    Pacheco & Krohling, IEEE J. Biomed. Health Inform. 25(9):3554-3563 (2021), doi:10.1109/JBHI.2021.3062002.

    Args:
        channels: C, the number of channels of the feature map.
        metadata_width: M, the number of metadata columns.
    """

    def __init__(self, channels: int, metadata_width: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.Linear(metadata_width, channels), nn.BatchNorm1d(channels))
        self.shift = nn.Sequential(nn.Linear(metadata_width, channels), nn.BatchNorm1d(channels))

    def forward(self, feature_map: Tensor, metadata: Tensor) -> Tensor:
        """Transform `feature_map` (B, C, H, W) by `metadata` (B, M)."""
        scale, shift = self.scale(metadata)[:, :, None, None], self.shift(metadata)[:, :, None, None]
        return torch.sigmoid(torch.tanh(feature_map * scale) + shift)  # (B, C, H, W)


class MetadataDropout(nn.Module):
    """Replaces whole facts (age, sex, localization) by the encoding of "not known", during training only.

    Each fact of each row is dropped independently, so that a model also learns to work where some facts, or all,
    are missing. Nothing is rescaled, unlike in element-wise dropout: a dropped fact looks exactly as it does for a
    patient of whom it is not known.

    Args:
        missing: (M,) float, the encoding of a patient of whom nothing is known.
        fact_of_column: (M,) integer, which fact (0, 1, ...) each metadata column encodes.
        probability: Probability in 0..1 that a fact is dropped.
    """

    missing: Tensor
    fact_of_column: Tensor

    def __init__(self, missing: Tensor, fact_of_column: Tensor, *, probability: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("missing", missing.detach().clone().float())
        self.register_buffer("fact_of_column", fact_of_column.detach().clone().long())
        self.facts = int(fact_of_column.max()) + 1
        self.probability = probability

    def forward(self, metadata: Tensor) -> Tensor:
        """Drop facts from `metadata` (B, M); the argument itself is not changed."""
        if not self.training or self.probability == 0:
            return metadata
        drawn = torch.rand(len(metadata), self.facts, device=metadata.device)  # (B, facts), in [0, 1)
        dropped = (drawn < self.probability)[:, self.fact_of_column]  # (B, M)
        return torch.where(dropped, self.missing.to(metadata.dtype), metadata)  # (B, M)

    def extra_repr(self) -> str:
        """Show what no submodule shows."""
        return f"facts={self.facts}, probability={self.probability}"
