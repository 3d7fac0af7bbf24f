"""`skinlesion download`: a public data set, from its own host to where the other commands read it."""

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from skinlesion.config.data import DownloadConfig
from skinlesion.errors import ConfigError, DataError

log = logging.getLogger(__name__)


def run(config: DownloadConfig) -> None:
    """Show the licence, then fetch, check and unpack what is not there yet.

    Raises:
        ConfigError: The licence is not accepted, or isic-cli is needed and absent.
        DataError: The host cannot be reached, a file is not the published one, or the disk is too small.
    """
    from skinlesion.data.disk_cache import require_room
    from skinlesion.data.download import fetch, is_complete

    dataset, root = config.dataset, Path(config.data.root).expanduser()
    print(f"{dataset.title}: licence {dataset.licence}, {dataset.page}")
    if not config.accept_licence:
        raise ConfigError("accept_licence=false: read the licence there; accept_licence=true accepts it and downloads")
    if dataset.collection is not None:
        _fetch_collection(dataset.collection, root)
    wanted = [file for file in dataset.files.values() if not is_complete(file, root)]
    size = sum((file.bytes or 0) * (1 + (file.unpack is not None)) for file in wanted)
    require_room(root, size, what=dataset.title)
    for file in wanted:
        fetch(file, root, config)
    log.info("%s is in %s.", dataset.title, root)
    place = "" if "{root}" in dataset.next else f" data.root={root}"
    log.info("Next: skinlesion %s%s", dataset.next.replace("{root}", str(root)), place)


def _fetch_collection(collection: int, root: Path) -> None:
    """Let isic-cli fetch a collection of the ISIC archive; it goes on where it stopped."""
    if find_spec("isic_cli") is None:
        raise ConfigError("collections of the ISIC archive need isic-cli: pip install 'skinlesion[isic]'")
    words = [sys.executable, "-m", "isic_cli.cli", "image", "download", "--collections", str(collection), str(root)]
    if status := subprocess.run(words, check=False).returncode:
        raise DataError(
            f"isic-cli ended with status {status}; run this again to go on, or download collection {collection} by "
            f"hand to {root}"
        )
