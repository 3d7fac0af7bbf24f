"""Where a timm network ends: it is cut after a named module, and the cut is checked by running it.

Cutting puts an identity in the place of every module that runs after the named one, so that the network returns
what that module returns, and the weights behind it are gone. This is right only where the rest is a plain chain.
Names do not tell whether it is, so the cut network is compared with the whole one on an image of random noise.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.stages import ancestors

REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError)
"""What timm and torch raise where a network cannot be built with, or run on, what it was given."""


class Layout(NamedTuple):
    """How a feature map lies in its tensor."""

    channels: int
    channels_last: bool  # (B, H, W, C), as in swin-like networks, rather than (B, C, H, W)


def find_layout(net: nn.Module, *, name: str, sides: Sequence[int]) -> Layout:
    """Find how the map that `net` returns is laid out, by running it on square images.

    The map of a square image has two equal sides, which are its positions, so that the third is its channels.

    Args:
        net: A network whose forward returns a feature map.
        name: What to call it in messages.
        sides: Sides of the images in pixels, tried in order: some networks take one size only, and a map may happen
            to have as many channels as rows.

    Raises:
        ConfigError: If it runs on no such image, or returns anything but a feature map.
    """
    found: object = None
    for side in sides:
        match found := _run(net, _noise(side)):
            case Tensor(shape=(_, channels, rows, columns)) if channels != rows == columns:
                return Layout(channels, channels_last=False)
            case Tensor(shape=(_, rows, columns, channels)) if channels != rows == columns:
                return Layout(channels, channels_last=True)
            case Exception() | Tensor(ndim=4):
                continue
            case _:
                break
    raise ConfigError(
        f"backbone {name!r} gives {_describe(found)} of an image of {side} pixels, not a feature map (B, C, H, W): "
        "choose a convolutional network, or another that keeps the map's positions"
    )


def accepted_image(net: nn.Module, *, name: str, sides: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Find the first of `sides` (pixels) that `net`, on `device`, runs on; return such an image (1, 3, side, side).

    Raises:
        ConfigError: If it runs on none of them.
    """
    found: object = None
    for side in sides:
        image = _noise(side).to(device)
        found = _run(net, image)
        if not isinstance(found, Exception):
            return image
    raise ConfigError(f"backbone {name!r} gives {_describe(found)} of an image of {side} pixels")


def levels(net: nn.Module) -> list[str]:
    """Name the modules whose maps timm counts as the feature levels of `net`, the finest first."""
    info: Any = getattr(net, "feature_info", [])
    return [level["module"] for level in (info if isinstance(info, list) else info.info)]


def level_name(net: nn.Module, level: str | int, *, name: str) -> str:
    """Name the module of a feature level that is given by name or by number; ConfigError if there is no such number."""
    if isinstance(level, str):
        return level
    known = levels(net)
    if not -len(known) <= level < len(known):
        listed = ", ".join(f"{place} ({module})" for place, module in enumerate(known))
        raise ConfigError(f"backbone {name!r} has no feature level {level}; its levels are: {listed}")
    return known[level]


def cut_after(net: nn.Module, level: str, *, name: str, image: Tensor) -> None:
    """Cut `net` in place after the module `level`, so that it returns that module's feature map.

    Args:
        net: The whole network; its training flags stay, and no random number is drawn.
        level: Dotted name of a module, as in `net.named_modules()`.
        name: What to call the network in messages.
        image: An image (1, 3, height, width) that `net` runs on.

    Raises:
        ConfigError: If there is no such module, it returns no feature map, or the cut network returns another one.
            `net` is then as it was, and the message lists where it can be cut.
    """
    trace = _trace(net, image)
    removed = _cut(net, level, trace)
    if _reproduces(net, level, trace, image):
        return
    _put(net, removed)
    possible = [place for place in _places(net) if _possible(net, place, trace, image)]
    raise ConfigError(
        f"backbone {name!r} cannot be cut after {level!r}: {_objection(level, trace)}; "
        f"try one of: {', '.join(possible)}"
    )


@dataclass
class _Trace:
    """One run of a network: when each module first began and ended, and the maps that they returned."""

    began: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)


def _trace(net: nn.Module, image: Tensor) -> _Trace:
    trace, clock = _Trace(), itertools.count()

    def begin(name: str, module: nn.Module, arguments: object) -> None:
        trace.began.setdefault(name, next(clock))

    def end(name: str, module: nn.Module, arguments: object, returned: object) -> None:
        if name in trace.ended:
            return
        trace.ended[name] = next(clock)
        if isinstance(returned, Tensor) and returned.ndim == 4:
            trace.maps[name] = returned.clone()  # a later module may change it in place

    handles = []
    inner = [(name, module) for name, module in net.named_modules() if name]
    for name, module in inner:
        handles += [module.register_forward_pre_hook(partial(begin, name))]
        handles += [module.register_forward_hook(partial(end, name))]
    _run(net, image)
    for handle in handles:
        handle.remove()
    return trace


def _cut(net: nn.Module, level: str, trace: _Trace) -> dict[str, nn.Module]:
    """Put an identity for every module that first began after `level` ended; return what was there."""
    end = trace.ended.get(level)
    later = {name for name, began in trace.began.items() if end is not None and began > end}
    outermost = [name for name in later if not later.intersection(ancestors(name)[:-1])]
    removed = {name: net.get_submodule(name) for name in outermost}
    _put(net, {name: nn.Identity() for name in outermost})
    return removed


def _put(net: nn.Module, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        net.set_submodule(name, module)


def _reproduces(net: nn.Module, level: str, trace: _Trace, image: Tensor) -> bool:
    expected, found = trace.maps.get(level), _run(net, image)
    if expected is None or not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    scale = float(expected.abs().max())
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * scale)


def _possible(net: nn.Module, level: str, trace: _Trace, image: Tensor) -> bool:
    removed = _cut(net, level, trace)
    possible = _reproduces(net, level, trace, image)
    _put(net, removed)
    return possible


def _places(net: nn.Module) -> list[str]:
    """List where a cut is worth a try: timm's levels, their siblings, and the network's own children."""
    known = levels(net)
    parents = {"", *(ancestors(level)[-2] for level in known)}
    with_weights = {around for name, _ in net.named_parameters() for around in ancestors(name)}
    names = [name for name, _ in net.named_modules() if name and ancestors(name)[-2] in parents]
    return [name for name in names if name in with_weights or name in known]


def _objection(level: str, trace: _Trace) -> str:
    if level not in trace.ended:
        return "it has no such module, or does not run it"
    if level not in trace.maps:
        return "that module returns no feature map"
    return "what comes after it is more than a chain of modules"


def _run(net: nn.Module, image: Tensor) -> object:
    """Run `net` in evaluation mode; where it refuses, return the exception."""
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


def _noise(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)  # the global random state stays as it is
    return torch.randn(1, 3, side, side, generator=generator)


def _describe(found: object) -> str:
    if isinstance(found, Exception):
        return f"the error {type(found).__name__}: {found}"
    return f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
