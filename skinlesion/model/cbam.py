"""CBAM: attention over the channels of a feature map, then over its positions."""

import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError


class ChannelAttention(nn.Module):
    """Scales each channel by sigmoid(MLP(average over positions) + MLP(maximum over positions)), with one shared MLP.

    Args:
        channels: C, the number of channels.
        reduction: Channels for each hidden unit of the MLP, which has C // reduction of them, but at least one.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of `x` (B, C, H, W)."""
        return x * self.weights(x)[:, :, None, None]  # (B, C, H, W)

    def weights(self, x: Tensor) -> Tensor:
        """Compute the weight of each channel of `x` (B, C, H, W): (B, C), each in 0..1."""
        average, maximum = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))  # (B, C) each
        return torch.sigmoid(self.mlp(average) + self.mlp(maximum))  # (B, C)


class SpatialAttention(nn.Module):
    """Scales each position by sigmoid(convolution over the average and the maximum of its channels).

    Args:
        kernel: Side of the convolution kernel in positions of the feature map, odd.

    Raises:
        ConfigError: `kernel` is even or not positive: the map would not keep its size.
    """

    def __init__(self, *, kernel: int = 5) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"spatial attention needs an odd kernel side (1, 3, 5, ...), not {kernel}")
        self.convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the positions of `x` (B, C, H, W)."""
        return x * self.map(x)  # (B, C, H, W)

    def map(self, x: Tensor) -> Tensor:
        """Compute the weight of each position of `x` (B, C, H, W): (B, 1, H, W), each in 0..1."""
        average, maximum = x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)  # (B, 1, H, W) each
        return torch.sigmoid(self.convolution(torch.cat((average, maximum), dim=1)))  # (B, 1, H, W)


class CBAM(nn.Module):
    """Channel attention, then spatial attention on its output: the order that the paper found best.

    Woo, Park, Lee & Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, doi:10.1007/978-3-030-01234-2_1.
    Two things differ: swish instead of ReLU in the shared MLP, and a kernel of side 5 instead of 7. The defaults
    are the published ones (project Corvus333-dev/SkinCancer, README of 2025).

    Args:
        channels: C, the number of channels.
        reduction: Channels for each hidden unit of the channel attention's MLP, at least 1.
        kernel: Side of the spatial attention's kernel in positions of the feature map, odd; None leaves that part out.

    Raises:
        ConfigError: `kernel` is even or not positive.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel: int | None = 5) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, reduction=reduction)
        self.spatial = None if kernel is None else SpatialAttention(kernel=kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels, then the positions, of `x` (B, C, H, W)."""
        x = self.channel(x)  # (B, C, H, W)
        return x if self.spatial is None else self.spatial(x)  # (B, C, H, W)
