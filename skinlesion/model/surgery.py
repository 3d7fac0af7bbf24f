"""Network surgery: end a timm network after any module, or split it before its first trained module.

timm's own extractors (`features_only`, `forward_intermediates`, its torch.fx graphs) stop at timm's feature levels,
rename weights, or fix the training mode when they trace. Here the cut is at any module, weights keep their names, and
all parts share the network's layers and follow its training mode.

A part is a copy of the network with an identity in place of each module that runs outside it. That is correct only
where the network is a plain chain around the cut, so each part is run on noise and compared with the whole network.
Transformers add their position embedding outside of modules: their upper part is the chain of the modules itself.
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError

REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)
"""Exceptions of timm and torch for a network that cannot be built with, or run on, the given arguments."""


class Halves(NamedTuple):
    """The two parts of a split network: `upper(lower(image))` is the network's own output."""

    lower: nn.Module
    upper: nn.Module


def noise(height: int, width: int) -> Tensor:
    """Return the same random image (1, 3, height, width) each time, without touching the global random state."""
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def run(net: nn.Module, image: Tensor) -> Any:
    """Run `net` in evaluation mode and return its output, or the exception it raised."""
    with evaluating(net), torch.no_grad():
        try:
            return net(image)
        except REFUSALS as refusal:
            return refusal


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put `net` in evaluation mode, then give every module its training flag back."""
    flags = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def feature_levels(net: nn.Module) -> list[str]:
    """Return the names of the modules that give timm's feature levels of `net`, finest first."""
    info: Any = getattr(net, "feature_info", [])
    return [level["module"] for level in (info if isinstance(info, list) else info.info)]


def cut_after(net: nn.Module, level: str | int, *, name: str, image: Tensor) -> nn.Module:
    """Cut a network after a module; the weights behind it are gone.

    Args:
        net: The whole network; it stays as it is and shares its layers with the result.
        level: Dotted name of a module, as in `net.named_modules()`, or the number of one of timm's feature levels:
            0 is the finest, -1 the coarsest.
        name: Name of the network in messages.
        image: An image (1, 3, height, width) that `net` accepts.

    Returns:
        A network that returns the feature map of that module.

    Raises:
        ConfigError: `net` has no such level, or does not return to a plain chain after it. The message lists where it
            can be cut.
    """
    levels = feature_levels(net)
    if isinstance(level, int) and not -len(levels) <= level < len(levels):
        known = ", ".join(f"{number} ({module})" for number, module in enumerate(levels))
        raise ConfigError(f"backbone {name!r} has no feature level {level}; its levels are: {known}")
    module = levels[level] if isinstance(level, int) else level
    trace = _trace(net, image)
    cut = _cut(net, module, trace, image)
    if cut is None:
        possible = [place for place in _places(net, levels) if _cut(net, place, trace, image) is not None]
        raise ConfigError(
            f"backbone {name!r} cannot be cut after {module!r}: {_objection(module, trace)}; "
            f"try one of: {', '.join(possible)}"
        )
    return cut


def split_before(net: nn.Module, trained: Sequence[str], *, name: str, image: Tensor) -> Halves:
    """Split a network before its first trained module.

    Args:
        net: The whole network; it stays as it is and shares its layers with both halves.
        trained: Names of the modules whose own parameters are trained, all of them above the split.
        name: Name of the network in messages.
        image: An image (1, 3, height, width) that `net` accepts.

    Raises:
        ConfigError: The network is not a plain chain there.
    """
    trace = _trace(net, image)
    first = _first_trained(net, trained, trace)
    if first in trace.inputs:
        start = trace.began[first]
        lower = _without(net, {module for module, began in trace.began.items() if began >= start})
        below = run(lower, image)
        if _alike(below, trace.inputs[first]):
            rest = _without(net, {module for module, ended in trace.ended.items() if ended < start})
            for upper in (rest, _chain_from(net, first, trace)):
                if _alike(run(upper, below), trace.outputs.get("")):
                    return Halves(lower, upper)
    raise ConfigError(
        f"backbone {name!r} has no single feature map before {first or trained[0]!r} to continue from: "
        "unfreeze from the beginning of a stage, or set cached_views=0 in that phase"
    )


def ancestors(name: str) -> list[str]:
    """Return the modules around the module `name`, and itself, from the whole network ("") inwards."""
    parts = name.split(".")
    return ["", *(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))]


