"""Models on the Hugging Face hub: `hf://user/name` or `hf://user/name@revision` in the place of a path."""

import logging
import re
from pathlib import Path
from typing import Any

from skinlesion.errors import CheckpointError

SCHEME = "hf://"
WEIGHTS = "model.safetensors"  # a checkpoint as it is published; what else it needs is in ABOUT beside it
ABOUT = "config.json"
FILES = ("*.json", "*.safetensors", "*.onnx", "*.npz", "*.md")  # nothing that could run code
_ADDRESS = re.compile(rf"{SCHEME}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_TIMEOUT = 5.0  # seconds in which the hub must answer
for _client in ("httpx", "httpx2"):  # a line for each of the client's requests
    logging.getLogger(_client).setLevel(logging.WARNING)


def local_path(path: str | Path) -> Path:
    """The place of a model on this machine: a model of the hub is downloaded, or taken from the hub's cache.

    Args:
        path: As `Predictor.load` takes it.

    Returns:
        A file or folder; of a folder with a published checkpoint its weights.

    Raises:
        CheckpointError: The address is none, or the hub or its cache does not have it.
    """
    found = _fetch(str(path)) if str(path).startswith(SCHEME) else Path(path).expanduser()
    published = found / WEIGHTS
    return published if published.is_file() and not (found / "best.ckpt").exists() else found


def localize(config: Any) -> None:
    """Download the model that a command's configuration names as hf://, and name its place instead.

    It becomes the `ensemble`, `bundle` or `checkpoint` that it is, whichever key named it.
    """
    for key in ("checkpoint", "ensemble", "bundle"):
        if str(getattr(config, key, None)).startswith(SCHEME):
            found = local_path(getattr(config, key))
            kinds = [kind for kind in ("ensemble", "bundle") if (found / f"{kind}.json").exists()]
            kind = next((kind for kind in (*kinds, "checkpoint") if hasattr(config, kind)), key)
            setattr(config, key, None)
            setattr(config, kind, str(found))


def parse(address: str) -> tuple[str, str | None]:
    """The repository and the revision of an address.

    Raises:
        CheckpointError: It is not one.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise CheckpointError(f"{address}: expected {SCHEME}user/name or {SCHEME}user/name@revision")
    return found["repo"], found["revision"]


def _fetch(address: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    repo, revision = parse(address)
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES), etag_timeout=_TIMEOUT))
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{address}: the hub has no revision {revision} of {repo}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{address}: the hub has no such model, or it is private and `hf auth login` is needed"
        ) from error
    except Exception as error:  # whatever the hub's client makes of a network that fails
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        if getattr(getattr(error.__cause__ or error, "response", None), "status_code", None) in (401, 403):
            raise CheckpointError(
                f"{address}: the hub refuses it ({reason}): HF_TOKEN or the token of `hf auth login` is wrong or has "
                "no right to read this model; log in again"
            ) from error
        raise CheckpointError(
            f"{address}: not in the hub's cache, and the hub cannot be reached ({reason}); try again with a network, "
            "or give the path of a copy"
        ) from error
