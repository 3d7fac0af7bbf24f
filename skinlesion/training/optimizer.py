"""AdamW's parameter groups and the curve of the learning rate."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from skinlesion.model.network import Network


def parameter_groups(
    network: Network, *, lr: float, backbone_lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Group what is trained by learning rate and weight decay.

    Norms, biases and the gate's alpha, which have at most one dimension, do not decay. With `layer_decay` below 1 lower
    stages learn more slowly (Howard & Ruder, ACL 2018, arXiv:1801.06146; Clark et al., ICLR 2020, arXiv:2003.10555).

    Args:
        network: Its parameters that require gradients are trained.
        lr: Learning rate of the head.
        backbone_lr: Learning rate of the backbone, of its top stage.
        weight_decay: Of all other weights.
        layer_decay: Learning rate of a stage of the backbone divided by that of the stage above it.

    Returns:
        Groups for a torch optimizer, the head first, each with a name.
    """
    parts: list[tuple[str, Iterable[Tensor], float]] = [("head", network.head.parameters(), lr)]
    if layer_decay == 1:
        parts.append(("backbone", network.backbone.parameters(), backbone_lr))
    else:
        stages = network.backbone.stage_parameters()[::-1]
        parts += [(title, own, backbone_lr * layer_decay**below) for below, (title, own) in enumerate(stages)]
    groups = []
    for name, part, rate in parts:
        trained = [parameter for parameter in part if parameter.requires_grad]
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
