"""The stages of a timm network: everything that has parameters, in depth order."""

from dataclasses import dataclass
from typing import Any, Self

from timm.models import group_modules, group_parameters
from torch import nn

from skinlesion.errors import ConfigError
from skinlesion.model.surgery import ancestors, feature_levels


@dataclass(frozen=True)
class Stages:
    """Groups of leaves from the stem to the top, as timm's `group_matcher` makes them.

    A norm alone (the last one of a transformer or a ConvNeXt) belongs to the stage before it.

    A leaf is a module that owns parameters itself (mostly a convolution or a norm, but also a block with a layer
    scale), or a parameter that belongs to the network as a whole (a position embedding). So each parameter belongs to
    exactly one leaf.
    """

    name: str  # of the network, in messages
    groups: list[list[str]]  # leaves of each stage
    levels: list[str]  # modules that give feature levels, finest first; see `_levels`

    @classmethod
    def of(cls, net: nn.Module, *, name: str) -> Self:
        """Find the stages of a whole network.

        A network without a `group_matcher` (timm's metaformers) has `stages` after a `stem`.
        """
        group_matcher: Any = getattr(net, "group_matcher", lambda coarse: {"": r"^stem", "stages": r"^stages\.(\d+)"})
        matcher = group_matcher(coarse=True)
        stages = [list(leaves) for leaves in group_modules(net, matcher).values()]
        stage_of = {leaf: place for place, stage in enumerate(stages) for leaf in stage}
        group_of = group_parameters(net, matcher, reverse=True)
        for own, _ in net.named_parameters(recurse=False):  # goes where the parameters of its group are
            group = [key for key in group_of if group_of[key] == group_of[own] and "." in key]
            stages[stage_of[ancestors(group[0])[-2]] if group else 0].append(own)
        joined: list[list[str]] = []
        for stage in stages:
            is_norm = all(each.ndim <= 1 for leaf in stage for each in own_parameters(net, leaf))
            if joined and is_norm:
                joined[-1] += stage
            else:
                joined.append(stage)
        return cls(name, joined, _levels(net))

    def within(self, net: nn.Module) -> Self:
        """Keep what `net`, the network after a cut, still has."""
        modules = dict(net.named_modules())
        leaves = {name for name, module in modules.items() if module._parameters}
        leaves |= {name for name, _ in net.named_parameters(recurse=False)}
        kept = [[leaf for leaf in stage if leaf in leaves] for stage in self.groups]
        levels = [each for each in self.levels if each in modules and not isinstance(modules[each], nn.Identity)]
        return type(self)(self.name, [stage for stage in kept if stage], levels)

    @property
    def leaves(self) -> list[str]:
        """All leaves in depth order."""
        return [leaf for stage in self.groups for leaf in stage]

    @property
    def titles(self) -> list[str]:
        """The module that holds all leaves of a stage, or its first and last leaf, for each stage."""
        shared = [max(set.intersection(*(set(ancestors(leaf)) for leaf in stage)), key=len) for stage in self.groups]
        return [title or f"{stage[0]} to {stage[-1]}" for title, stage in zip(shared, self.groups, strict=True)]

    def position(self, start: int | str | None) -> int:
        """Find the position, among the leaves, of the first one that is trained; see `Backbone.unfreeze` for `start`.

        Raises:
            ConfigError: There are not so many stages or levels, or that module has no parameters.
        """
        leaves, count = self.leaves, len(self.groups)
        if start is None:
            return len(leaves)
        if isinstance(start, int) and 1 <= start <= count:
            return sum(len(stage) for stage in self.groups[: count - start])
        if isinstance(start, int) and -len(self.levels) < start < 0:
            return self._behind(self.levels[start - 1])
        if isinstance(start, int) and start < 0 and not self.levels and -start <= count:
            return self.position(-start)
        for position, leaf in enumerate(leaves):
            if start and start in ancestors(leaf):
                return position
        raise ConfigError(
            f"backbone {self.name!r} cannot be trained from {start!r}: give a number of stages, 1 to {count}, a module "
            f"with parameters to start at, or a feature level such as -1; its stages are: {', '.join(self.titles)}"
        )

    def _behind(self, module: str) -> int:
        """Find the position behind the last leaf in `module`, or in the module around one without parameters."""
        for around in reversed(ancestors(module)[1:]):
            inside = [position for position, leaf in enumerate(self.leaves) if around in ancestors(leaf)]
            if inside:
                return inside[-1] + 1
        return 0


def own_parameters(net: nn.Module, leaf: str) -> list[nn.Parameter]:
    """List the parameters that belong to `leaf` itself, not to leaves inside it."""
    own = dict(net.named_parameters(recurse=False))
    return [own[leaf]] if leaf in own else list(net.get_submodule(leaf).parameters(recurse=False))


def _levels(net: nn.Module) -> list[str]:
    """List the modules that give timm's feature levels, finest first.

    Where all maps have one size, as in a ViT, each block is a level for timm; here each sixth of the depth is one.
    """
    modules, info = dict(net.named_modules()), getattr(net, "feature_info", [])
    names = [name for name in feature_levels(net) if name in modules]
    reductions = {level["reduction"] for level in (info if isinstance(info, list) else info.info)}
    step = max(1, len(names) // 6) if len(reductions) == 1 else 1
    return [_with_parameters(net, name) for name in names[::-1][::step][::-1]]


def _with_parameters(net: nn.Module, name: str) -> str:
    """The module `name`, or where it has no parameters (a pooling layer in a sequence) the last one before it."""
    around, _, own = name.rpartition(".")
    if not (around or isinstance(net.get_submodule(name), nn.Identity)):
        return name
    siblings = dict(net.get_submodule(around).named_children())
    before = [*siblings][: [*siblings].index(own) + 1]
    found = next((each for each in reversed(before) if [*siblings[each].parameters()]), own)
    return f"{around}.{found}".lstrip(".")
