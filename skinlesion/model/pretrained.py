"""Pretrained weights for a backbone, from timm's hub or a file: they fit, or they are refused."""

import json
import logging
import os
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, getproxies, urlopen

import safetensors
import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from timm.models import load_state_dict
from torch import Tensor

from skinlesion.errors import CheckpointError, ConfigError
from skinlesion.model.backbone import Backbone
from skinlesion.model.surgery import REFUSALS

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # names of weight files on the hub, in timm's order
HUB_TIMEOUT = 5.0  # seconds in which a hub must answer
OTHER_WAYS = (
    "set model.pretrained=false to start from random weights, or model.pretrained=/path/to/weights.safetensors "
    "to read a file"
)

_RECORD = ("input_size", "fixed_input_size", "mean", "std", "license")  # of a repository's weights

_UNREADABLE = (
    *(safetensors.SafetensorError, zipfile.BadZipFile, zlib.error),
    *(OSError, RuntimeError, EOFError, ValueError, LookupError),
)
_log = logging.getLogger(__name__)
logging.getLogger("timm.models._helpers").setLevel(logging.WARNING)  # "Loaded  from checkpoint", of each file

Missing = Literal["error", "initialise"]


@dataclass(frozen=True)
class Match:
    """Which weights of a source found their place in a backbone; all names are sorted."""

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # in the backbone, not in the source: left as they were
    left_over: tuple[str, ...] = ()  # in the source, not in the backbone: a classifier, layers behind a cut


def load_pretrained(backbone: Backbone, pretrained: bool | str | Path, *, missing: Missing = "error") -> Match:
    """Load pretrained weights into `backbone`, in place, converted to its own precision.

    Args:
        backbone: The backbone to load into; weights behind its cut are ignored.
        pretrained: False loads nothing. True takes timm's weights of that network, from the hub or from the cache of
            an earlier download. A path is read, see `read_weights`.
        missing: What to do if the source lacks some of the backbone's weights: "error" refuses, "initialise" leaves
            them at their random initial values, with a warning that names them.

    Returns:
        The names of weights that were loaded, missing and left over; the last are also logged.

    Raises:
        CheckpointError: The hub or the file gives no weights, or the weights do not fit. The backbone is then as it
            was before.
    """
    if pretrained is False:
        return Match()
    if pretrained is True:
        source, weights = f"timm's weights of {backbone.name}", hub_weights(backbone)
    else:
        source, weights = str(pretrained), read_weights(Path(pretrained))
    own = backbone.net.state_dict()
    prefix = _wrapper_prefix(weights, own)
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    inside = _converted(inside, backbone)
    match = Match(
        loaded=tuple(sorted(own.keys() & inside.keys())),
        # batch norm reads its count of batches only where it has no momentum, and many files leave it out
        missing=tuple(sorted(key for key in own.keys() - inside.keys() if not key.endswith("num_batches_tracked"))),
        left_over=tuple(
            sorted([*(inside.keys() - own.keys()), *(key for key in weights if not key.startswith(prefix))])
        ),
    )
    _refuse_misfit(inside, own, match, where=f"{source}: ", name=backbone.name, missing=missing)
    with torch.no_grad():
        for key in match.loaded:
            own[key].copy_(inside[key])
    known = backbone.pretrained_cfg if pretrained is True else backbone.kwargs.get("pretrained_cfg_overlay", {})
    licence = f"; licence {known['license']}" if known.get("license") else ""
    _log.info("%s: loaded %d weights into the backbone %s%s", source, len(match.loaded), backbone.name, licence)
    if others := [key for key in match.left_over if not key.startswith("network.head.")]:
        _log.info("%s: left over, without use here: %s", source, ", ".join(others))
    if match.missing:
        _log.warning("%s: missing, left at random initial values: %s", source, ", ".join(match.missing))
    return match


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights in a safetensors file (`.safetensors`) or in a file written by `torch.save`.

    Weights that a checkpoint holds under "state_dict" or "model" (or, of their moving average, "state_dict_ema" or
    "model_ema") are found there. Code in the file is not run.

    Raises:
        CheckpointError: The file is missing or unreadable, or holds no weights, or objects that could run code.
    """
    path = path.expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such weight file; correct model.pretrained, or set it to true for timm's weights "
            "or to false for random ones"
        )
    try:
        if zipfile.is_zipfile(path):  # torch.load does not compare the CRC-32 of its tensors
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} in it is damaged: its CRC-32 is another")
        content = load_state_dict(str(path), weights_only=True)
    except _UNREADABLE as error:
        if found := re.search(r"Unsupported globals: ([\w.]+(?:, [\w.]+)*)\.", str(error)):
            alone = f"torch.save(torch.load({str(path)!r}, weights_only=False)['state_dict'], 'weights.pth')"
            raise CheckpointError(
                f"{path}: not a readable weight file (weights_only=True blocked {found[1]}, code that is not run); if "
                f"you trust the file, save its weights alone, {alone}, and set model.pretrained=weights.pth"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable weight file ({reason}); {OTHER_WAYS}") from error
    except AttributeError:
        content = {}  # a list or a single tensor
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(f"{path}: holds no named weights, such as torch.save(model.state_dict(), path) writes")
    return weights


def hub_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Get timm's pretrained weights of the network that `backbone` was made from, before any cut.

    Weights that were downloaded before are taken from the cache without asking the hub.

    Raises:
        CheckpointError: timm has none, or they are not cached and the hub cannot be reached.
    """
    cfg = backbone.pretrained_cfg
    overlay: dict[str, Any] = {}
    if cached := _cached(cfg):
        overlay = {"pretrained_cfg_overlay": {**backbone.kwargs.get("pretrained_cfg_overlay", {}), "file": str(cached)}}
    elif cfg.get("hf_hub_id"):
        check_reachable(_hub_address(), backbone.name)
    elif cfg.get("url"):
        check_reachable(str(cfg["url"]), backbone.name)
    else:
        raise CheckpointError(f"timm has no pretrained weights of {backbone.name!r}; {OTHER_WAYS}")
    arguments = {**backbone.kwargs, **overlay}
    try:
        net = timm.create_model(backbone.name, pretrained=True, num_classes=0, global_pool="", **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"timm's weights of {backbone.name!r} cannot be loaded: {error}; {OTHER_WAYS}") from error
    return dict(net.state_dict())


