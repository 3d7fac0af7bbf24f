"""What a report takes in from the folders of other verbs: an extra section with words, tables and pictures."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

from skinlesion.errors import DataError
from skinlesion.studies.report.tables import Table

_WIDEST = 1400  # pixels of a picture in the page


@dataclass(frozen=True)
class Picture:
    """A figure that another verb drew."""

    title: str
    caption: str
    alt: str  # what it shows, for those who cannot see it
    uri: str  # the picture itself


@dataclass(frozen=True)
class Extra:
    """What one folder adds to the report."""

    title: str
    folder: Path
    lead: str  # what was done, in a sentence or two
    tables: list[Table]
    pictures: list[Picture]
    can: list[str] = field(default_factory=list)  # sentences for the summary
    fails: list[str] = field(default_factory=list)


@cache
def _captions() -> Any:
    return OmegaConf.load(Path(__file__).parent / "captions.yaml")


def there(folder: Path, key: str, *, given: bool) -> bool:
    """Whether a folder is there.

    Raises:
        DataError: It is not, though it was given.
    """
    if given and not folder.is_dir():
        raise DataError(f"{key}={folder}: no such folder; give the one that `skinlesion {key}` left, or null")
    return folder.is_dir()


def read(path: Path, keys: Sequence[str], *, verb: str) -> dict[str, Any]:
    """A JSON file that a verb left.

    Raises:
        DataError: It cannot be read, or lacks a key.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in keys if key not in found]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not readable ({error}); run `{verb}` again") from error
    if lacking:
        raise DataError(f"{path}: no {', '.join(lacking)}; it is of an older version: run `{verb}` again")
    return found


def pictures(folder: Path, names: Sequence[str]) -> list[Picture]:
    """Those of the named PNGs that are in a folder, with their captions, in the order of the names."""
    return [_picture(folder / f"{name}.png") for name in names if (folder / f"{name}.png").is_file()]


def _picture(path: Path) -> Picture:
    with Image.open(path) as image:
        image.load()
        shown = image.convert("RGB")
    shown.thumbnail((_WIDEST, 10 * _WIDEST))
    buffer = io.BytesIO()
    shown.quantize(128).save(buffer, format="PNG", optimize=True)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    words = _captions().get(path.stem) or {"title": path.stem, "caption": "", "alt": f"A figure named {path.stem}."}
    return Picture(words["title"], words["caption"], words["alt"], f"data:image/png;base64,{coded}")
