"""The funnel: dense layers that narrow the pooled features to logits."""

from collections.abc import Sequence

from torch import Tensor, nn


class DenseFunnel(nn.Module):
    """Batch norm, then for each width: linear, swish, batch norm, dropout; then linear to the logits.

    Dropout is halved from each layer to the next. Without widths it is a linear classifier on normalised features.
    In training, batch norm needs batches of at least two rows. The defaults are the published ones (project
    Corvus333-dev/SkinCancer, README of 2025). Swish: Ramachandran, Zoph & Le, arXiv:1710.05941 (2017).

    Args:
        channels: C, the length of the feature vector.
        classes: K, the number of logits.
        widths: Units of the dense layers in order, may be empty.
        dropout: Probability in 0..1 of dropout after the first dense layer.
    """

    def __init__(
        self, channels: int, classes: int, *, widths: Sequence[int] = (512, 256, 128), dropout: float = 0.5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(channels)]
        for step, (above, width) in enumerate(zip((channels, *widths), widths, strict=False)):
            layers += [nn.Linear(above, width), nn.SiLU(), nn.BatchNorm1d(width), nn.Dropout(dropout / 2**step)]
        self.layers = nn.Sequential(*layers, nn.Linear((channels, *widths)[-1], classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map `features` (B, C) to logits (B, K)."""
        logits: Tensor = self.layers(features)  # (B, K)
        return logits
