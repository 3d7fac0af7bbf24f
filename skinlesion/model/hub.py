"""timm's pretrained weights of a network: from the cache of an earlier download, or from the hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, getproxies, urlopen

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from skinlesion.errors import CheckpointError
from skinlesion.model.backbone import Backbone

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # names of weight files on the hub, in timm's order
PATIENCE = 5.0  # seconds in which a hub must answer
TWO_OTHER_WAYS = (
    "set model.pretrained=false to start from random weights, or model.pretrained=/path/to/weights.safetensors "
    "to read a file"
)


def hub_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Get timm's pretrained weights of the network that `backbone` was made from, before any cut.

    Weights that were downloaded before are taken from the cache without asking the hub.

    Raises:
        CheckpointError: If timm has none, or they are not cached and the hub cannot be reached.
    """
    cfg = backbone.pretrained_cfg
    overlay = {}
    if cached := _cached(cfg):
        overlay = {"pretrained_cfg_overlay": {"file": str(cached)}}
    else:
        check_reachable(_address(cfg, backbone.name), backbone.name)
    arguments: dict[str, Any] = {**backbone.kwargs, **overlay}
    try:
        net = timm.create_model(backbone.name, pretrained=True, num_classes=0, global_pool="", **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"timm's weights of {backbone.name!r} cannot be loaded: {error}; {TWO_OTHER_WAYS}"
        ) from error
    return dict(net.state_dict())


def _cached(cfg: Mapping[str, Any]) -> Path | None:
    """Find the weights where an earlier download left them."""
    if repository := cfg.get("hf_hub_id"):
        files = (cfg["hf_hub_filename"],) if cfg.get("hf_hub_filename") else HUB_FILES
        found = (try_to_load_from_cache(repository, file) for file in files)
        return next((Path(path) for path in found if isinstance(path, str)), None)
    path = Path(torch.hub.get_dir(), "checkpoints", str(cfg.get("url", "")).rpartition("/")[-1])
    return path if path.is_file() else None


def _address(cfg: Mapping[str, Any], name: str) -> str:
    if cfg.get("hf_hub_id"):
        return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if cfg.get("url"):
        return str(cfg["url"])
    raise CheckpointError(f"timm has no pretrained weights of {name!r}; {TWO_OTHER_WAYS}")


def check_reachable(address: str, name: str) -> None:
    """Ask once whether `address` answers: the hub's own client would try for most of a minute, and log each try."""
    if "all" in getproxies():
        return  # such a proxy (SOCKS) is known to the hub's client but not to urllib
    try:
        with urlopen(Request(address, method="HEAD"), timeout=PATIENCE):
            return
    except HTTPError:
        return  # whatever it says, it is there
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"timm's weights of {name!r} cannot be downloaded: {address} cannot be reached ({error}); {TWO_OTHER_WAYS}"
        ) from error
