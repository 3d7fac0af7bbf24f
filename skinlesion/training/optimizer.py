"""AdamW's parameter groups and the curve of the learning rate."""

import math
from typing import Any

from skinlesion.model.network import Network


def parameter_groups(network: Network, *, lr: float, backbone_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Group what is trained by learning rate and weight decay.

    Norms, biases and the gate's alpha, which have at most one dimension, do not decay.

    Args:
        network: Its parameters that require gradients are trained.
        lr: Learning rate of the head.
        backbone_lr: Learning rate of the backbone.
        weight_decay: Of all other weights.

    Returns:
        Groups for a torch optimizer, the head first, each with a name.
    """
    groups = []
    for name, part, rate in (("head", network.head, lr), ("backbone", network.backbone, backbone_lr)):
        trained = [parameter for parameter in part.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in trained if parameter.ndim > 1]
        plain = [parameter for parameter in trained if parameter.ndim <= 1]
        groups.append({"name": name, "params": decayed, "lr": rate, "weight_decay": weight_decay})
        groups.append({"name": f"{name}_without_decay", "params": plain, "lr": rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def lr_factor(step: int, *, steps: int, warmup: int, final: float) -> float:
    """Compute the fraction of the learning rate at a step: linear warm-up, then a cosine from 1 to `final`.

    Args:
        step: From 0.
        steps: Of the whole phase.
        warmup: Steps of warm-up, at most `steps`.
        final: Fraction at the last step, 0 to 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