def resolve_hub_name(name: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Find the network that `hf_hub:OWNER/REPOSITORY` stands for; any other name is given back as it is.

    Returns:
        timm's name of the network, and its arguments, among them the record of its weights: both suffice without the
        hub.

    Raises:
        CheckpointError: The repository is not cached, and the hub cannot be reached or has none of that name.
        ConfigError: The repository does not hold a network of timm.
    """
    found = re.fullmatch(r"hf[-_]hub:(?:timm/)?(.+)", name)
    if found is None or timm.is_model(found[1]):  # timm's own weights
        return name if found is None else found[1], dict(kwargs)
    repository = found[1]
    try:
        path = try_to_load_from_cache(repository, "config.json")
        if not isinstance(path, str):
            check_reachable(_hub_address(), repository)
            path = hf_hub_download(repository, "config.json", endpoint=_hub_address())
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"model.backbone={name}: no config.json of it ({reason}); {OTHER_WAYS}") from error
    architecture = record.get("architecture")
    if not timm.is_model(str(architecture)):
        raise ConfigError(f"model.backbone={name}: no network of timm (architecture: {architecture}); give another")
    about = record.get("pretrained_cfg", record)
    kept = {key: about[key] for key in _RECORD if about.get(key) is not None}
    overlay = {**kept, "hf_hub_id": repository, **kwargs.get("pretrained_cfg_overlay", {})}
    return architecture, {**record.get("model_args", {}), **kwargs, "pretrained_cfg_overlay": overlay}


def _hub_address() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def check_reachable(address: str, name: str) -> None:
    """Ask once whether `address` answers: the hub's own client would try for most of a minute, and log each try.

    Raises:
        CheckpointError: It does not answer within HUB_TIMEOUT.
    """
    if "all" in getproxies():
        return  # the hub's client can use such a proxy (SOCKS), urllib cannot
    try:
        with urlopen(Request(address, method="HEAD"), timeout=HUB_TIMEOUT):
            return
    except HTTPError:
        return  # an error status is an answer too
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"timm's weights of {name!r} cannot be downloaded: {address} cannot be reached ({error}); {OTHER_WAYS}"
        ) from error


def _cached(cfg: Mapping[str, Any]) -> Path | None:
    """Find the weights where an earlier download left them."""
    if repository := cfg.get("hf_hub_id"):
        files = (cfg["hf_hub_filename"],) if cfg.get("hf_hub_filename") else HUB_FILES
        found = (try_to_load_from_cache(repository, file) for file in files)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    path = Path(torch.hub.get_dir(), "checkpoints", str(cfg.get("url", "")).rpartition("/")[-1])
    return path if path.is_file() else None


def _wrapper_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Find what a wrapper ("module.", "network.backbone.net.") put before the names of the network's weights.

    It is the prefix under which most of the network's own names are found, and of equals the shortest.
    """
    counts = Counter(
        key[:end]
        for key in weights
        for end in (0, *(place + 1 for place, letter in enumerate(key) if letter == "."))
        if key[end:] in own
    )
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _converted(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Convert weights that do not fit as they are by timm's own filter of that family, if it has one.

    It knows the authors' names of layers, and resamples position embeddings to another image size.
    """
    own = backbone.net.state_dict()
    convert = getattr(sys.modules[type(backbone.net).__module__], "checkpoint_filter_fn", None)
    if convert is None or all(key in weights and weights[key].shape == value.shape for key, value in own.items()):
        return weights
    try:
        found: dict[str, Tensor] = convert(dict(weights), backbone.net)
    except REFUSALS:  # other weights than that filter knows
        return weights
    return found if len(own.keys() & found.keys()) >= len(own.keys() & weights.keys()) else weights


def _refuse_misfit(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], match: Match, *, where: str, name: str, missing: Missing
) -> None:
    if not match.loaded:
        raise CheckpointError(
            f"{where}nothing in it fits the backbone {name!r}: it has {_some(match.left_over)}, "
            f"but {_some(match.missing)} were expected; give the weights of that network"
        )
    different = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in match.loaded
        if weights[key].shape != own[key].shape
    ]
    if different:
        raise CheckpointError(
            f"{where}the weights are of another shape than those of the backbone {name!r}: {_some(different)}; "
            "give the weights of that network, or the arguments (model.backbone_kwargs) that they were made with"
        )
    if match.missing and missing == "error":
        raise CheckpointError(
            f"{where}lacks weights of the backbone {name!r}: {_some(match.missing)}; cut the network before them "
            "(model.feature_level), or let them start at random values (model.missing_weights=initialise)"
        )


def _some(names: Sequence[str]) -> str:
    """List the first five names and how many there are in all."""
    listed = ", ".join(names[:5])
    return listed if len(names) <= 5 else f"{listed}, ... ({len(names)} in all)"
