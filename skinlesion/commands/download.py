"""`skinlesion download`: a public data set, from its own host to where the other commands read it."""

import csv
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from skinlesion.config.data import DownloadConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.files import require_writable

log = logging.getLogger(__name__)


def run(config: DownloadConfig) -> None:
    """Show the licence, then fetch, check and unpack what is not there yet.

    Raises:
        ConfigError: The licence is not accepted, or isic-cli is needed and absent.
        DataError: The host cannot be reached, a file is not the published one, or the disk is too small.
    """
    from skinlesion.data.disk_cache import require_room
    from skinlesion.data.download import fetch, is_complete, room

    dataset, root = config.dataset, Path(config.data.root).expanduser()
    print(f"{dataset.title}: licence {dataset.licence}, {dataset.page}")
    if not config.accept_licence:
        raise ConfigError("accept_licence=false: read the licence there; accept_licence=true accepts it and downloads")
    require_writable(root, "data.root")
    if dataset.collection is not None:
        _fetch_collection(dataset.collection, root)
    wanted = [file for file in dataset.files.values() if not is_complete(file, root)]
    require_room(root, sum(room(file, root) for file in wanted), what=f"the files of {dataset.title}", key="data.root")
    for file in wanted:
        fetch(file, root, config)
        is_complete(file, root)
    log.info("%s is in %s.", dataset.title, root)
    place = "" if "{root}" in dataset.next else f" data.root={root}"
    log.info("Next: skinlesion %s%s", dataset.next.replace("{root}", str(root)), place)


def _fetch_collection(collection: int, root: Path) -> None:
    """Let isic-cli fetch a collection of the ISIC archive; it goes on where it stopped, and hides what failed."""
    from skinlesion.data.download import count_images

    if find_spec("isic_cli") is None:
        raise ConfigError("collections of the ISIC archive need isic-cli: pip install 'skinlesion[isic]'")
    words = [sys.executable, "-m", "isic_cli.cli", "image", "download", "--collections", str(collection), str(root)]
    if status := subprocess.run(words, check=False).returncode:
        raise DataError(
            f"isic-cli ended with status {status}; run this again to go on, or download collection {collection} by "
            f"hand to {root}"
        )
    if not (table := root / "metadata.csv").is_file():
        raise DataError(f"{root}: isic-cli ended without metadata.csv; run this again")
    with table.open(newline="", encoding="utf-8") as rows:
        expected, images = sum(1 for _ in csv.DictReader(rows)), count_images(root)
    if images < expected:
        raise DataError(f"{root}: holds {images:,} of {expected:,} images of metadata.csv; run this again to go on")
