"""A folder that is written whole or not at all, in place of an earlier bundle."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skinlesion.deploy import manifest
from skinlesion.errors import ConfigError


@contextmanager
def replacing_bundle(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it to `folder` if the block succeeds, delete it otherwise.

    Raises:
        ConfigError: There is something at `folder` that is not a bundle.
    """
    if folder.exists() and not (folder / manifest.FILE).is_file() and not _empty(folder):
        raise ConfigError(f"out={folder}: there is something else; give an empty folder, a bundle's or a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    beside.mkdir()
    try:
        yield beside
        _swap(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _swap(new: Path, folder: Path) -> None:
    old = new.with_name(f"{new.name}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)
