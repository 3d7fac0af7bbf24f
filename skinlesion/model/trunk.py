"""The trunk: a timm network in two halves, so that what is frozen runs once and what is trained runs from there.

Both halves are structural copies that share every layer with the network. In the lower one an identity stands for
each module that runs from the cut on, in the upper one for each that runs before it. This is right only where the
network is a plain chain around the cut, so the halves are run after one another and compared with the whole.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.feature_level import evaluating
from skinlesion.model.stages import ancestors

_Order = dict[str, tuple[int, int]]  # of each module that ran: when it first began, and when it ended


class Halves(NamedTuple):
    """A network's two halves; `upper(lower(image))` is the network's own map."""

    lower: nn.Module
    upper: nn.Module


def split_before(net: nn.Module, trained: Sequence[str], *, name: str, image: Tensor) -> Halves:
    """Split `net` before its first trained module.

    Args:
        net: The whole network; it is left as it is, and shares its layers with the halves.
        trained: Its leaves that are trained, all those above the cut.
        name: What to call it in messages.
        image: An image (1, 3, height, width) that it runs on.

    Raises:
        ConfigError: If the network is not a chain around that place.
    """
    order, inputs, whole = _watch(net, image)
    first = _outermost_trained(net, trained, order)
    if first is not None and first in inputs:
        began = order[first][0]
        inner = [module for module in order if module]
        lower = _with_identities(net, [module for module in inner if order[module][0] >= began])
        upper = _with_identities(net, [module for module in inner if order[module][1] < began])
        with evaluating(lower), evaluating(upper), torch.no_grad():
            below = lower(image)
            if below.shape == inputs[first].shape and _alike(below, inputs[first]) and _alike(upper(below), whole):
                return Halves(lower, upper)
    raise ConfigError(
        f"backbone {name!r} has no single map before {first or trained[0]!r} from which the rest could run: "
        "unfreeze from the beginning of a stage, or set cached_views=0 in that phase"
    )


def _watch(net: nn.Module, image: Tensor) -> tuple[_Order, dict[str, Tensor], Tensor]:
    """Run `net` once: when each module ran, what single map each was given, and what came out."""
    began: dict[str, int] = {}
    order: _Order = {}
    inputs: dict[str, Tensor] = {}
    ticks = iter(range(2**31))

    def begin(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[object, ...]) -> None:
            began.setdefault(name, next(ticks))
            given = arguments[0] if len(arguments) == 1 else None
            if isinstance(given, Tensor) and given.ndim == 4:
                inputs.setdefault(name, given.clone())  # a later module may change it in place

        return hook

    def end(name: str) -> Callable[..., None]:
        return lambda module, arguments, returned: order.setdefault(name, (began[name], next(ticks))) and None

    handles = []
    for name, module in net.named_modules():
        handles += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end(name))]
    with evaluating(net), torch.no_grad():
        whole: Tensor = net(image)
    for handle in handles:
        handle.remove()
    return order, inputs, whole


def _outermost_trained(net: nn.Module, trained: Sequence[str], order: _Order) -> str | None:
    """The largest module around the first trained leaf in which nothing is frozen."""
    chosen = set(trained)
    frozen = {name for name, module in net.named_modules() if module._parameters} - chosen
    around_frozen = {around for leaf in frozen for around in ancestors(leaf)}
    ran = [name for name in trained if name in order]
    if not ran:
        return None
    first = min(ran, key=lambda name: order[name][0])
    return next((around for around in ancestors(first) if around not in around_frozen and around in order), None)


def _with_identities(net: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy of `net` that shares its layers, with an identity for each named module."""
    listed = set(names)
    outermost = [name for name in listed if not listed.intersection(ancestors(name)[:-1])]
    copied = {around for name in outermost for around in ancestors(name)[:-1]} | {""}
    twins: dict[str, nn.Module] = {}
    for name in sorted(copied, key=lambda each: len(ancestors(each))):
        twin = copy.copy(net.get_submodule(name))
        twin.__dict__["_modules"] = dict(twin._modules)
        twins[name] = twin
        if name:
            _put(twins, name, twin)
    for name in outermost:
        _put(twins, name, nn.Identity())
    return twins[""]


def _put(twins: dict[str, nn.Module], name: str, module: nn.Module) -> None:
    around, _, own = name.rpartition(".")
    twins[around]._modules[own] = module


def _alike(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
