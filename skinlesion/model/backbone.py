"""The backbone: a timm network up to a feature map, with stages in depth order to freeze and unfreeze."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.feature_level import REFUSALS, accepted_image, cut_after, find_layout, level_name
from skinlesion.model.stages import ancestors, find_stages, own_parameters, remaining, title
from skinlesion.model.trunk import Halves, split_before

CHEAP_SIDES = (64, 96)  # px, to check a network on before its own size is tried
RESERVED = ("pretrained", "num_classes", "global_pool", "features_only", "checkpoint_path", "in_chans")


class Backbone(nn.Module):
    """Maps an image to a feature map by a timm network with random weights (see `weights.load_pretrained`).

    Args:
        name: timm's name of the network, with or without a tag such as ".a1_in1k".
        kwargs: Further arguments of `timm.create_model`.
        feature_level: Which feature map. None is the last one. A text names a module ("layer3", "blocks.5",
            "block12"): the network is cut after it, and the weights behind it are gone. A number counts timm's
            levels from the finest (0), or backwards from the coarsest (-1).
        batch_norm_eps: Epsilon of every 2-d batch norm; None keeps timm's.

    Raises:
        ConfigError: If there is no such network or level, the arguments do not suit it, it cannot be cut there, or
            it returns no feature map (as vision transformers do not).
    """

    def __init__(
        self,
        name: str,
        *,
        kwargs: Mapping[str, Any],
        feature_level: str | int | None,
        batch_norm_eps: float | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.kwargs = dict(kwargs)
        self.net = _create(name, self.kwargs)
        if batch_norm_eps is not None:
            _set_batch_norm_eps(self.net, batch_norm_eps)
        stages = find_stages(self.net, name=name)
        sides = (*CHEAP_SIDES, self.input_size)
        if feature_level is not None:
            image = accepted_image(self.net, name=name, sides=sides)
            cut_after(self.net, level_name(self.net, feature_level, name=name), name=name, image=image)
        self.channels, self._channels_last = find_layout(self.net, name=name, sides=sides)
        self._stages = remaining(stages, self.net)
        self._frozen: frozenset[str] = frozenset()
        self._split: tuple[Halves, ...] = ()  # made when first asked for; in a tuple, since it is no part of its own
        self._parted: bool | None = None  # likewise
        self._resting: frozenset[str] = frozenset()

    def forward(self, image: Tensor) -> Tensor:
        """Map `image` (B, 3, height, width) to a feature map (B, C, H, W)."""
        return self._channels_first(self.net(image))

    def lower(self) -> nn.Module:
        """The frozen part that no trained part stands before: images to the trunk's map, or the whole, frozen.

        Raises:
            ConfigError: There is no one map from which the rest could run.
        """
        return self if self.frozen else self._halves().lower

    def upper(self, trunk_map: Tensor) -> Tensor:
        """Map what `lower` gave, of one batch, to the feature map (B, C, H, W); gradients reach what is trained."""
        return trunk_map if self.frozen else self._channels_first(self._halves().upper(trunk_map))

    @property
    def parted(self) -> bool:
        """Whether something frozen runs before all that is trained, so that `lower` and `upper` are of use."""
        if self._parted is None:  # found once: a network that cannot be split runs three times to say so
            try:
                self._parted = bool(self._frozen) and (self.frozen or bool(self._halves()))
            except ConfigError:
                self._parted = False
        return self._parted

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm knows of the pretrained weights: where they are, input size, mean, std, licence."""
        cfg: Any = self.net.pretrained_cfg
        return dict(cfg)

    @property
    def input_size(self) -> int:
        """Side in pixels of the square images that the network is meant for."""
        size = self.kwargs.get("img_size", self.pretrained_cfg["input_size"])
        return int(size if isinstance(size, int) else size[-1])

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of red, green and blue, in 0..1, by which images are shifted for the pretrained weights."""
        return tuple(self.pretrained_cfg["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of red, green and blue by which images are then divided."""
        return tuple(self.pretrained_cfg["std"])

    def stages(self) -> list[list[str]]:
        """List the leaves of each stage, stem first, all in depth order; `stages` says what a leaf is."""
        return [list(stage) for stage in self._stages]

    def trainable(self) -> dict[str, bool]:
        """Say of each leaf, in depth order, whether it is trained."""
        return {leaf: leaf not in self._frozen for leaf in self._leaves()}

    @property
    def frozen(self) -> bool:
        """Whether nothing is trained."""
        return not any(self.trainable().values())

    def freeze(self) -> None:
        """Freeze every stage."""
        self.unfreeze(None)

    def unfreeze(self, start: int | str | None) -> None:
        """Train the network from `start` to its top, and freeze what is below.

        What is frozen gets no gradient and stays in evaluation mode when the rest trains: its batch norms use their
        running statistics and leave them as they are, and its dropout and stochastic depth do nothing.

        Args:
            start: None trains nothing. A number trains that many stages, counted from the top. A text names the
                module to start at, also within a stage: "layer3.4" trains layer3.4, layer3.5 and layer4.

        Raises:
            ConfigError: If there are not so many stages, or no parameters in a module of that name.
        """
        leaves = self._leaves()
        first = self._position(start)
        for position, leaf in enumerate(leaves):
            for parameter in own_parameters(self.net, leaf):
                parameter.requires_grad_(position >= first)
        self._frozen, self._split, self._parted = frozenset(leaves[:first]), (), None
        self._resting = self._find_resting()
        self.train(self.training)

    def count_trained(self, start: int | str | None) -> int:
        """How many leaves `unfreeze(start)` would train."""
        return len(self._leaves()) - self._position(start)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode of what is not frozen; what is stays in evaluation mode."""
        super().train(mode)
        for name, module in self.net.named_modules():
            module.training = mode and name not in self._resting
        return self

    def _halves(self) -> Halves:
        if not self._split:
            device = next(self.net.parameters()).device
            image = accepted_image(self.net, name=self.name, sides=(*CHEAP_SIDES, self.input_size), device=device)
            trained = [leaf for leaf, is_trained in self.trainable().items() if is_trained]
            self._split = (split_before(self.net, trained, name=self.name, image=image),)
        return self._split[0]

    def _channels_first(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self._channels_last else x  # swin-like networks give (B, H, W, C)

    def _leaves(self) -> list[str]:
        return [leaf for stage in self._stages for leaf in stage]

    def _position(self, start: int | str | None) -> int:
        """Find the position, among the leaves, of the first one that `start` trains."""
        leaves, count = self._leaves(), len(self._stages)
        if start is None:
            return len(leaves)
        if isinstance(start, int) and 1 <= start <= count:
            return sum(len(stage) for stage in self._stages[: count - start])
        for position, leaf in enumerate(leaves):
            if start and start in ancestors(leaf):
                return position
        raise ConfigError(
            f"backbone {self.name!r} cannot be trained from {start!r}: give a number of stages, 1 to {count}, or "
            f"a module with parameters to start at; the stages are: {', '.join(map(title, self._stages))}"
        )

    def _find_resting(self) -> frozenset[str]:
        """Name the modules that stay in evaluation mode: all leaves in them are frozen.

        A module without leaves (an activation, dropout, stochastic depth) does as the module around it.
        """
        holding = {name for leaf in self._leaves() for name in ancestors(leaf)}
        awake = {name for leaf, trained in self.trainable().items() if trained for name in ancestors(leaf)}
        nearest = {
            name: next(around for around in reversed(ancestors(name)) if around in holding)
            for name, _ in self.net.named_modules()
        }
        return frozenset(name for name, around in nearest.items() if around not in awake)


def _create(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists what it has"
        raise ConfigError(f"timm has no network called {name!r}; {hint}")
    reserved = [key for key in kwargs if key in RESERVED]
    if reserved:
        raise ConfigError(f"backbone {name!r}: the argument {', '.join(reserved)} cannot be set here; leave it out")
    try:
        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **kwargs)
    except REFUSALS as error:
        raise ConfigError(
            f"timm cannot build {name!r} with the arguments {dict(kwargs)}: {type(error).__name__}: {error}"
        ) from error
    return net


def _set_batch_norm_eps(net: nn.Module, eps: float) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
