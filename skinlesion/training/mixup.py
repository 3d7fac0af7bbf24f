"""Mixup: training on blends of two items and of their targets.

Zhang, Cissé, Dauphin & Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412; of cached
maps it is that paper's successor, Verma et al., "Manifold Mixup", ICML 2019, arXiv:1806.05236, at one fixed layer.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from skinlesion.data.dataset import Batch
from skinlesion.training.feature_cache import FeatureBatch

_BLENDED = ("image", "feature_map", "metadata")


def mixed(batch: Batch | FeatureBatch, share: float, partner: Tensor) -> Batch | FeatureBatch:
    """Each item blended with another one of the batch.

    Args:
        batch: Its targets and ids stay those of the items themselves.
        share: Of the item itself, 0 to 1.
        partner: (B,) position of the other one.
    """
    items = cast(dict[str, Any], batch)
    blended = {key: torch.lerp(items[key][partner], items[key], share) for key in _BLENDED if key in items}
    return cast(Batch, {**items, **blended})


def mixed_loss(
    criterion: Callable[[Tensor, Tensor], Tensor],
    network: Callable[[Batch | FeatureBatch], Tensor],
    batch: Batch | FeatureBatch,
    *,
    concentration: float,
) -> Tensor:
    """The loss of a blended batch: of both targets, by their shares.

    Args:
        criterion: Of logits and targets.
        network: A batch to logits.
        batch: Not blended yet.
        concentration: Of the Beta(concentration, concentration) from which the share of a batch is drawn.
    """
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    target = batch["target"]
    partner = torch.randperm(len(target)).to(target.device)
    logits = network(mixed(batch, share, partner))
    return share * criterion(logits, target) + (1 - share) * criterion(logits, target[partner])
