"""Pretrained weights for a backbone, from timm's hub or a file: they fit, or they are refused."""

import logging
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from skinlesion.errors import CheckpointError
from skinlesion.model.backbone import Backbone
from skinlesion.model.hub import hub_weights

WRAPPERS = ("state_dict", "model")  # under which training scripts put the weights in their checkpoints

_log = logging.getLogger(__name__)

Missing = Literal["error", "initialise"]


@dataclass(frozen=True)
class Match:
    """Which weights of a source found their place in a backbone; all names are sorted."""

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # in the backbone, not in the source: left as they were
    left_over: tuple[str, ...] = ()  # in the source, not in the backbone: a classifier, layers behind a cut


def load_pretrained(backbone: Backbone, pretrained: bool | str | Path, *, missing: Missing) -> Match:
    """Load pretrained weights into `backbone`, in place, converted to its own precision.

    Args:
        backbone: The backbone to load into; weights behind its cut are ignored.
        pretrained: False loads nothing. True takes timm's weights of that network, from the hub or from the cache of
            an earlier download. A path is read, see `read_weights`.
        missing: What to do where the source lacks some of the backbone's weights: "error" refuses, "initialise"
            leaves them at their random initial values, with a warning that names them.

    Returns:
        What was loaded, missing and left over; the last is also logged.

    Raises:
        CheckpointError: If the hub or the file gives no weights, or the weights do not fit. The backbone is then as
            it was before.
    """
    if pretrained is False:
        return Match()
    if pretrained is True:
        source, weights = f"timm's weights of {backbone.name}", hub_weights(backbone)
    else:
        source, weights = str(pretrained), read_weights(Path(pretrained))
    own = backbone.net.state_dict()
    prefix = _prefix(weights, own)
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    outside = [key for key in weights if not key.startswith(prefix)]
    match = _match(inside, own, outside)
    _check(inside, own, match, source=source, name=backbone.name, missing=missing)
    with torch.no_grad():
        for key in match.loaded:
            own[key].copy_(inside[key])
    _report(match, source=source, name=backbone.name)
    return match


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights in a safetensors file (`.safetensors`) or in any file written by `torch.save`.

    A checkpoint that holds the weights under "state_dict" or "model" is unwrapped. Code in the file is not run.

    Raises:
        CheckpointError: If the file is missing or unreadable, or holds more than tensors and plain data.
    """
    path = path.expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such weight file; correct model.pretrained, or set it to true for timm's weights "
            "or to false for random ones"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a weight file, or it holds objects besides tensors and plain data, which are not loaded "
            "because they can run code; save the weights alone, with torch.save(model.state_dict(), path)"
        ) from error
    except (safetensors.SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise CheckpointError(f"{path}: not a readable weight file (truncated, or of another kind): {error}") from error
    return _tensors(content, path)


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = content.items() if isinstance(content, Mapping) else ()
    named = {str(key): value for key, value in weights if isinstance(value, Tensor)}
    if not named:
        raise CheckpointError(f"{path}: holds no named weights, such as torch.save(model.state_dict(), path) writes")
    return named


def _prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
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


def _match(inside: Mapping[str, Tensor], own: Mapping[str, Tensor], outside: Sequence[str]) -> Match:
    # batch norm reads its count of batches only where it has no momentum, and many files leave it out
    missing = [key for key in own if key not in inside and not key.endswith("num_batches_tracked")]
    return Match(
        loaded=tuple(sorted(own.keys() & inside.keys())),
        missing=tuple(sorted(missing)),
        left_over=tuple(sorted([*(inside.keys() - own.keys()), *outside])),
    )


def _check(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], match: Match, *, source: str, name: str, missing: str
) -> None:
    if not match.loaded:
        raise CheckpointError(
            f"{source}: nothing in it fits the backbone {name!r}: it has {_some(match.left_over)}, "
            f"but {_some(match.missing)} were expected; give the weights of that network"
        )
    different = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in match.loaded
        if weights[key].shape != own[key].shape
    ]
    if different:
        raise CheckpointError(
            f"{source}: the weights are of another shape than those of the backbone {name!r}: {_some(different)}; "
            "give the weights of that network, or the arguments (model.backbone_kwargs) that they were made with"
        )
    if match.missing and missing == "error":
        raise CheckpointError(
            f"{source}: lacks weights of the backbone {name!r}: {_some(match.missing)}; cut the network before them "
            "(model.feature_level), or let them start at random values (model.missing_weights=initialise)"
        )


def _report(match: Match, *, source: str, name: str) -> None:
    _log.info("%s: loaded %d weights into the backbone %s", source, len(match.loaded), name)
    if match.left_over:
        _log.info("%s: left over, without use here: %s", source, ", ".join(match.left_over))
    if match.missing:
        _log.warning("%s: missing, left at random initial values: %s", source, ", ".join(match.missing))


def _some(names: Sequence[str]) -> str:
    """List the first five names and how many there are in all."""
    listed = ", ".join(names[:5])
    return listed if len(names) <= 5 else f"{listed}, ... ({len(names)} in all)"
