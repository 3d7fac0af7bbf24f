"""The funnel: dense layers that narrow the pooled features to logits."""

from collections.abc import Sequence

from torch import Tensor, nn


class Funnel(nn.Module):
    """Batch norm, then for each width: linear, swish, batch norm, dropout; then linear to the logits.

    Dropout is halved from each layer to the next. Without widths it is a linear classifier on normalised features.
    In training, batch norm needs batches of at least two rows.

    Args:
        features: Length of the feature vector.
        widths: Units of the dense layers in order, may be empty.
        dropout: Dropout after the first dense layer, in 0..1.
        classes: K, the number of logits.
    """

    def __init__(self, features: int, *, widths: Sequence[int], dropout: float, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(features)]
        for step, (above, width) in enumerate(zip((features, *widths), widths, strict=False)):
            layers += [nn.Linear(above, width), nn.SiLU(), nn.BatchNorm1d(width), nn.Dropout(dropout / 2**step)]
        self.layers = nn.Sequential(*layers, nn.Linear((features, *widths)[-1], classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map `features` (B, features) to logits (B, K)."""
        logits: Tensor = self.layers(features)  # (B, K)
        return logits
