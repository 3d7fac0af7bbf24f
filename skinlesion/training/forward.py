"""From batches to probabilities."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from skinlesion.data.dataset import Batch
from skinlesion.errors import ConfigError
from skinlesion.inference.tta import views
from skinlesion.model.network import Network
from skinlesion.progress import track
from skinlesion.training.feature_cache import FeatureBatch, logits


@torch.inference_mode()
def probabilities(
    network: Network,
    batches: Iterable[Batch | FeatureBatch],
    *,
    device: torch.device,
    label: str,
    total: int,
    tta: str = "none",
) -> npt.NDArray[np.float32]:
    """Softmax probabilities of all items, in order.

    Args:
        network: Put into evaluation mode.
        batches: Of images or feature maps.
        device: Where the network runs.
        label: Of the progress bar.
        total: Number of batches.
        tta: Which flips and turns of each image vote, see `turns.views`; of cached maps there are none.

    Returns:
        (N, K).
    """
    network.to(device).eval()
    parts = []
    for batch in track(batches, label, total):
        moved = cast(Any, {key: _to(value, device) for key, value in batch.items()})
        parts.append(_vote(network, moved, tta).cpu().numpy())  # (B, K)
    return np.concatenate(parts)


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning takes for an accelerator: auto, cpu, gpu and so on."""
    try:
        return Fabric(accelerator=accelerator, devices=1).device
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"accelerator={accelerator}: {str(error).splitlines()[0]}") from error


def _vote(network: Network, batch: Batch | FeatureBatch, tta: str) -> Tensor:
    """Probabilities (B, K), the mean over an image's flips and turns."""
    if "feature_map" in batch:
        return logits(network, batch).float().softmax(dim=1)
    votes = [
        logits(network, cast(Batch, {**batch, "image": image})).float().softmax(dim=1)
        for image in views(batch["image"], tta)
    ]
    return torch.stack(votes).mean(dim=0)


def _to(value: object, device: torch.device) -> object:
    return value.to(device) if isinstance(value, Tensor) else value
