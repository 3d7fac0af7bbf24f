"""The stages of a timm network: everything that has parameters, in depth order.

A leaf is a module that owns parameters itself (mostly a convolution or a norm, but also a block with a layer
scale), or a parameter that belongs to the network as a whole (a position embedding). So every parameter belongs to
exactly one leaf. Stages are groups of leaves, from the stem to the top, as timm's own matcher of layers makes them.
"""

from typing import Any

from timm.models import group_modules, group_parameters
from torch import nn

from skinlesion.errors import ConfigError


def find_stages(net: nn.Module, *, name: str) -> list[list[str]]:
    """List the leaves of each stage of `net`, which is called `name` in messages.

    Raises:
        ConfigError: If timm does not tell how the network's layers are grouped.
    """
    group_matcher: Any = getattr(net, "group_matcher", None)
    if group_matcher is None:
        raise ConfigError(f"backbone {name!r} has no stages in timm to freeze and unfreeze; choose another network")
    matcher = group_matcher(coarse=True)
    stages = [list(leaves) for leaves in group_modules(net, matcher).values()]
    stage_of = {leaf: place for place, stage in enumerate(stages) for leaf in stage}
    group_of = group_parameters(net, matcher, reverse=True)
    for own, _ in net.named_parameters(recurse=False):  # goes where the parameters of its group are
        group = [key for key in group_of if group_of[key] == group_of[own] and "." in key]
        stages[stage_of[ancestors(group[0])[-2]] if group else 0].append(own)
    return stages


def remaining(stages: list[list[str]], net: nn.Module) -> list[list[str]]:
    """Drop from `stages` what `net` no longer has after a cut."""
    there = {name for name, module in net.named_modules() if module._parameters}
    there |= {name for name, _ in net.named_parameters(recurse=False)}
    kept = [[leaf for leaf in stage if leaf in there] for stage in stages]
    return [stage for stage in kept if stage]


def own_parameters(net: nn.Module, leaf: str) -> list[nn.Parameter]:
    """List the parameters that belong to `leaf` itself, not to leaves inside it."""
    own = dict(net.named_parameters(recurse=False))
    return [own[leaf]] if leaf in own else list(net.get_submodule(leaf).parameters(recurse=False))


def title(stage: list[str]) -> str:
    """Name a stage by the module that holds all its leaves, or by its first and last leaf."""
    shared = set.intersection(*(set(ancestors(leaf)) for leaf in stage))
    return max(shared, key=len) or f"{stage[0]} to {stage[-1]}"


def ancestors(name: str) -> list[str]:
    """List the modules around the module `name`, and itself, from the whole network ("") inwards."""
    parts = name.split(".")
    return ["", *(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))]
