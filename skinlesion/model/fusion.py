"""The fusion gate: what is known about the patient scales every channel of the feature map."""

import torch
from torch import Tensor, nn


class FusionGate(nn.Module):
    """Scales channel c of a feature map by 1 + alpha * m_c, where m in (-1, 1) is computed from the metadata.

    m = tanh(W_2 (silu(W_1 metadata + b_1) + e) + b_2), with e ~ N(0, noise^2) during training and 0 otherwise.
    alpha is one learned scalar for all channels: at 0 the gate is the identity, whatever the metadata.

    Args:
        metadata_width: M, the number of metadata columns.
        channels: C, the number of channels of the feature map.
        hidden: Width of the hidden layer.
        noise: Standard deviation of the Gaussian noise on the hidden layer, at least 0.
        alpha: Initial value of the learned scalar.
    """

    def __init__(self, metadata_width: int, channels: int, *, hidden: int, noise: float, alpha: float) -> None:
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
