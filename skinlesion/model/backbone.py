"""The backbone: a timm network up to a feature map, with stages in depth order to freeze and unfreeze."""

import difflib
from collections.abc import Mapping
from typing import Any, Self

import timm
import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from skinlesion.errors import ConfigError
from skinlesion.model.stages import Stages, own_parameters
from skinlesion.model.surgery import REFUSALS, Halves, ancestors, cut_after, noise, run, split_before

CHEAP_SIDES = (64, 96)  # pixels; image sizes on which a network is checked before its own size
RESERVED = ("pretrained", "num_classes", "global_pool", "features_only", "checkpoint_path", "in_chans")


class Backbone(nn.Module):
    """Maps an image to a feature map by a timm network with random weights (see `pretrained.load_pretrained`).

    Args:
        name: timm's name of the network, with or without a tag such as ".a1_in1k".
        kwargs: Further arguments of `timm.create_model`.
        feature_level: Which feature map. None is the last one. A text names a module ("layer3", "blocks.5",
            "block12"): the network is cut after it, and the weights behind it are gone. A number counts timm's
            levels from the finest (0), or backwards from the coarsest (-1).
        batch_norm_eps: Epsilon of every 2-d batch norm; None keeps timm's.
        image_size: (height, width) in pixels of its images. A network that is built for one size is built for this one;
            None: its own.

    Raises:
        ConfigError: timm has no such network or level, the arguments do not suit it, it cannot be cut there, it does
            not take that size, or it returns neither a feature map nor a token for each of its positions.
    """

    def __init__(
        self,
        name: str,
        *,
        kwargs: Mapping[str, Any] | None = None,
        feature_level: str | int | None = None,
        batch_norm_eps: float | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.net, self.kwargs = _create_for(name, dict(kwargs or {}), image_size)
        if batch_norm_eps is not None:
            for module in self.net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = batch_norm_eps
        stages = Stages.of(self.net, name=name)
        self._size, output = self._probe(image_size)
        if feature_level is not None:
            self.net = cut_after(self.net, feature_level, name=name, image=noise(*self._size))
            output = run(self.net, noise(*self._size))
        self._prefix, self._grid = 0, (0, 0)  # of tokens: those without a position, and rows and columns of the others
        self.channels, self._is_channels_last = self._layout(output)
        self._stages = stages.within(self.net)
        self._leaves = self._stages.leaves
        self._first_trained = 0  # position among the leaves
        self._halves: Halves | str | None = None  # made, or refused for a reason, when first asked for

    def forward(self, image: Tensor) -> Tensor:
        """Map `image` (B, 3, height, width) to a feature map (B, C, H, W)."""
        return self._as_map(self.net(image), self._grid_of(image))

    def embed(self, image: Tensor) -> Tensor:
        """Map `image` (B, 3, height, width) to the mean of its map (B, C), behind its class token, if any (B, 2 C)."""
        output = self.net(image)
        mean = self._as_map(output, self._grid_of(image)).mean(dim=(2, 3))
        return torch.cat((output[:, 0], mean), dim=1) if self._prefix else mean

    def frozen_prefix(self) -> nn.Module:
        """Return the part of the network below its first trained layer; the whole backbone if nothing is trained.

        Its output is a map (B, C, h, w); tokens, the class token among them, are a map (B, C, tokens, 1).

        Raises:
            ConfigError: No single map leads from there to the rest.
        """
        if self.is_frozen:
            return self
        lower = self._split().lower
        return _TokensAsMap(lower) if self._grid != (0, 0) else lower

    def forward_suffix(self, prefix_map: Tensor) -> Tensor:
        """Map the output of `frozen_prefix` to the feature map (B, C, H, W); gradients reach all that is trained."""
        if self.is_frozen:
            return prefix_map
        if self._grid != (0, 0) and prefix_map.shape[-1] == 1:
            prefix_map = prefix_map[..., 0].transpose(1, 2)  # tokens again
        return self._as_map(self._split().upper(prefix_map), self._grid)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both ways to the feature map, `forward` and `forward_suffix`; see `torch.nn.Module.compile`."""
        super().compile(*args, **kwargs)
        if not self.is_frozen and self.has_frozen_prefix:
            self._split().upper.compile(*args, **kwargs)

    @property
    def has_frozen_prefix(self) -> bool:
        """Whether something frozen can run apart from, and before, all that is trained."""
        if self._first_trained in (0, len(self._leaves)):
            return self.is_frozen
        try:
            return bool(self._split())
        except ConfigError:
            return False

    @property
    def takes_any_size(self) -> bool:
        """Whether its images may have another height and width than those it was made for."""
        return self._grid == (0, 0) and not self.pretrained_cfg.get("fixed_input_size")

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The record in timm of the pretrained weights: source, input size, mean, std, licence."""
        cfg: Any = self.net.pretrained_cfg
        return dict(cfg)

    @property
    def input_size(self) -> int:
        """Side in pixels of the square images that the network is meant for."""
        size = self.kwargs.get("img_size", self.pretrained_cfg["input_size"])
        return int(size if isinstance(size, int) else size[-1])

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of red, green and blue, in 0..1, that the pretrained weights expect images to be shifted by."""
        return tuple(self.pretrained_cfg["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of red, green and blue, in 0..1, that the shifted images are divided by."""
        return tuple(self.pretrained_cfg["std"])

    def stages(self) -> list[list[str]]:
        """List the leaves of each stage, the stem first, in depth order; see `Stages`."""
        return [list(stage) for stage in self._stages.groups]

    def stage_parameters(self) -> list[tuple[str, list[Tensor]]]:
        """List the title and the parameters of each stage."""
        parameters: list[list[Tensor]] = [
            [each for leaf in stage for each in own_parameters(self.net, leaf)] for stage in self._stages.groups
        ]
        return list(zip(self._stages.titles, parameters, strict=True))

    def trainable(self) -> dict[str, bool]:
        """Tell for each leaf, in depth order, whether it is trained."""
        return {leaf: position >= self._first_trained for position, leaf in enumerate(self._leaves)}

    @property
    def is_frozen(self) -> bool:
        """Whether nothing is trained."""
        return self._first_trained == len(self._leaves)

    def freeze(self) -> None:
        """Freeze every stage."""
        self.unfreeze(None)

    def unfreeze(self, start: int | str | None) -> None:
        """Train the network from `start` to its top, and freeze what is below.

        Frozen layers get no gradient and stay in evaluation mode while the rest trains: their batch norms use and keep
        their running statistics, and their dropout and stochastic depth do nothing.

        Args:
            start: None trains nothing. A positive number trains that many stages, counted from the top. A negative
                number trains what makes that many of timm's feature levels, the coarsest first: -1 is the last one. A
                text names the module to start at, also within a stage: "layer3.4" trains layer3.4, layer3.5 and layer4.

        Raises:
            ConfigError: There are not so many stages or levels, or that module has no parameters.
        """
        self._first_trained = self._stages.position(start)
        for position, leaf in enumerate(self._leaves):
            for parameter in own_parameters(self.net, leaf):
                parameter.requires_grad_(position >= self._first_trained)
        self._halves = None
        self.train(self.training)

    def count_trained(self, start: int | str | None) -> int:
        """Count the leaves that `unfreeze(start)` trains."""
        return len(self._leaves) - self._stages.position(start)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of what is not frozen.

        A module without leaves (an activation, dropout, stochastic depth) follows the module around it.
        """
        super().train(mode)
        holders = {around for leaf in self._leaves for around in ancestors(leaf)}
        awake = {around for leaf in self._leaves[self._first_trained :] for around in ancestors(leaf)}
        is_awake: dict[str, bool] = {}
        for name, module in self.net.named_modules():  # each comes after the module around it
            is_awake[name] = name in awake if name in holders else is_awake[name.rpartition(".")[0]]
            module.training = mode and is_awake[name]
        return self

    def _probe(self, image_size: tuple[int, int] | None) -> tuple[tuple[int, int], Any]:
        """Find an image size that the network accepts, a cheap one if possible, and its output for that size.

        Tokens stand in as many rows and columns as `image_size` has, or the network's own size.
        """
        own = image_size or to_2tuple(self.kwargs.get("img_size", self.input_size))
        for size in (*((side, side) for side in CHEAP_SIDES), own):
            output = run(self.net, noise(*size))
            if isinstance(output, Tensor) and (output.ndim != 3 or size == own):
                return size, output
        raise self._no_map(output, size)

    def _layout(self, output: Any) -> tuple[int, bool]:
        """Find the number of channels, and whether they come last, (B, H, W, C), as in swin-like networks."""
        height, width = self._size
        if isinstance(output, Tensor) and output.ndim == 3:
            self._prefix, self._grid = self._token_grid(output.shape[1])
            return output.shape[2], False
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise self._no_map(output, self._size)
        _, *shape = output.shape
        if height != width or len({*shape}) == 1:
            is_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        else:  # the two equal sides are the map's height and width
            is_last = shape[0] == shape[1]
        return shape[2] if is_last else shape[0], is_last

    def _token_grid(self, tokens: int) -> tuple[int, tuple[int, int]]:
        """Find how many tokens have no position, and how many rows and columns the others stand in."""
        height, width = self._size
        known = getattr(self.net, "num_prefix_tokens", None)
        for prefix in range(3) if known is None else [known]:
            side = (height * width / max(tokens - prefix, 1)) ** 0.5  # of a patch, in pixels
            rows, columns = round(height / side), round(width / side)
            if rows * columns == tokens - prefix:
                return prefix, (rows, columns)
        raise self._no_map(torch.empty(1, tokens, 0), self._size)

    def _no_map(self, output: Any, size: tuple[int, int]) -> ConfigError:
        kind = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        given = f"the error {type(output).__name__}: {output}" if isinstance(output, Exception) else kind
        return ConfigError(
            f"backbone {self.name!r} gives {given} for an image of {size[0]}x{size[1]} pixels, neither a feature map "
            "(B, C, H, W) nor a token for each position: choose another size (model.image_size) or network"
        )

    def _split(self) -> Halves:
        if self._halves is None:  # a network that cannot be split is tried once, not at every step
            image = noise(*self._size).to(next(self.net.parameters()).device)
            try:
                self._halves = split_before(self.net, self._leaves[self._first_trained :], name=self.name, image=image)
            except ConfigError as error:
                self._halves = str(error)
        if isinstance(self._halves, str):
            raise ConfigError(self._halves)
        return self._halves

    def _grid_of(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens: more for a larger image, where the network takes any size."""
        (rows, columns), (height, width) = self._grid, self._size
        return rows * image.shape[2] // height, columns * image.shape[3] // width

    def _as_map(self, output: Tensor, grid: tuple[int, int]) -> Tensor:
        if output.ndim == 3:
            return torch.unflatten(output[:, self._prefix :].transpose(1, 2), 2, grid)
        return output.permute(0, 3, 1, 2) if self._is_channels_last else output


class _TokensAsMap(nn.Module):
    """A part of a network whose tokens (B, N, C) are given as a map (B, C, N, 1), as caches and layouts expect."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.part(image)
        return output.transpose(1, 2)[..., None] if output.ndim == 3 else output


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, or one with a tag that the network does not have.

    Raises:
        ConfigError: It names what is meant.
    """
    bare = name.removeprefix("timm/")  # as the hub has it
    if bare != name and timm.is_model(bare):
        raise ConfigError(f"timm has no network called {name!r}; give model.backbone={bare}, without the hub's prefix")
    architecture, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if not timm.is_model(name) or (tag and tag not in tags):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists what it has"
        if timm.is_model(architecture):
            hint = f"{architecture} has the tags {', '.join(tags) or '(none)'}"
        raise ConfigError(f"timm has no network called {name!r}; {hint}")


def _create_for(
    name: str, kwargs: dict[str, Any], image_size: tuple[int, int] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Create a network, for images of another size than its own where it is built for one; and all its arguments."""
    net = _create(name, kwargs)
    cfg: Any = net.pretrained_cfg
    if image_size is None or not cfg.get("fixed_input_size") or image_size == tuple(cfg["input_size"][1:]):
        return net, kwargs
    patches: Any = getattr(net, "patch_embed", None)
    patch = patches.patch_size[0] if hasattr(patches, "grid_size") else 1  # pixels
    if any(side % patch for side in image_size):
        less, more = ([(side + add) // patch * patch for side in image_size] for add in (0, patch - 1))
        raise ConfigError(
            f"model.image_size={list(image_size)}: {name} cuts images into squares of {patch} pixels; give multiples "
            f"of that, such as {less} or {more}"
        )
    if "img_size" not in kwargs and isinstance(run(net, noise(*image_size)), Exception):
        kwargs = {**kwargs, "img_size": list(image_size)}
        net = _create(name, kwargs)
    return net, kwargs


def _create(name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    check_name(name)
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