@dataclass
class _Trace:
    """One run of a network: when each module first began and ended, its input and its output where single tensors."""

    began: dict[str, int] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)  # keyword arguments of each module
    ended: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def _trace(net: nn.Module, image: Tensor) -> _Trace:
    trace, clock = _Trace(), itertools.count()

    def watch(name: str, module: nn.Module) -> list[Any]:
        def begin(_: nn.Module, arguments: tuple[object, ...], options: dict[str, Any]) -> None:
            trace.began.setdefault(name, next(clock))
            trace.options.setdefault(name, options)
            if len(arguments) == 1:
                keep(trace.inputs, arguments[0])

        def end(_: nn.Module, arguments: object, output: object) -> None:
            trace.ended.setdefault(name, next(clock))
            keep(trace.outputs, output)

        def keep(maps: dict[str, Tensor], value: object) -> None:
            if isinstance(value, Tensor) and value.ndim in (3, 4) and name not in maps:  # tokens, or a map
                maps[name] = value.clone()  # a later module may change it in place

        return [module.register_forward_pre_hook(begin, with_kwargs=True), module.register_forward_hook(end)]

    handles = [handle for name, module in net.named_modules() for handle in watch(name, module)]
    run(net, image)
    for handle in handles:
        handle.remove()
    return trace


class _Pass(nn.Identity):
    """Stands for a module that is left out, whatever else it was given."""

    def forward(self, input: Tensor, *_: object, **__: object) -> Tensor:
        return input


class _Chain(nn.Module):
    """Modules one after the other, each with keyword arguments of its own, such as rotary position embeddings."""

    def __init__(self, modules: Sequence[nn.Module], options: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.steps, self.options = nn.ModuleList(modules), options

    def forward(self, x: Tensor) -> Tensor:
        for step, options in zip(self.steps, self.options, strict=True):
            x = step(
                x, **{key: each.to(x.device) if isinstance(each, Tensor) else each for key, each in options.items()}
            )
        return x


def _chain_from(net: nn.Module, first: str, trace: _Trace) -> nn.Module:
    """Chain the outermost modules that begin with or after `first`."""
    later = {name for name, began in trace.began.items() if began >= trace.began[first]}
    steps = [name for name in sorted(later, key=trace.began.__getitem__) if later.isdisjoint(ancestors(name)[:-1])]
    return _Chain([net.get_submodule(name) for name in steps], [trace.options[name] for name in steps])


def _without(net: nn.Module, names: set[str], *, prefix: str = "") -> nn.Module:
    """Copy `net`, sharing its layers, with an identity in place of each of the named modules."""
    twin = copy.copy(net)
    twin._modules = dict(net._modules)
    for own, module in net.named_children():
        name = prefix + own
        if name in names:
            twin._modules[own] = _Pass()
        elif any(inner.startswith(f"{name}.") for inner in names):
            twin._modules[own] = _without(module, names, prefix=f"{name}.")
    return twin


def _cut(net: nn.Module, level: str, trace: _Trace, image: Tensor) -> nn.Module | None:
    """Cut `net` after `level`, unless that changes the map that `level` returns."""
    if not level or level not in trace.outputs:
        return None
    cut = _without(net, {module for module, began in trace.began.items() if began > trace.ended[level]})
    return cut if _alike(run(cut, image), trace.outputs[level]) else None


def _places(net: nn.Module, levels: Sequence[str]) -> list[str]:
    """List the modules worth a try: timm's levels, their siblings, and the network's children."""
    parents = {"", *(ancestors(level)[-2] for level in levels)}
    with_weights = {around for name, _ in net.named_parameters() for around in ancestors(name)}
    names = [name for name, _ in net.named_modules() if name and ancestors(name)[-2] in parents]
    return [name for name in names if name in with_weights or name in levels]


def _objection(level: str, trace: _Trace) -> str:
    if not level or level not in trace.ended:
        return "it has no such module, or does not run it"
    return "more than a chain of modules follows" if level in trace.outputs else "that module returns no feature map"


def _first_trained(net: nn.Module, trained: Sequence[str], trace: _Trace) -> str | None:
    """Find the largest module without frozen parameters that begins with the first trained one."""
    ran = [name for name in trained if name in trace.began]
    frozen = {name for name, module in net.named_modules() if [*module.parameters(recurse=False)]} - set(trained)
    around_frozen = {around for name in frozen for around in ancestors(name)}
    around = ancestors(min(ran, key=lambda name: trace.began[name])) if ran else []
    return next((name for name in around if name not in around_frozen and name in trace.began), None)


def _alike(found: object, expected: Tensor | None) -> bool:
    if expected is None or not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
