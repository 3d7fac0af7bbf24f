"""Fact dropout: in training, facts about the patient go missing at random."""

import torch
from torch import Tensor, nn


class FactDropout(nn.Module):
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

    def __init__(self, missing: Tensor, fact_of_column: Tensor, *, probability: float) -> None:
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
